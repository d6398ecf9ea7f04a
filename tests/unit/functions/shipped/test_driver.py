"""The driver on the cluster, run here by a plain Python without the provider."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_rayjobs.functions import package as function_package
from airflow_provider_rayjobs.functions import result as result_module
from airflow_provider_rayjobs.functions.package import build_packages, describe_task
from airflow_provider_rayjobs.functions.shipped.driver import CALL_FILE
from tests.support.shipped_functions import LIMIT, Ran, run

if TYPE_CHECKING:
    from pathlib import Path


def test_the_function_gets_its_arguments_and_its_value_comes_back(tmp_path: Path) -> None:
    def f(
        a: Unknown,  # noqa: F821
        *,
        when: Unknown,  # noqa: F821
        text: str = """
  indented
text""",
    ) -> Unknown:  # type: ignore[name-defined]  # noqa: F821  # annotations are not evaluated on the cluster
        import os
        import sys

        from airflow_provider_rayjobs.progress import progress

        progress(1, 2, "half")
        assert "airflow" not in sys.modules
        print("printed")
        return {"a": a, "when": when, "text": text, "cwd": os.getcwd()}  # noqa: PTH109

    when = datetime(2026, 1, 2, tzinfo=UTC)
    ran = run(tmp_path, f, ("x", None), when=when)
    expected = {"a": ("x", None), "when": when, "text": "\n  indented\ntext", "cwd": str(tmp_path / "work")}
    assert ran.value == expected
    assert ran.record.progress == {"done": 1, "total": 2, "message": "half"}
    assert ran.status == 0
    assert "printed" in ran.output.splitlines()


def test_a_file_of_another_call_in_the_working_dir_is_not_taken(tmp_path: Path) -> None:
    def f(x: str) -> str:
        return x

    packages = build_packages(describe_task(f, ("right",), {}), LIMIT)
    other = describe_task(f, ("wrong",), {}).call
    assert Ran(tmp_path, packages, files={CALL_FILE: other}).value == "right"

    (tmp_path / "again").mkdir()
    mixed = packages._replace(call=build_packages(describe_task(f, ("wrong",), {}), LIMIT).call)
    ran = Ran(tmp_path / "again", mixed, metadata_of=packages)
    assert (ran.status, ran.result) == (1, None)
    assert f"the job's own {CALL_FILE} is not on its path; was py_modules changed?" in ran.output


def test_a_traceback_names_the_file_and_the_lines_of_the_dag(tmp_path: Path) -> None:
    def f() -> None:
        def inner() -> None:
            raise ValueError("no such shard")

        inner()

    ran = run(tmp_path, f)
    first = f.__code__.co_firstlineno
    assert ran.status == 1
    assert ran.record.outcome == "error"
    text = result_module.traceback_of(ran.record)
    lines = [line for line in text.splitlines() if set(line.strip()) - {"^", "~"}]
    assert lines == [
        "Traceback (most recent call last):",
        f'  File "{__file__}", line {first + 4}, in f',
        "    inner()",
        f'  File "{__file__}", line {first + 2}, in inner',
        '    raise ValueError("no such shard")',
        "ValueError: no such shard",
    ]
    assert text in ran.output


@pytest.mark.parametrize(("code", "status"), [("0", 1), ("3", 3), ("'text'", 1)])
def test_leaving_by_sys_exit_is_no_result(tmp_path: Path, code: str, status: int) -> None:
    def f(code: str) -> None:
        import ast
        import sys

        sys.exit(ast.literal_eval(code))

    ran = run(tmp_path, f, code)
    assert (ran.status, ran.record.outcome) == (status, "error")
    assert "SystemExit" in result_module.traceback_of(ran.record)


def test_a_process_that_ends_on_the_spot_leaves_no_result_not_even_an_older_one(tmp_path: Path) -> None:
    def f() -> None:
        import os

        os._exit(0)

    ran = Ran(tmp_path, build_packages(describe_task(f, (), {}), LIMIT), before=b"{}")
    assert (ran.status, ran.result) == (0, None)


def test_a_value_without_json_form_is_an_error_that_names_it(tmp_path: Path) -> None:
    def f() -> Any:
        return {"a": [object()]}

    ran = run(tmp_path, f)
    assert ran.status == 1
    assert "the value that f returned['a'][0] is of type object" in result_module.traceback_of(ran.record)


def test_a_value_that_is_too_large_is_an_error_that_names_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def f() -> str:
        return "x" * 1000

    monkeypatch.setattr(function_package, "RESULT_LIMIT", 1000)
    text = result_module.traceback_of(run(tmp_path, f).record)
    assert "1,002 bytes as JSON" in text
    assert "result_path" in text


def test_a_large_value_goes_to_the_result_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def f() -> str:
        return "x" * 1000

    monkeypatch.setattr(function_package, "RESULT_LIMIT", 1000)
    store = tmp_path / "store"
    ran = Ran(tmp_path, build_packages(describe_task(f, (), {}, result_path=f"file://{store}/"), LIMIT))
    assert ran.record.outcome == "stored"
    (file,) = store.iterdir()
    assert result_module.stored_at(f"file://{store}/", "j1", ran.record) == f"file://{file}"
    stored = file.read_bytes()
    assert result_module.value_of(ran.record, "job", stored) == "x" * 1000
    with pytest.raises(result_module.RayJobResultError, match="damaged"):
        result_module.value_of(ran.record, "job", stored[:-1])


def test_a_value_that_can_not_be_stored_is_an_error_of_the_storage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def f() -> str:
        return "x" * 1000

    monkeypatch.setattr(function_package, "RESULT_LIMIT", 1000)
    (tmp_path / "file").write_text("")
    packages = build_packages(describe_task(f, (), {}, result_path=f"file://{tmp_path}/file/store"), LIMIT)
    ran = Ran(tmp_path, packages)
    assert ran.status == 1
    assert result_module.traceback_of(ran.record).strip() == (
        f"RuntimeError: the value of f can't be stored in result_path file://{tmp_path}/file/store: "
        f"NotADirectoryError: [Errno 20] Not a directory: '{tmp_path}/file/store'; the cluster's nodes need "
        "the folder mounted, and the right to write there"
    )


def test_a_function_that_prints_what_looks_like_anything_returns_its_value(tmp_path: Path) -> None:
    def f() -> int:
        import subprocess
        import sys

        noise = [subprocess.Popen([sys.executable, "-c", "for i in range(3000): print('noise', i)"]) for _ in range(4)]
        for _ in range(3000):
            print('{"format": 1, "outcome": "value", "bytes": 1}\n7\n\x1erayjobs-progress 0 {}\x1e')
        return sum(process.wait() for process in noise) + 41

    assert run(tmp_path, f).value == 41


def test_output_that_is_no_log_of_a_job_is_refused_before_the_function_runs(tmp_path: Path) -> None:
    def f() -> None:
        print("ran")

    for package in build_packages(describe_task(f, (), {}), LIMIT):
        zipfile.ZipFile(io.BytesIO(package)).extractall(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", function_package.LAUNCHER], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "not to the log of a Ray job" in done.stderr
    assert "ran" not in done.stdout.splitlines()
