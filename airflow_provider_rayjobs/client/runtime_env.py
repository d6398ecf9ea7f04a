"""
Checks a ``runtime_env`` without reading local files.

It follows ``RuntimeEnv`` of Ray 2.60 (``runtime_env/runtime_env.py``) and its validation
(``_private/runtime_env/validation.py``).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from airflow_provider_rayjobs.client.plain_values import check_env_vars, check_mapping
from airflow_provider_rayjobs.text.safe_text import without_credentials

#: Keys that Ray itself supports; plugins on the cluster may add others.
KNOWN_KEYS = frozenset(
    [
        "working_dir",
        "py_modules",
        "py_executable",
        "java_jars",
        "conda",
        "pip",
        "uv",
        "container",
        "image_uri",
        "excludes",
        "env_vars",
        "config",
        "worker_process_setup_hook",
        "nsight",
        "rocprof_sys",
        "_nsight",
        "_rocprof_sys",
        "_ray_release",
        "_ray_commit",
        "_inject_current_ray",
    ]
)

#: Schemes of URIs that nodes download (``gcs``: from Ray's own package store); ``local`` is a folder on every node.
_DOWNLOADED = frozenset({"http", "https", "s3", "gs", "azure", "abfss", "file", "gcs"})
_SCHEMES = _DOWNLOADED | {"local"}

ARCHIVES = (".zip", ".tar.gz", ".tgz", ".tar.xz")
_FORMATS = {"working_dir": ARCHIVES, "py_modules": (*ARCHIVES, ".whl")}

_INSTALLER_FIELDS: Mapping[str, Mapping[str, type]] = {
    "pip": {"packages": list, "pip_check": bool, "pip_version": str, "pip_install_options": list},
    "uv": {"packages": list, "uv_check": bool, "uv_version": str, "uv_pip_install_options": list},
}


def public_runtime_env(runtime_env: Mapping[str, Any]) -> dict[str, Any]:
    """Return a ``runtime_env`` for display: without the values of ``env_vars``, and without secrets in URLs."""
    shown = {key: without_credentials(value) for key, value in runtime_env.items()}
    if isinstance(shown.get("env_vars"), Mapping):
        shown["env_vars"] = dict.fromkeys(shown["env_vars"], "***")
    return shown


def is_uri(value: str) -> bool:
    """Whether a ``working_dir`` or an entry of ``py_modules`` is a URI that Ray reads itself, not a local path."""
    return urlsplit(value).scheme in _SCHEMES


def unknown_keys(runtime_env: Mapping[str, Any]) -> list[str]:
    """Return the keys that Ray itself does not support."""
    return sorted(set(runtime_env) - KNOWN_KEYS)


def check_runtime_env(runtime_env: Any) -> None:
    """
    Check the values of a ``runtime_env``, without reading local paths.

    :raises TypeError: a value has the wrong type; the message names its key.
    :raises ValueError: a value is invalid; the message names its key.
    """
    check_mapping("runtime_env", runtime_env)
    for key, value in runtime_env.items():
        if not isinstance(key, str):
            raise TypeError(f"runtime_env has the key {key!r}; keys must be strings")
        if value is not None:
            _check_value(key, value)
    _check_together({key for key, value in runtime_env.items() if value})


def expanded_on_the_node(value: str) -> bool:
    """Whether Ray may change a variable's value: it expands ``$NAME`` and ``${NAME}`` (``update_envs`` of Ray 2.60)."""
    return re.search(r"\$(\w|\{)", value) is not None


def _check_value(key: str, value: Any) -> None:
    if key in _INSTALLER_FIELDS:
        _check_installer(key, value)
    else:
        _CHECKS.get(key, partial(_check_json, key))(value)


def _wrong_type(key: str, value: Any, wanted: str) -> str:
    # Names only the type: the value may contain a secret.
    return f"runtime_env[{key!r}] must be {wanted}, not {type(value).__name__}"


def _check_json(key: str, value: Any) -> None:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        raise TypeError(
            f"runtime_env[{key!r}] can't be written as JSON; use strings, numbers, lists and dicts"
        ) from None


def _check_texts(key: str, value: Any) -> None:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise TypeError(_wrong_type(key, value, "a list of strings"))


def _check_hook(value: Any) -> None:
    if not isinstance(value, str):
        raise ValueError(
            _wrong_type("worker_process_setup_hook", value, "the name of a function, such as 'module.function'")
        )


def _check_conda(value: Any) -> None:
    if not isinstance(value, str | Mapping):
        raise TypeError(_wrong_type("conda", value, "a string or a dict"))
    _check_json("conda", value)


def _check_paths(key: str, value: Any) -> None:
    if not isinstance(value, list):
        raise TypeError(_wrong_type(key, value, "a list"))
    for item in value:
        _check_path(key, item)


