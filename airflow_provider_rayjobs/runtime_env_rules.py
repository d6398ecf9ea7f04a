"""
Rules for a ``runtime_env`` that Ray applies only when the job starts, so that the job would fail minutes later.

They are those of ``RuntimeEnv`` and of ``OPTION_TO_VALIDATION_FN`` (Ray's ``runtime_env/runtime_env.py`` and
``_private/runtime_env/validation.py``, 2.60).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger(__name__)

#: What Ray 2.60 takes; plugins of a cluster may take more.
KNOWN_KEYS = frozenset(
    {
        "conda",
        "config",
        "container",
        "env_vars",
        "excludes",
        "image_uri",
        "java_jars",
        "nsight",
        "pip",
        "py_executable",
        "py_modules",
        "rocprof_sys",
        "uv",
        "worker_process_setup_hook",
        "working_dir",
    }
)

#: These install packages, and Ray takes one of them.
_INSTALLERS = ("conda", "pip", "uv")

#: With these, Ray takes no key but the ones named.
_ALONE = {
    "container": frozenset({"container", "config", "env_vars"}),
    "image_uri": frozenset({"image_uri", "config", "env_vars"}),
}


def check_rules(runtime_env: Mapping[str, Any]) -> None:
    """
    Check a runtime environment, but for what names local files.

    :raises TypeError: a value has a wrong type; the message names its key.
    :raises ValueError: a value is wrong, or keys exclude each other; the message names them.
    """
    given = {key: value for key, value in runtime_env.items() if value is not None}
    installers = [key for key in _INSTALLERS if key in given]
    if len(installers) > 1:
        raise ValueError(f"runtime_env holds {' and '.join(installers)}; Ray takes one of them")
    for key, allowed in _ALONE.items():
        if given.get(key) and (more := sorted(given.keys() - allowed)):
            raise ValueError(f"runtime_env holds {key!r}, with which Ray does not take {more[0]!r}")
    for key in ("worker_process_setup_hook", "py_executable", "image_uri"):
        if not isinstance(given.get(key, ""), str):
            raise TypeError(f"runtime_env[{key!r}] must be a text, not {type(given[key]).__name__}")
    excludes = given.get("excludes", [])
    if not isinstance(excludes, list) or not all(isinstance(pattern, str) for pattern in excludes):
        raise TypeError("runtime_env['excludes'] must be a list of texts")
    _check_config(given.get("config"))


def _check_config(config: Any) -> None:
    if config is None:
        return
    if not isinstance(config, dict):
        raise TypeError(f"runtime_env['config'] must be a dict, not {type(config).__name__}")
    seconds = config.get("setup_timeout_seconds", -1)
    if not isinstance(seconds, int) or isinstance(seconds, bool):
        raise TypeError("runtime_env['config']['setup_timeout_seconds'] must be a whole number of seconds")
    if seconds != -1 and seconds <= 0:
        raise ValueError(
            f"runtime_env['config']['setup_timeout_seconds'] is {seconds}; it must be positive, or -1 for no limit"
        )
    if not isinstance(config.get("eager_install", True), bool):
        raise TypeError("runtime_env['config']['eager_install'] must be true or false")


def warn_of_unknown_keys(runtime_env: Mapping[str, Any] | None) -> None:
    """Warn of keys that Ray itself does not know: a misspelt one has no effect; a cluster's plugins may add others."""
    if unknown := sorted(key for key in runtime_env or {} if key not in KNOWN_KEYS and not key.startswith("_")):
        log.warning("runtime_env holds %s, which Ray itself does not know; is it misspelt?", ", ".join(unknown))
