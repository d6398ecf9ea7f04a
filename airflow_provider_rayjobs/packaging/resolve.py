"""
Completes a ``runtime_env`` as Ray's client does: reads the files of ``pip``, ``uv`` and ``conda``, and writes out
short forms. It follows ``runtime_env/runtime_env.py`` of Ray 2.60.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from airflow_provider_rayjobs.client.runtime_env import is_uri
from airflow_provider_rayjobs.exceptions import RayPackageError

_CONFIG_DEFAULTS: Mapping[str, Any] = {"setup_timeout_seconds": 600, "eager_install": True, "log_files": []}

#: Ends of the names of files that describe a conda environment; other strings are names of environments, or folders.
_YAML = (".yaml", ".yml")

#: Keys that Ray's client sends under another name.
_RENAMED = {"nsight": "_nsight", "rocprof_sys": "_rocprof_sys"}


def resolve_files(runtime_env: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return a ``runtime_env`` as Ray's client sends it, except for local ``working_dir`` and ``py_modules``.

    The files that ``pip``, ``uv`` and ``conda`` name are read; short forms are written out; empty values are left out.

    :param runtime_env: one that :func:`check_runtime_env` has accepted.
    :raises RayPackageError: if a file can't be read.
    """
    resolved: dict[str, Any] = {}
    for key, value in runtime_env.items():
        sent = _SENT[key](value) if key in _SENT and value is not None else value
        if sent is not None and not (key in ("env_vars", "excludes") and not sent):
            resolved[_RENAMED.get(key, key)] = sent
    return resolved


def with_absolute_paths(runtime_env: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """
    Return a ``runtime_env`` whose relative local paths are relative to a folder.

    :param runtime_env: one that :func:`check_runtime_env` has accepted.
    :param folder: the folder.
    """

    def absolute(path: Any) -> Any:
        if not isinstance(path, str | os.PathLike) or is_uri(name := os.fspath(path)) or "://" in name:
            return path  # a URI that Ray does not support is refused as it was written
        return str(Path(folder, path))

    found = dict(runtime_env)
    for key, value in runtime_env.items():
        if key == "py_modules" and value:
            found[key] = [absolute(path) for path in value]
        elif key in ("pip", "uv") and isinstance(value, Mapping):
            found[key] = {**value, "packages": absolute(value["packages"])}
        elif key in ("working_dir", "pip", "uv") or (key == "conda" and str(value).endswith(_YAML)):
            found[key] = absolute(value)
    return found


def _packages(key: str, value: Any) -> dict[str, Any] | None:
    """Return the long form of ``pip`` or ``uv``, without duplicates; None if it has no packages."""
    written = dict(value) if isinstance(value, Mapping) else {"packages": value}
    if isinstance(written["packages"], str):
        written["packages"] = _read_text(key, written["packages"]).strip().split("\n")
    written["packages"] = list(dict.fromkeys(written["packages"]))
    written.setdefault(f"{key}_check", False)
    if key == "uv":
        written.setdefault("uv_pip_install_options", ["--no-cache"])
    return written if written["packages"] else None


def _conda(value: Any) -> Any:
    """Return the environment that a YAML file describes; the name or folder of one is returned as it is."""
    if not isinstance(value, str):
        return value
    path = Path(value)
    if path.suffix not in _YAML:
        if path.is_absolute() and not path.is_dir():
            raise RayPackageError(f"runtime_env['conda']: there is no folder {value!r}; give the environment's name")
        return value
    import yaml

    try:
        read = yaml.safe_load(_read_text("conda", value))
        if not isinstance(read, Mapping):
            raise RayPackageError(f"runtime_env['conda']: {value!r} must hold an environment, as a YAML mapping")
        return read
    except yaml.YAMLError as e:
        raise RayPackageError(f"runtime_env['conda']: {value!r} is not valid YAML ({e})") from e


def _config(value: Mapping[str, Any]) -> dict[str, Any]:
    given = {name: item for name, item in value.items() if name in _CONFIG_DEFAULTS and item is not None}
    return {**_CONFIG_DEFAULTS, **given}


def _read_text(key: str, path: str) -> str:
    """Read a file in UTF-8, without the byte order mark that editors on Windows write."""
    try:
        return Path(path).read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as e:
        problem = e.strerror if isinstance(e, OSError) else e
        raise RayPackageError(
            f"runtime_env[{key!r}]: the file {path!r} can't be read ({problem}); give the path of a file on the "
            "Airflow worker, or a list"
        ) from e


#: Functions that convert the values of these keys to the form that Ray's client sends.
_SENT: Mapping[str, Callable[[Any], Any]] = {
    "working_dir": os.fspath,
    "py_modules": lambda value: [os.fspath(item) for item in value],
    "pip": partial(_packages, "pip"),
    "uv": partial(_packages, "uv"),
    "conda": _conda,
    "config": _config,
}
