"""Environment variables of child processes, which must not depend on the user's settings."""

from __future__ import annotations

import os
import re
import tempfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The only variables that are passed to programs that need nothing beyond this machine.
KEPT = ("HOME", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "LOGNAME", "PATH", "TZ", "USER")

#: Prefixes of variables that are not passed to installers: settings of other programs, and of another Python.
DROPPED = ("AIRFLOW", "_AIRFLOW", "PIP_", "PYTHON", "RAY_", "UV_", "VIRTUAL_ENV", "CONDA_PREFIX")

#: The settings of pip and uv that say how registries are reached. All others say where and how to install.
REGISTRIES = re.compile(
    r"(PIP|UV)_.*(CACHE|CERT|CONFIG_FILE|CREDENTIALS|FIND_LINKS|HOST|INDEX|KEYRING|OFFLINE|PROXY|RETRIES|TIMEOUT|TLS)"
)

#: The folder for programs' temporary files. TMPDIR is ignored: paths of UNIX sockets have at most 107 characters.
SHORT_TMP = "/tmp"  # noqa: S108

#: Must be set: on some systems Python otherwise uses the proxy of the desktop's settings.
NO_PROXY = "127.0.0.1,localhost"


def for_programs(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """
    Return the environment for programs that need nothing beyond this machine, such as Ray and Airflow.

    :param environ: the caller's environment.
    """
    kept = {name: environ[name] for name in KEPT if name in environ}
    # A ~/.netrc may have a password for any host, which libraries send instead of the given one.
    return {**kept, "TMPDIR": SHORT_TMP, "NO_PROXY": NO_PROXY, "no_proxy": NO_PROXY, "NETRC": os.devnull}


def for_installers(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """
    Return the environment for pip, uv and build tools. It keeps the caller's registries, proxies and certificates.

    :param environ: the caller's environment.
    """
    kept = {name: value for name, value in environ.items() if not name.startswith(DROPPED) or REGISTRIES.match(name)}
    # A pip.conf may request an installation for the user, which pip refuses in a virtual environment.
    return {**kept, "TMPDIR": tempfile.gettempdir(), "PIP_USER": "0", "UV_PYTHON_DOWNLOADS": "never"}


def use(variables: Mapping[str, str]) -> None:
    """Set the environment of this process, and so of its children."""
    os.environ.clear()
    os.environ.update(variables)
