"""The rows of the page: the newest jobs, short texts without secrets, and links to tasks that are here."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_rayjobs.client.cluster_status import ClusterResources
from airflow_provider_rayjobs.jobs import JobDetails, JobStatus
from airflow_provider_rayjobs.page import rows as rows_module
from airflow_provider_rayjobs.page.rows import (
    MAX_ENVIRONMENT,
    MAX_SEARCHED_TEXT,
    MAX_TEXT,
    WITHHELD,
    JobTable,
    amounts,
    dag_ids,
    masked_rows,
    newest_jobs,
    visible,
)
from tests.support import answers
from tests.support.clients import cluster_at

if TYPE_CHECKING:
    from tests.support.scripted_server import ScriptedRay

CLUSTER = cluster_at("http://ray:8265", deployment="here", dashboard_url="https://ray.example")
TASK = {
    "airflow_deployment": "here",
    "airflow_dag_id": "train",
    "airflow_run_id": "manual__1",
    "airflow_task_id": "fit",
    "airflow_map_index": "-1",
    "airflow_try_number": "2",
}


def row(metadata: dict[str, str] | None = None, **fields: Any) -> dict[str, Any]:
    """Return the row of one job."""
    given = {"submission_id": "a", **fields}
    job = JobDetails("SUBMISSION", JobStatus.RUNNING, metadata=TASK if metadata is None else metadata, **given)
    (found,) = masked_rows([job], CLUSTER)
    return found.data


def test_a_history_server_is_linked_if_the_cluster_has_one() -> None:
    assert row()["history_url"] == ""
    job = JobDetails("SUBMISSION", JobStatus.RUNNING, submission_id="a/b")
    cluster = cluster_at("http://ray:8265", history_url="https://history/{session}/{submission_id}")
    assert masked_rows([job], cluster, "s1")[0].data["history_url"] == "https://history/s1/a%2Fb"
    assert masked_rows([job], cluster)[0].data["history_url"] == "", "the session is not known"


def table(server: ScriptedRay) -> JobTable:
    return asyncio.run(newest_jobs(cluster_at(server)))


# Which jobs


def test_the_newest_are_kept_and_all_are_counted(scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "MAX_JOBS", 3)
    for number in range(10):
        scripted_ray.add_job(f"j{number}", start_time=1000 + number * 7 % 10)
    scripted_ray.other_jobs = [
        {"type": "DRIVER", "status": "RUNNING", "job_id": "01000000", "start_time": 5000},
        {"type": "SUBMISSION", "status": 5, "submission_id": "odd"},
    ]
    found = table(scripted_ray)
    assert [job.start_time for job in found.jobs] == [1009, 1008, 1007]
    assert (found.number, found.malformed) == (10, 1)


def test_jobs_that_began_at_one_time_or_never_have_an_order(scripted_ray: ScriptedRay) -> None:
    for name in ("a", "b"):
        scripted_ray.add_job(name, start_time=1000)
    scripted_ray.add_job("c", "PENDING", start_time=None)
    assert [job.submission_id for job in table(scripted_ray).jobs] == ["b", "a", "c"]


def test_a_list_that_does_not_come_in_time_is_given_up(
    scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows_module, "LIST_TIMEOUT", 0.2)
    scripted_ray.script("GET", "/api/jobs/", answers.default(delay=5), forever=True)
    with pytest.raises(TimeoutError):
        table(scripted_ray)


def test_a_cluster_that_says_nothing_of_itself_still_shows_its_jobs(
    scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows_module, "FACTS_TIMEOUT", 0.5)
    scripted_ray.add_job("a")
    scripted_ray.script("GET", "/api/version", answers.text(404, "404: Not Found"), forever=True)
    scripted_ray.script("GET", "/api/cluster_status", answers.default(delay=30), forever=True)
    began = time.monotonic()
    found = table(scripted_ray)
    assert time.monotonic() - began < 3
    assert ([job.submission_id for job in found.jobs], found.version, found.resources) == (["a"], None, None)
    assert amounts(found.resources) is None


def test_who_waits_for_a_slow_list_waits_for_the_facts_too(
    scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows_module, "FACTS_TIMEOUT", 0.2)
    scripted_ray.script("GET", "/api/jobs/", answers.default(delay=0.8))
    scripted_ray.script("GET", "/api/version", answers.default(delay=1))
    found = table(scripted_ray)
    assert found.version is not None
    assert found.version.session_name == scripted_ray.session_name


def test_only_jobs_that_are_kept_are_shortened(scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch) -> None:
    shortened = []
    monkeypatch.setattr(rows_module, "MAX_JOBS", 2)
    monkeypatch.setattr(rows_module, "_shortened", lambda job: shortened.append(job.submission_id) or job)
    for number in range(10):
        scripted_ray.add_job(f"j{number}", start_time=1000 - number)
    assert [job.submission_id for job in table(scripted_ray).jobs] == ["j0", "j1"] == shortened


@pytest.mark.parametrize("amount", [float("inf"), float("nan")])
def test_an_amount_that_is_no_number_is_left_out(amount: float) -> None:
    found = amounts(ClusterResources(({"CPU": (amount, 1.0), "GPU": (0.0, 1.0)}, {})))
    assert found == {"nodes": 2, "GPU": {"free": 1.0, "total": 1.0}}
    assert json.dumps(found, allow_nan=False)


def test_only_jobs_of_readable_dags_and_of_none_are_shown() -> None:
    jobs = [
        JobDetails("SUBMISSION", JobStatus.RUNNING, submission_id=name, metadata={"airflow_dag_id": dag} if dag else {})
        for name, dag in {"open": "train", "closed": "secret", "by-hand": "", "other": "x"}.items()
    ]
    assert dag_ids(jobs) == {"train", "secret", "x"}
    assert [one["submission_id"] for one in visible(masked_rows(jobs, CLUSTER), {"train"}, ())] == ["open", "by-hand"]
    assert [one["submission_id"] for one in visible(masked_rows(jobs, CLUSTER), (), ())] == ["by-hand"]


def test_messages_of_a_dag_are_shown_only_with_its_logs() -> None:
    jobs = [
        JobDetails("SUBMISSION", JobStatus.FAILED, message="hush", metadata={"airflow_dag_id": dag} if dag else {})
        for dag in ("train", "", "other")
    ]
    shared = masked_rows(jobs, CLUSTER)
    for _ in range(2):
        assert [one["message"] for one in visible(shared, ("train", "other"), ["other"])] == ["", "hush", "hush"]
    assert [one["message"] for one in visible(shared, ("train",), ["train"])] == ["hush", "hush"]


# What is told of each


def test_a_row_names_the_task_and_links_to_both_sides() -> None:
    assert row(start_time=1000, end_time=2000, entrypoint="python x.py", message="done") == {
        "submission_id": "a",
        "status": "RUNNING",
        "dag_id": "train",
        "run_id": "manual__1",
        "task_id": "fit",
        "map_index": -1,
        "try_number": "2",
        "started": 1000,
        "ended": 2000,
        "message": "done",
        "entrypoint": "python x.py",
        "job_url": "https://ray.example/#/jobs/a",
        "history_url": "",
        "task_url": "../dags/train/runs/manual__1/tasks/fit",
    }


@pytest.mark.parametrize(
    ("digits", "index"),
    [("3", 3), ("0", 0), ("-1", -1), ("", -1), ("x", -1), ("9" * 9, 999_999_999), ("9" * 10, -1), ("3.0", -1)],
)
def test_a_map_index_is_a_small_number_or_none(digits: str, index: int) -> None:
    found = row({**TASK, "airflow_map_index": digits})
    assert found["map_index"] == index
    assert found["task_url"].endswith("/tasks/fit" if index < 0 else f"/tasks/fit/mapped/{index}")


@pytest.mark.parametrize("missing", ["dag_id", "run_id", "task_id", "deployment"])
@pytest.mark.parametrize("change", [{}, {"": ""}])
def test_a_task_that_is_not_all_named_or_not_here_has_no_link(missing: str, change: dict[str, str]) -> None:
    said = {name: value for name, value in TASK.items() if name != f"airflow_{missing}"}
    if change:
        said[f"airflow_{missing}"] = "" if missing != "deployment" else "elsewhere"
    assert row(said)["task_url"] is None


def test_names_are_quoted_in_links() -> None:
    said = {**TASK, "airflow_run_id": "../../x?y#z", "airflow_task_id": "a b"}
    found = row(said)
    assert found["task_url"] == "../dags/train/runs/..%2F..%2Fx%3Fy%23z/tasks/a%20b"


def test_texts_are_cut_after_the_secrets_were_taken_out() -> None:
    secret = "s" * MAX_TEXT
    found = row(
        message="m" * (MAX_TEXT - 5) + secret + "rest",
        entrypoint="see http://me:pass@host " + "e" * 1000,
        runtime_env={"env_vars": {"A_TOKEN": secret}},
    )
    assert found["message"] == "m" * (MAX_TEXT - 5) + "***re"
    assert len(found["entrypoint"]) == MAX_TEXT
    assert found["entrypoint"].startswith("see http://***@host ")


def test_a_failed_job_tells_ray_s_word_and_the_error(scripted_ray: ScriptedRay) -> None:
    said = "Job failed due to an application error, last available logs (truncated to 20,000 chars):\n\n  one\n two \n"
    scripted_ray.add_job("a", "FAILED", message=said)
    scripted_ray.add_job("b", "FAILED", message=" one line \n")
    scripted_ray.add_job("c", "FAILED", message="")
    found = {job.submission_id: job.message for job in table(scripted_ray).jobs}
    assert found == {"a": "Job failed due to an application error … two", "b": "one line", "c": ""}


def test_what_is_kept_of_a_job_is_bounded(scripted_ray: ScriptedRay) -> None:
    long = "x" * (2 * MAX_SEARCHED_TEXT)
    scripted_ray.add_job("a", "FAILED", message=long, entrypoint=long)
    large = {"env_vars": {"A_TOKEN": "x" * MAX_ENVIRONMENT}}
    more = {**TASK, "other": "x", "airflow_long": "y" * 1000}
    scripted_ray.add_job("b", message="hush", entrypoint="hush", runtime_env=large, metadata=more)
    jobs = {job.submission_id: job for job in table(scripted_ray).jobs}
    assert (len(jobs["a"].message or ""), len(jobs["a"].entrypoint)) == (MAX_SEARCHED_TEXT, MAX_SEARCHED_TEXT)
    assert (jobs["b"].message, jobs["b"].entrypoint, jobs["b"].runtime_env) == (WITHHELD, WITHHELD, {})
    assert jobs["b"].metadata == TASK


def test_a_row_can_be_shown_whatever_a_job_says() -> None:
    found = row({**TASK, "airflow_run_id": "a\0\ud800"}, entrypoint="\ud800", message="\0")
    assert (found["run_id"], found["entrypoint"], found["message"]) == (r"a\x00\ud800", r"\ud800", r"\x00")
    json.dumps(found, ensure_ascii=False).encode()
