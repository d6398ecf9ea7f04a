"""Submissions with files: every kind of ``working_dir``, ``py_modules``, ``pip``, ``uv`` and ``conda``."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.parity.case import Case, Here

if TYPE_CHECKING:
    from types import ModuleType


def module(path: str) -> ModuleType:
    """Import a module from its file, or a package from its folder."""
    file = Path(path)
    spec = importlib.util.spec_from_file_location(file.stem, file / "__init__.py" if file.is_dir() else file)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def folder(case: str, working_dir: str, ends: str = "SUCCEEDED", **more: Any) -> Case:
    """Return a case with one of the folders or archives as working_dir."""
    return Case(f"working_dir_{case}", lambda h: job(h, working_dir=h / working_dir), ends, **more)


def modules(case: str, *names: str, ends: str = "SUCCEEDED", imports: tuple[str, ...] = (), **more: Any) -> Case:
    """Return a case with some of the files and folders as py_modules."""
    return Case(f"py_modules_{case}", lambda h: job(h, *imports, py_modules=[h / name for name in names]), ends, **more)


def uri(case: str, text: str, key: str = "working_dir", ends: str = "PENDING") -> Case:
    """Return a case with a URI, in which ``{here}`` stands for the folder."""

    def made(here: Here) -> dict[str, Any]:
        value = text.format(here=here.folder)
        return job(here, **{key: [value] if key == "py_modules" else value})

    return Case(f"{key}_uri_{case}", made, ends)


def job(here: Here, *imports: str, **runtime_env: Any) -> dict[str, Any]:
    """Return a job with the probe in a runtime_env."""
    return {"entrypoint": here.probe(*imports), "runtime_env": runtime_env}


def packages(case: str, key: str, value: Any, ends: str = "PENDING", **more: Any) -> Case:
    """Return a case with dependencies; a string is a file name, a callable gets the environment."""

    def made(here: Here) -> dict[str, Any]:
        return job(here, **{key: value(here) if callable(value) else value})

    return Case(f"{key}_{case}", made, ends, **more)


_PATTERNS = ["*.bin", "data/*", "!data/keep.txt", "/run.sh", "with space.txt", "naïve*", "empty/"]

WORKING_DIR = [
    folder("folder", "plain"),
    Case("working_dir_path", lambda h: job(h, working_dir=h.folder / "plain")),
    Case("working_dir_relative", lambda h: job(h, working_dir="plain")),
    Case("working_dir_dot", lambda h: job(h, working_dir="./plain/../topped/.")),
    folder("slash", "plain/"),
    folder("link_to_folder", "link-to-plain"),
    folder("empty", "empty"),
    folder("gitignore", "ignored"),
    folder("rayignore", "rayignored"),
    folder("gitignore_off", "ignored", environ=lambda h: {"RAY_RUNTIME_ENV_IGNORE_GITIGNORE": "1"}),
    Case("working_dir_excludes", lambda h: job(h, working_dir=h / "plain", excludes=_PATTERNS)),
    Case("working_dir_excludes_empty", lambda h: job(h, working_dir=h / "topped", excludes=[])),
    Case("working_dir_excludes_all", lambda h: job(h, working_dir=h / "plain", excludes=["*"])),
    Case("working_dir_excludes_over_gitignore", lambda h: job(h, working_dir=h / "ignored", excludes=["!*.log", "x"])),
    folder("links", "linked"),
    folder("checkout", "checkout"),
    folder("inside_checkout", "checkout/inner"),
    folder("submodule", "checkout/module"),
    folder("clutter", "clutter"),
    folder("clutter_kept", "clutter", environ=lambda h: {"RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES": "sub, m.py"}),
    folder("clutter_all", "clutter", environ=lambda h: {"RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES": ""}),
    folder("backslash", "backslash"),
    folder("undecodable_name", "undecodable", "ValueError"),
    folder("one_folder_in_folder", "topped"),
    folder("zip", "archives/plain.zip"),
    folder("zip_one_folder", "archives/topped.zip"),
    folder("tar_gz", "archives/plain.tar.gz"),
    folder("tgz", "archives/plain.tgz"),
    folder("tar_xz", "archives/topped.tar.xz"),
    folder("zip_damaged", "archives/damaged.zip", "FAILED", hook_ends="ValueError"),
    folder("upper_case_zip", "archives/UPPER.ZIP", "ValueError"),
    folder("absent", "no-such-folder", "ValueError"),
    folder("absent_zip", "no-such.zip", "ValueError"),
    folder("script", "script.py", "ValueError"),
    Case("working_dir_tilde", lambda h: job(h, working_dir="~/no-such"), "ValueError"),
    Case(
        "working_dir_empty_text", lambda h: job(h, working_dir="", excludes=["/*"]), "PENDING", hook_ends="ValueError"
    ),
    Case("working_dir_number", lambda h: job(h, working_dir=7), "TypeError"),
    folder("too_large", "large", "RuntimeError", hook_ends="SUCCEEDED"),
    uri("s3", "s3://bucket/deep/app.zip"),
    uri("gs", "gs://bucket/app.tar.gz"),
    uri("https", "https://example.com/app.zip?token=1"),
    uri("azure", "azure://container/app.tgz"),
    uri("abfss", "abfss://container@account.dfs.core.windows.net/app.tar.xz"),
    uri("gcs", "gcs://_ray_pkg_0123456789abcdef.zip"),
    uri("file", "file://{here}/archives/topped.zip", ends="SUCCEEDED"),
    uri("local", "local://{here}/topped", ends="SUCCEEDED"),
    uri("no_archive", "s3://bucket/folder", ends="ValueError"),
    uri("unknown_scheme", "ftp://example.com/app.zip", ends="ValueError"),
    uri("local_relative", "local://topped", ends="ValueError"),
    uri("local_archive", "local:///app.zip", ends="ValueError"),
]

PY_MODULES = [
    modules("folder", "modules/parity_a", imports=("parity_a",)),
    modules("folders", "modules/parity_a", "modules/parity_b", imports=("parity_a", "parity_b")),
    modules("file", "modules/parity_one.py", imports=("parity_one",), ends="ValueError", hook_ends="SUCCEEDED"),
    modules("wheel", "modules/parity_wheel-1.0-py3-none-any.whl", imports=("parity_wheel",)),
    Case(
        "py_modules_with_working_dir",
        lambda h: job(h, "parity_a", "parity_b", py_modules=[h / "modules/parity_a"], working_dir=h / "modules"),
    ),
    Case(
        "py_modules_excludes",
        lambda h: job(h, "parity_a", py_modules=[h.folder / "modules/parity_a"], excludes=["data/", "__pycache__"]),
    ),
    Case("py_modules_imported", lambda h: job(h, "parity_a", py_modules=[module(h / "modules/parity_a")]), "TypeError"),
    Case(
        "py_modules_imported_file",
        lambda h: job(h, "parity_one", py_modules=[module(h / "modules/parity_one.py")]),
        "TypeError",
    ),
    Case("py_modules_relative", lambda h: job(h, "parity_b", py_modules=["modules/parity_b"])),
    modules("slash", "modules/parity_b/", imports=("parity_b",)),
    Case("py_modules_empty", lambda h: job(h, py_modules=[]), "FAILED"),
    modules("text_file", "modules/notes.txt", ends="ValueError"),
    modules("zip_file", "archives/modules.zip", ends="ValueError"),
    modules("absent", "modules/no-such", ends="ValueError"),
    modules("absent_file", "modules/no_such.py", ends="ValueError"),
    modules("absent_wheel", "modules/no_such-1.0-py3-none-any.whl", ends="FileNotFoundError", hook_ends="ValueError"),
    Case("py_modules_text", lambda h: job(h, py_modules=h / "modules/parity_a"), "TypeError"),
    Case("py_modules_number", lambda h: job(h, py_modules=[7]), "TypeError"),
    uri("zip", "file://{here}/archives/modules.zip", "py_modules", "SUCCEEDED"),
    uri("local", "local://{here}/modules", "py_modules", "SUCCEEDED"),
    uri("s3", "s3://bucket/app.whl", "py_modules"),
    uri("no_archive", "https://example.com/app", "py_modules", "ValueError"),
]

_INSTALL = {"packages": ["emoji"], "uv_check": True, "uv_version": "==0.8", "uv_pip_install_options": ["--no-cache"]}

DEPENDENCIES = [
    packages("list", "pip", ["emoji", "requests==2.32.0", "emoji"]),
    packages("file", "pip", lambda h: h / "requirements.txt"),
    packages("file_relative", "pip", "requirements.txt"),
    packages("file_crlf", "pip", "requirements-crlf.txt"),
    packages("file_empty", "pip", "requirements-empty.txt"),
    packages("empty", "pip", []),
    packages("dict", "pip", {"packages": ["emoji"], "pip_check": True, "pip_version": "==24.0"}),
    packages("dict_file", "pip", lambda h: {"packages": h / "requirements.txt", "pip_install_options": ["-v"]}),
    packages("file_absent", "pip", "no-such.txt", "ValueError"),
    packages("number", "pip", 7, "TypeError"),
    packages("list_of_numbers", "pip", [7], "TypeError"),
    packages("dict_unknown", "pip", {"packages": [], "what": 1}, "ValueError"),
    packages("dict_no_packages", "pip", {"pip_check": True}, "ValueError"),
    packages("dict_wrong_packages", "pip", {"packages": 7}, "ValueError"),
    packages("dict_wrong_check", "pip", {"packages": ["emoji"], "pip_check": "no"}, "TypeError"),
    packages("dict_wrong_version", "pip", {"packages": ["emoji"], "pip_version": 24}, "TypeError"),
    packages("dict_wrong_options", "pip", {"packages": ["emoji"], "pip_install_options": "-v"}, "TypeError"),
    packages("list", "uv", ["emoji", "requests==2.32.0", "emoji"]),
    packages("file", "uv", "requirements.txt"),
    packages("dict", "uv", _INSTALL),
    packages("dict_short", "uv", {"packages": ["emoji", "emoji"]}),
    packages("empty", "uv", []),
    packages("file_absent", "uv", "no-such.txt", "ValueError"),
    packages("number", "uv", 7, "TypeError"),
    packages("dict_unknown", "uv", {"packages": [], "pip_check": True}, "ValueError"),
    packages("dict_file", "uv", {"packages": "requirements.txt"}, "ValueError"),
    packages("dict_wrong_package", "uv", {"packages": [7]}, "TypeError"),
    packages("dict_wrong_options", "uv", {"packages": ["emoji"], "uv_pip_install_options": [1]}, "TypeError"),
    packages("file", "conda", lambda h: h / "conda.yaml"),
    packages("file_yml", "conda", "conda.yml"),
    packages("file_empty", "conda", "conda-empty.yaml", hook_ends="ValueError"),
    packages("dict", "conda", {"dependencies": ["emoji", {"pip": ["requests"]}]}),
    packages("name", "conda", "parity-env"),
    packages("folder", "conda", lambda h: h / "plain"),
    packages("file_absent", "conda", "no-such.yaml", "ValueError"),
    packages("file_wrong", "conda", "conda-wrong.yaml", "ValueError"),
    packages("folder_absent", "conda", "/no/such/conda", "ValueError"),
    packages("number", "conda", 7, "TypeError"),
    Case("pip_and_conda", lambda h: job(h, pip=["emoji"], conda="base"), "ValueError"),
    Case("pip_and_uv", lambda h: job(h, pip=["emoji"], uv=["emoji"]), "ValueError"),
]

CASES = [*WORKING_DIR, *PY_MODULES, *DEPENDENCIES]
