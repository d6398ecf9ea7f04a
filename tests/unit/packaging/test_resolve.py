"""Files of ``pip``, ``uv`` and ``conda``, and short forms: what Ray's client makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airflow_provider_rayjobs.exceptions import RayPackageError
from airflow_provider_rayjobs.packaging.resolve import with_absolute_paths

NO_CACHE = {"uv_pip_install_options": ["--no-cache"]}


def test_requirement_files_become_lists(prepare: Any, tmp_path: Path) -> None:
    (tmp_path / "req.txt").write_text("a==1\n# b\nc\na==1\n")
    (tmp_path / "env.yaml").write_text("dependencies: [pip, {pip: [x]}]\n")
    (tmp_path / "none.txt").write_text("")
    req = str(tmp_path / "req.txt")
    packages = ["a==1", "# b", "c"]
    for given, sent in (
        ({"pip": req}, {"pip": {"packages": packages, "pip_check": False}}),
        ({"pip": ["a", "a"]}, {"pip": {"packages": ["a"], "pip_check": False}}),
        ({"pip": {"packages": req, "pip_check": True}}, {"pip": {"packages": packages, "pip_check": True}}),
        ({"uv": req}, {"uv": {"packages": packages, "uv_check": False, **NO_CACHE}}),
        (
            {"uv": {"packages": ["a"], "uv_version": "==1"}},
            {
                "uv": {
                    "packages": ["a"],
                    "uv_version": "==1",
                    "uv_check": False,
                    "uv_pip_install_options": ["--no-cache"],
                }
            },
        ),
        ({"pip": []}, {}),
        ({"conda": str(tmp_path / "env.yaml")}, {"conda": {"dependencies": ["pip", {"pip": ["x"]}]}}),
        ({"conda": "myenv"}, {"conda": "myenv"}),
        ({"conda": str(tmp_path)}, {"conda": str(tmp_path)}),
        ({"env_vars": {}, "excludes": [], "working_dir": None}, {}),
        ({"nsight": "default"}, {"_nsight": "default"}),
        (
            {"config": {"setup_timeout_seconds": 5}},
            {"config": {"setup_timeout_seconds": 5, "eager_install": True, "log_files": []}},
        ),
    ):
        assert prepare(given) == sent


def test_files_as_a_windows_editor_saves_them(prepare: Any, tmp_path: Path) -> None:
    """With a byte order mark, which would hide the first requirement, and with other ends of lines."""
    (tmp_path / "req.txt").write_bytes(b"\xef\xbb\xbfa==1\r\n# \xc3\xa9\r\nb\r\n")
    (tmp_path / "env.yml").write_bytes(b"\xef\xbb\xbfname: \xc3\xa9\r\ndependencies: [pip]\r\n")
    (tmp_path / "utf16.txt").write_text("a==1\n", encoding="utf-16")
    for key in ("pip", "uv"):
        assert prepare({key: str(tmp_path / "req.txt")})[key]["packages"] == ["a==1", "# é", "b"]
        with pytest.raises(RayPackageError, match=rf"runtime_env\['{key}'\]: the file .*utf16.txt' can't be read"):
            prepare({key: str(tmp_path / "utf16.txt")})
    assert prepare({"conda": str(tmp_path / "env.yml")}) == {"conda": {"name": "é", "dependencies": ["pip"]}}


def test_relative_paths_are_relative_to_a_folder(tmp_path: Path) -> None:
    given = {
        "working_dir": "code",
        "py_modules": ["lib", Path("../other"), "/abs", "s3://b/x.zip", "hdfs://b/x.zip"],
        "pip": "req.txt",
        "uv": {"packages": "./req.txt", "uv_version": "==1"},
        "conda": "env.yaml",
        "env_vars": {"A": "code"},
    }
    found = with_absolute_paths(given, str(tmp_path))
    assert found == {
        **given,
        "working_dir": f"{tmp_path}/code",
        "py_modules": [f"{tmp_path}/lib", f"{tmp_path}/../other", "/abs", "s3://b/x.zip", "hdfs://b/x.zip"],
        "pip": f"{tmp_path}/req.txt",
        "uv": {"packages": f"{tmp_path}/req.txt", "uv_version": "==1"},
        "conda": f"{tmp_path}/env.yaml",
    }


@pytest.mark.parametrize(
    "given",
    [
        {"working_dir": "gs://b/x.zip", "pip": ["a"], "uv": {"packages": ["a"]}, "conda": "named"},
        {"working_dir": "/abs", "conda": {"dependencies": []}, "py_modules": [], "my_plugin": "x"},
        {"working_dir": None, "py_modules": None, "pip": None, "conda": None},
        {},
    ],
)
def test_what_is_no_relative_path_stays(given: dict[str, Any]) -> None:
    assert with_absolute_paths(given, "/dags") == given
