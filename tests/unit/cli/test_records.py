"""Jobs as text that fits a terminal, and as JSON with Ray's fields and units."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import struct
import subprocess
import termios
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_rayjobs.cli.records import (
    column_lines,
    details_of,
    list_lines,
    print_for_scripts,
    property_lines,
    record_of,
    span,
)
from airflow_provider_rayjobs.jobs import JobDetails
from tests.support.command_line import finish, start

if TYPE_CHECKING:
    from tests.support.command_line import Run
    from tests.support.scripted_server import ScriptedRay

START = 1_700_000_000_000

LONG_ID = "customer_churn_tra-train_model-m3-scheduled__2026-07-30T-t1-3f9a1c22b0d4e5f60718"

TASK = {
    "airflow_dag_id": "data_science__customer_churn_training",
    "airflow_run_id": "scheduled__2026-07-30T00:00:00+00:00",
    "airflow_task_id": "training.train_model_of_region",
    "airflow_map_index": "3",
    "airflow_try_number": "1",
}


def job(status: str = "SUCCEEDED", **fields: Any) -> JobDetails:
    data = {"type": "SUBMISSION", "status": status, "submission_id": LONG_ID, "entrypoint": "python a.py"}
    return JobDetails.from_json(data | {"start_time": START, "end_time": START + 133_400, "metadata": TASK} | fields)


FAILED = job(
    "FAILED",
    driver_exit_code=3,
    message="\nJob entrypoint command failed with exit code 3, last available logs (truncated to 20,000 chars):\nlast",
)
PLAIN = job(metadata={}, entrypoint="python  train.py\n" + "--x y " * 100, submission_id="by-hand")


def test_a_list_has_the_facts_first_and_then_the_whole_id() -> None:
    assert list(list_lines([FAILED, PLAIN], 80)) == [
        "STATUS     STARTED (UTC)     DURATION  TASK OR ENTRYPOINT",
        "FAILED     2023-11-14 22:13     2m13s  data_science__custo..._model_of_region[3]",
        f"  {LONG_ID}",
        "  Job entrypoint command failed with exit code 3",
        "SUCCEEDED  2023-11-14 22:13     2m13s  python train.py --x y --x y --x y --x ...",
        "  by-hand",
    ]


@pytest.mark.parametrize("width", [60, 79, 80, 81, 200])
def test_only_an_id_may_be_longer_than_the_terminal_is_wide(width: int) -> None:
    failed = job("FAILED", message="word " * 100, metadata=TASK | {"airflow_task_id": "t" * 250})
    lines = list(list_lines([FAILED, PLAIN, failed], width))
    assert max(len(line) for line in lines if LONG_ID not in line) == width
    assert lines.count(f"  {LONG_ID}") == 2


def test_without_a_terminal_the_name_of_a_task_is_whole() -> None:
    lines = list(list_lines([FAILED, PLAIN], None))
    assert lines[1].endswith("  data_science__customer_churn_training.training.train_model_of_region[3]")
    assert 200 < len(lines[4]) < 300


def test_a_job_without_times_and_with_a_new_status() -> None:
    _, first, _ = list_lines([job("WAITING_FOR_NODES", start_time=None, end_time=None)], None)
    assert first.startswith("WAITING_FOR_NODES  -                        -  data_science__")


def test_text_of_a_cluster_is_no_line_and_no_escape_sequence() -> None:
    task = TASK | {"airflow_dag_id": "a\nFAILED \x1b[31m", "airflow_map_index": "1; x", "airflow_task_id": "t"}
    hostile = job(submission_id="a\nb", metadata=task, entrypoint="\x1b[2J")
    _, first, second = list_lines([hostile], None)
    assert first.endswith(r"  a FAILED \x1b[31m.t")
    assert second == "  a b"
    for lines in (
        list(list_lines([hostile], None)),
        list(column_lines([hostile])),
        list(property_lines(details_of(hostile))),
    ):
        assert not [line for line in lines if "\x1b" in line]
    assert len(list(column_lines([hostile]))) == 2


def test_columns_hold_no_blanks_but_for_the_last() -> None:
    head, first, second = (line.split(maxsplit=7) for line in column_lines([FAILED, PLAIN]))
    assert head == ["submission_id", "status", "start_time", "duration", "dag_id", "run_id", "task_id", "entrypoint"]
    names = [TASK["airflow_dag_id"], TASK["airflow_run_id"], TASK["airflow_task_id"]]
    assert first == [LONG_ID, "FAILED", "2023-11-14T22:13:20Z", "133.4", *names, "python a.py"]
    assert second[:7] == ["by-hand", "SUCCEEDED", "2023-11-14T22:13:20Z", "133.4", "-", "-", "-"]


def test_json_has_numbers_and_no_secret(run: Run, scripted_ray: ScriptedRay) -> None:
    env = {"env_vars": {"MY_TOKEN": "t0ken-value"}}
    failed = scripted_ray.add_job(
        "a", "FAILED", metadata=TASK, runtime_env=env, message="no t0ken-value\nhttps://me:passw0rd@x"
    )
    failed.fields.update(entrypoint="x t0ken-value https://me:passw0rd@x", start_time=START, end_time=START + 1500)
    failed.fields.update(driver_exit_code=3, error_type="JOB_ENTRYPOINT_COMMAND_ERROR")
    listed = run("list", "-o", "json")
    assert json.loads(listed.out) == [
        {
            "submission_id": "a",
            "status": "FAILED",
            "start_time": START,
            "end_time": START + 1500,
            "duration": 1.5,
            "driver_exit_code": 3,
            "error_type": "JOB_ENTRYPOINT_COMMAND_ERROR",
            "dag_id": TASK["airflow_dag_id"],
            "run_id": TASK["airflow_run_id"],
            "task_id": TASK["airflow_task_id"],
            "map_index": 3,
            "try_number": 1,
            "entrypoint": "x *** https://***@x",
            "message": "no ***\nhttps://***@x",
        }
    ]
    (details,) = json.loads(run("status", "a", "-o", "json").out)
    assert details.items() >= json.loads(listed.out)[0].items()
    assert (details["type"], details["metadata"], details["runtime_env"]) == (
        "SUBMISSION",
        TASK,
        {"env_vars": {"MY_TOKEN": "***"}},
    )
    as_yaml = run("list", "-o", "yaml").out
    assert "\n  driver_exit_code: 3\n" in as_yaml
    assert f"\n  start_time: {START}\n" in as_yaml


def test_the_details_of_a_job_end_with_its_message(run: Run, scripted_ray: ScriptedRay) -> None:
    failed = scripted_ray.add_job(LONG_ID, "FAILED", message="one\ntwo\n", runtime_env={"pip": ["x"]})
    failed.fields.update(start_time=START, end_time=START + 133_400)
    lines = run("status", LONG_ID).out.splitlines()
    assert lines[0].split() == ["submission_id", LONG_ID]
    assert [" ".join(line.split()) for line in lines[1:5]] == [
        "status FAILED",
        "start_time 2023-11-14 22:13:20 UTC",
        "end_time 2023-11-14 22:15:33 UTC",
        "duration 2m13s",
    ]
    assert lines[-3:] == ["message", "  one", "  two"]
    assert '      "x"' in lines
    assert "dag_id" not in "".join(lines)  # no task submitted it


def test_people_see_of_the_metadata_only_what_users_gave() -> None:
    lines = list(property_lines(details_of(job(metadata=TASK | {"airflow_map_index": "-1", "team": "a"}))))
    assert [" ".join(line.split()) for line in lines if "id" in line.split(" ")[0]] == [
        f"submission_id {LONG_ID}",
        *(f"{name}_id {TASK[f'airflow_{name}_id']}" for name in ("dag", "run", "task")),
    ]
    assert "map_index" not in "".join(lines)
    assert lines[lines.index("metadata") :] == ["metadata", "  {", '    "team": "a"', "  }"]


@pytest.mark.parametrize("width", [60, 132])
def test_a_list_is_as_wide_as_the_terminal(scripted_ray: ScriptedRay, width: int) -> None:
    scripted_ray.add_job(LONG_ID).fields["entrypoint"] = "x" * 500
    mine, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    done = finish(start(scripted_ray.url, "list", stdout=its, stderr=subprocess.PIPE))
    os.close(its)
    shown = os.read(mine, 4096).decode().splitlines()
    os.close(mine)
    assert (done.code, done.err) == (0, "")
    assert [len(line) for line in shown[1:]] == [width, 2 + len(LONG_ID)]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0.42, "0.4s"), (59.9, "59s"), (133.4, "2m13s"), (3600, "1h0m"), (90_061, "1d1h")],
)
def test_durations_have_two_units(seconds: float | None, text: str) -> None:
    assert span(seconds) == text


def test_json_has_only_what_json_allows() -> None:
    out = io.StringIO()
    print_for_scripts(
        [details_of(job(runtime_env={"config": {"a": float("nan"), "b": [float("inf"), 1.5]}}))], "json", out
    )

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    (record,) = json.loads(out.getvalue(), parse_constant=refuse)
    assert record["runtime_env"] == {"config": {"a": None, "b": [None, 1.5]}}


def test_the_duration_of_a_job_without_a_known_end_is_not_known() -> None:
    assert record_of(job("FAILED", end_time=None))["duration"] is None
    assert record_of(job("RUNNING", end_time=None))["duration"] > 0
