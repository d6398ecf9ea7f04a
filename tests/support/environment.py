"""The environment of the processes that tests start: whose machine this is must not change what they do."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

#: All that real programs get of the caller's settings.
KEPT = ("HOME", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "LOGNAME", "PATH", "TZ", "USER")

#: What the process of the tests itself, and children that take all from it, go without.
DROPPED_PREFIXES = ("AIRFLOW", "_AIRFLOW", "PIP_", "RAY_", "UV_")
DROPPED = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "NETRC", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")

#: Where temporary files go, whatever TMPDIR says: the paths of UNIX sockets may have 107 characters.
SHORT_TMP = "/tmp"


def for_programs(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return what a real program gets of an environment: Ray, Airflow, or Ray's own client."""
    # A ~/.netrc may have a password for any host, which `requests` sends instead of what it was told to send.
    own = {"TMPDIR": SHORT_TMP, "NETRC": os.devnull}
    return own | {name: environ[name] for name in KEPT if name in environ}


def clean(environ: MutableMapping[str, str] = os.environ) -> None:
    """Take out of an environment what would lead the tests elsewhere: another cluster, database or proxy."""
    for name in list(environ):
        if name.startswith(DROPPED_PREFIXES) or name.upper() in DROPPED:
            del environ[name]
    environ["TMPDIR"] = SHORT_TMP
    tempfile.tempdir = None  # asked for anew, should somebody have asked already
