"""The environment that child processes get: whose machine this is must not change what they do."""

from __future__ import annotations

import os
import re
import tempfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

#: All that programs get which need nothing beyond this machine.
KEPT = ("HOME", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "LOGNAME", "PATH", "TZ", "USER")

#: Not for programs that install: settings of other programs, and of another Python.
DROPPED = ("AIRFLOW", "_AIRFLOW", "PIP_", "PYTHON", "RAY_", "UV_", "VIRTUAL_ENV", "CONDA_PREFIX")

#: Of pip's and uv's own settings those that say how registries are reached; the others say where and how to install.
REGISTRIES = re.compile(
    r"(PIP|UV)_.*(CACHE|CERT|CONFIG_FILE|CREDENTIALS|FIND_LINKS|HOST|INDEX|KEYRING|OFFLINE|PROXY|RETRIES|TIMEOUT|TLS)"
)

#: Where files of programs go, whatever TMPDIR says: the paths of UNIX sockets may have some 100 characters.
SHORT_TMP = "/tmp"  # noqa: S108

#: On some systems Python asks the desktop's settings for a proxy when the environment names none.
NO_PROXY = "127.0.0.1,localhost"


def for_programs(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """
    Return the environment for programs that need nothing beyond this machine, such as Ray and Airflow.

    :param environ: that of the caller.
    """
    kept = {name: environ[name] for name in KEPT if name in environ}
    # A ~/.netrc may have a password for any host, which libraries send instead of what they were told to send.
    return {**kept, "TMPDIR": SHORT_TMP, "NO_PROXY": NO_PROXY, "no_proxy": NO_PROXY, "NETRC": os.devnull}


def for_installers(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """
    Return the environment for pip, uv and what they build with: registries, proxies and certificates stay.

    :param environ: that of the caller.
    """
    kept = {name: value for name, value in environ.items() if not name.startswith(DROPPED) or REGISTRIES.match(name)}
    # A pip.conf may ask for the user's folder, which pip refuses in a virtual environment.
    return {**kept, "TMPDIR": tempfile.gettempdir(), "PIP_USER": "0", "UV_PYTHON_DOWNLOADS": "never"}


def use(variables: Mapping[str, str]) -> None:
    """Make this the environment of this process, and so of its children."""
    os.environ.clear()
    os.environ.update(variables)