def _check_path(key: str, value: Any) -> None:
    if not isinstance(value, str | os.PathLike):
        raise TypeError(_wrong_type(key, value, "a path or a URI"))
    text = os.fspath(value)
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"runtime_env[{key!r}] contains an empty path; give a path or a URI")
    scheme = urlsplit(text).scheme
    if key == "java_jars" and not scheme:
        raise ValueError(
            f"runtime_env['java_jars'] contains the local path {text!r}, which the cluster can't read; give a URI that "
            "it can read"
        )
    if "://" in text and scheme not in _SCHEMES:
        raise ValueError(
            f"runtime_env[{key!r}]: Ray does not support {scheme}:// URIs, only {', '.join(sorted(_SCHEMES))}"
        )
    if (
        scheme == "local"
        and key in _FORMATS
        and (not text[8:].startswith("/") or text.endswith(_FORMATS["py_modules"]))
    ):
        raise ValueError(f"runtime_env[{key!r}] is {text!r}; write local:// and the absolute path of a folder")
    if scheme in _DOWNLOADED and key in _FORMATS:
        parts = urlsplit(text)
        if not (parts.netloc + parts.path).endswith(_FORMATS[key]):
            file = parts.path.rpartition("/")[2] or parts.netloc.rpartition("@")[2]  # the rest may contain a token
            raise ValueError(f"runtime_env[{key!r}]: Ray unpacks only {', '.join(_FORMATS[key])}, not {file!r}")


def _check_installer(key: str, value: Any) -> None:
    if isinstance(value, str):
        return
    if isinstance(value, list):
        _check_texts(key, value)
        return
    if not isinstance(value, Mapping):
        raise TypeError(_wrong_type(key, value, "a list of packages, the path of a requirements file, or a dict"))
    known = _INSTALLER_FIELDS[key]
    if more := sorted(map(str, set(value) - set(known))):
        raise ValueError(f"runtime_env[{key!r}] has the unknown field {more[0]!r}; known are {', '.join(known)}")
    if "packages" not in value:
        raise ValueError(f"runtime_env[{key!r}] needs the field 'packages'")
    for field, item in value.items():
        if field == "packages" and (not isinstance(item, list) and (key == "uv" or not isinstance(item, str))):
            raise ValueError(f"runtime_env[{key!r}]['packages'] must be a list, not {type(item).__name__}")
        if not isinstance(item, known[field]) and field != "packages":
            wanted = known[field].__name__
            raise TypeError(f"runtime_env[{key!r}][{field!r}] must be a {wanted}, not {type(item).__name__}")
        if isinstance(item, list) and not all(isinstance(word, str) for word in item):
            raise TypeError(f"runtime_env[{key!r}][{field!r}] must be a list of strings")


def _check_config(value: Any) -> None:
    if not isinstance(value, Mapping):
        raise TypeError(_wrong_type("config", value, "a dict"))
    _check_json("config", value)
    seconds = value.get("setup_timeout_seconds", 1)
    if not isinstance(seconds, int):
        raise TypeError(_wrong_type("config", seconds, "a dict whose setup_timeout_seconds is a whole number"))
    if seconds <= 0 and seconds != -1:
        raise ValueError(
            f"runtime_env['config']: setup_timeout_seconds is {seconds}; it must be positive, or -1 for no limit"
        )
    if not isinstance(value.get("eager_install", True), bool):
        raise TypeError(_wrong_type("config", value["eager_install"], "a dict whose eager_install is true or false"))
    if value.get("log_files") is not None:
        _check_texts("config", value["log_files"])


def _check_together(keys: set[str]) -> None:
    """Check for keys that Ray does not accept together."""
    installers = sorted(keys & {"pip", "uv", "conda"})
    if len(installers) > 1:
        raise ValueError(
            f"runtime_env must not contain {' and '.join(map(repr, installers))} together; with conda, list the pip "
            "packages in the conda environment"
        )
    for key in ("container", "image_uri"):
        if key in keys and (more := sorted(keys - {key, "config", "env_vars"})):
            raise ValueError(
                f"runtime_env must not contain {key!r} together with {more[0]!r}, only with config and env_vars"
            )


_CHECKS: Mapping[str, Callable[[Any], None]] = {
    "working_dir": partial(_check_path, "working_dir"),
    "py_modules": partial(_check_paths, "py_modules"),
    "java_jars": partial(_check_paths, "java_jars"),
    "excludes": partial(_check_texts, "excludes"),
    "env_vars": partial(check_env_vars, "runtime_env['env_vars']"),
    "conda": _check_conda,
    "config": _check_config,
    "worker_process_setup_hook": _check_hook,
}
