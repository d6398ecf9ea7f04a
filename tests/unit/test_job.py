"""What a command reports, run here by a plain Python and a plain shell without the provider."""

from __future__ import annotations

import json
import shlex
import sys
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_rayjobs import job
from airflow_provider_rayjobs.functions import package as function_package
from airflow_provider_rayjobs.functions import result as result_module
from airflow_provider_rayjobs.progress import from_line
from tests.support.shipped_functions import Ran, run, run_command

if TYPE_CHECKING:
    from pathlib import Path

IMPORT = "from airflow_provider_rayjobs.job import progress, report_result\n"
REPORT = "python -m airflow_provider_rayjobs.job report_result"


def script(folder: Path, code: str, **options: Any) -> Ran:
    return run_command(folder, f"{sys.executable} -c {shlex.quote(IMPORT + code)}", **options)


def test_the_last_report_counts(tmp_path: Path) -> None:
    ran = script(tmp_path, "report_result(1); report_result({'loss': 0.5, 'when': (1, None)})")
    assert (ran.status, ran.value) == (0, {"loss": 0.5, "when": (1, None)})


def test_a_report_outlives_the_failure_after_it(tmp_path: Path) -> None:
    ran = script(tmp_path, "import os; report_result({'epoch': 3}); os._exit(3)")
    assert (ran.status, ran.value) == (3, {"epoch": 3})


def test_progress_comes_with_the_log_wherever_the_output_goes(tmp_path: Path) -> None:
    code = shlex.quote(IMPORT + "print('seen'); progress(1, 3); progress(2, 3); progress(3, 3, 'done')")
    ran = run_command(tmp_path, f"{sys.executable} -c {code} > printed.txt")
    found = [from_line(line) for line in ran.output.removesuffix("\n").split("\n")]
    assert [(rest, report and report["done"]) for rest, report in found] == [("", 1), ("", 3)]
    assert (ran.folder / "printed.txt").read_text() == "seen\n"


@pytest.mark.parametrize(
    "command",
    [
        f"{REPORT} '{{\"rows\": [3, null]}}'",
        f"echo '{{\"rows\": [3, null]}}' | {REPORT}",
        f"{REPORT} '{{\"rows\": [3, null]}}' 2>&1 | cat",
        f"(true; {REPORT} '{{\"rows\": [3, null]}}') > out.txt 2> err.txt",
        f"touch job-driver-other.log; {REPORT} '{{\"rows\": [3, null]}}' 2>&1 4< job-driver-other.log | cat",
    ],
    ids=["argument", "standard input", "in a pipe", "output elsewhere", "another job's log is open"],
)
def test_a_shell_reports_json(tmp_path: Path, command: str) -> None:
    ran = run_command(tmp_path, command)
    assert (ran.status, ran.output) == (0, "")
    assert ran.value == {"rows": [3, None]}


@pytest.mark.parametrize("number", ["-1e-05", "-5", "-0.5", "12", "0"])
def test_a_number_is_a_value(tmp_path: Path, number: str) -> None:
    assert run_command(tmp_path, f"{REPORT} {number}").value == json.loads(number)


@pytest.mark.parametrize("text", ["{'a': 1}", "", "[" * 100_000], ids=["Python", "nothing", "deep"])
def test_what_is_not_json_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "value").write_text(text)
    ran = run_command(tmp_path, f"{REPORT} < ../value")
    assert (ran.status, ran.result) == (2, None)
    assert "error: the value is not valid JSON: " in ran.output


def test_many_processes_may_report(tmp_path: Path) -> None:
    code = shlex.quote(IMPORT + "for i in range(50): report_result('x' * 100_000)")
    ran = run_command(tmp_path, f"for i in 1 2 3; do {sys.executable} -c {code} & done; wait")
    assert (ran.output, ran.value) == ("", "x" * 100_000)
    assert [file.name for file in ran.log.parent.iterdir() if file.suffix == ".part"] == []


def test_a_value_without_json_form_is_refused_by_name(tmp_path: Path) -> None:
    ran = script(tmp_path, "report_result({'model': [object()]})")
    assert (ran.status, ran.result) == (1, None)
    assert "TypeError: the result['model'][0] is of type object" in ran.output


@pytest.mark.parametrize("call", ["report_result(1)", "progress(1)"])
def test_in_a_ray_task_a_result_is_refused_and_progress_does_nothing(tmp_path: Path, call: str) -> None:
    ran = script(tmp_path, call, in_job=False)
    refused = call.startswith("report")
    assert (ran.status, ran.result, "\x1e" in ran.output) == (int(refused), None, False)
    assert ("call it in the process of the job's entrypoint, not in a Ray task or actor" in ran.output) is refused


def test_a_large_result_needs_a_result_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(function_package, "RESULT_LIMIT", 1000)
    (tmp_path / "one").mkdir()
    ran = script(tmp_path / "one", "report_result('x' * 1000)")
    assert (ran.status, ran.result) == (1, None)
    assert "ValueError: report_result: the value has 1,002 bytes as JSON, and Ray returns at most 1,000" in ran.output

    (tmp_path / "two").mkdir()
    ran = script(tmp_path / "two", "report_result('x' * 1000)", result_path=f"file://{tmp_path}/store")
    assert ran.record.outcome == "stored"
    (stored,) = (tmp_path / "store").iterdir()
    assert stored.name == f"j1.{ran.record.key}.json"
    assert result_module.value_of(ran.record, "job", stored.read_bytes()) == "x" * 1000


def test_a_large_result_replaces_the_one_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(function_package, "RESULT_LIMIT", 1000)
    reports = "; ".join(f"report_result('{letter}' * 1000)" for letter in "abc")
    (tmp_path / "one").mkdir()
    ran = script(tmp_path / "one", reports, result_path=f"file://{tmp_path}/store")
    (stored,) = (tmp_path / "store").iterdir()
    assert result_module.value_of(ran.record, "job", stored.read_bytes()) == "c" * 1000

    (tmp_path / "two").mkdir()
    ran = script(tmp_path / "two", f"{reports}; report_result('small')", result_path=f"file://{tmp_path}/none")
    assert ran.value == "small"
    assert [*(tmp_path / "none").iterdir()] == []


def test_processes_that_report_large_results_at_once_leave_one_of_them_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(function_package, "RESULT_LIMIT", 1000)
    code = "import sys; from airflow_provider_rayjobs.job import report_result"
    code += "; [report_result(sys.argv[1] * (1000 + n)) for n in range(50)]"
    processes = [f"{sys.executable} -c {shlex.quote(code)} {letter} &" for letter in "abc"]
    ran = run_command(tmp_path, f"{' '.join(processes)} wait", result_path=f"file://{tmp_path}/store")
    assert ran.output == ""
    stored = tmp_path / "store" / f"j1.{ran.record.key}.json"
    assert result_module.value_of(ran.record, "job", stored.read_bytes()) in {letter * 1049 for letter in "abc"}
    assert len([*(tmp_path / "store").iterdir()]) == 3


def test_a_function_has_its_value_already(tmp_path: Path) -> None:
    def f() -> None:
        from airflow_provider_rayjobs.job import progress, report_result

        progress(1)
        report_result(1)

    ran = run(tmp_path, f)
    assert "the result of a @task.ray_job function is the value that it returns" in result_module.traceback_of(
        ran.record
    )
    assert ran.record.progress == {"done": 1, "total": None, "message": ""}


def test_without_a_task_a_value_is_only_checked() -> None:
    job.report_result({"a": 1})
    with pytest.raises(TypeError, match="the result is of type object"):
        job.report_result(object())
