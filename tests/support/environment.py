"""Environment variables of the processes that tests start, which must not depend on the user's settings."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

#: The only variables that are passed to real programs.
KEPT = ("HOME", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "LOGNAME", "PATH", "TZ", "USER")

#: Removed from the environment of the tests' process, and so from children that inherit it.
DROPPED_PREFIXES = ("AIRFLOW", "_AIRFLOW", "KUBERNETES_", "PIP_", "RAY_", "UV_")
DROPPED = (
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "NETRC", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
    "KUBECONFIG",
)

#: The folder for temporary files. TMPDIR is ignored, because paths of UNIX sockets have at most 107 characters.
SHORT_TMP = "/tmp"


def for_programs(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment for a real program: Ray, Airflow, or Ray's own client."""
    # A ~/.netrc may have a password for any host, which `requests` sends instead of the given one.
    own = {"TMPDIR": SHORT_TMP, "NETRC": os.devnull}
    return own | {name: environ[name] for name in KEPT if name in environ}


def clean(environ: MutableMapping[str, str] = os.environ) -> None:
    """Remove variables that would make the tests use another cluster, database or proxy."""
    for name in list(environ):
        if name.startswith(DROPPED_PREFIXES) or name.upper() in DROPPED:
            del environ[name]
    environ["TMPDIR"] = SHORT_TMP
    tempfile.tempdir = None  # recomputed, in case it was already computed
