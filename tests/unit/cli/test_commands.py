"""The commands: what they ask the cluster for, and what they write of its answers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.support import answers
from tests.support.command_line import Done

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.command_line import Run
    from tests.support.scripted_server import ScriptedRay

ENDED = 1_700_000_000_000


def test_submit_sends_what_its_options_say(run: Run, scripted_ray: ScriptedRay, tmp_path: Path) -> None:
    text = "pip: [x]\nenv_vars: {A: b}\nworking_dir: s3://b/other.zip\n"
    (tmp_path / "env.yaml").write_text(text, encoding="utf-8-sig")
    done = run(
        "submit",
        *("--runtime-env", str(tmp_path / "env.yaml"), "--working-dir", "s3://b/code.zip"),
        *("--submission-id", "a", "--metadata-json", '{"owner": "me"}'),
        *("--entrypoint-num-cpus", "0.5", "--entrypoint-num-gpus", "1", "--entrypoint-memory", "1024"),
        *("--entrypoint-resources", '{"TPU": 1}', "--entrypoint-label-selector", '{"zone": "a"}'),
        *("--", "python", "a b.py", "--conn-id", "--", "-f"),
    )
    assert done == Done(0, "a\n", "")
    sent = scripted_ray.received_on("POST")[0].json
    assert sent.pop("metadata")["owner"] == "me"
    assert sent.pop("runtime_env") == {
        "pip": {"packages": ["x"], "pip_check": False},
        "env_vars": {"A": "b"},
        "working_dir": "s3://b/code.zip",
    }
    assert sent == {
        "entrypoint": "python 'a b.py' --conn-id -- -f",
        "submission_id": "a",
        "entrypoint_num_cpus": 0.5,
        "entrypoint_num_gpus": 1,
        "entrypoint_memory": 1024,
        "entrypoint_resources": {"TPU": 1},
        "entrypoint_label_selector": {"zone": "a"},
    }


def test_one_word_is_a_command_line(run: Run, scripted_ray: ScriptedRay) -> None:
    done = run("submit", "--", "echo $HOME | wc")
    assert done.code == 0
    sent = scripted_ray.received_on("POST")[0].json
    assert (sent["entrypoint"], sent["submission_id"] + "\n") == ("echo $HOME | wc", done.out)


def test_a_local_folder_is_uploaded(run: Run, scripted_ray: ScriptedRay, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("")
    done = run("submit", "--working-dir", str(tmp_path), "--", "python", "a.py")
    assert (done.code, len(done.out.split())) == (0, 1)
    assert done.err.startswith(f"Uploading {tmp_path}: 1 files")
    assert len(scripted_ray.packages) == 1


@pytest.mark.parametrize("text", ["a: [s3cret", "- s3cret", "a: \x00s3cret"])
def test_a_runtime_env_file_that_is_none_is_told_without_its_content(run: Run, tmp_path: Path, text: str) -> None:
    (tmp_path / "env.yaml").write_text(text)
    done = run("submit", "--runtime-env", str(tmp_path / "env.yaml"), "--", "x")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("--runtime-env: ")
    assert "s3cret" not in done.err


def test_list_shows_the_newest_of_the_wanted(run: Run, scripted_ray: ScriptedRay) -> None:
    for number, status in enumerate(["FAILED", "SUCCEEDED", "SUCCEEDED", "RUNNING"]):
        task = {"airflow_dag_id": "d", "airflow_run_id": f"r{number % 2}", "airflow_task_id": "t"}
        job = scripted_ray.add_job(f"j{number}", status, start_time=ENDED + number * 1000, metadata=task)
        job.fields.update(entrypoint="echo [/b] :smile:", end_time=ENDED + 61_500)
    scripted_ray.add_job("stranger")
    scripted_ray.other_jobs = [{"type": "DRIVER", "status": "RUNNING", "job_id": "01000000"}]

    def ids(*options: str) -> list[str]:
        done = run("list", "-o", "json", *options)
        assert (done.code, done.err) == (0, "")
        return [job["submission_id"] for job in json.loads(done.out)]

    assert ids("--dag-id", "d") == ["j3", "j2", "j1", "j0"]
    assert ids("--dag-id", "d", "--task-id", "t", "--run-id", "r0") == ["j2", "j0"]
    assert ids("--status", "failed", "--status", "SUCCEEDED", "--limit", "2") == ["j2", "j1"]
    assert len(ids()) == 5
    for output in ("table", "plain"):
        assert run("list", "--dag-id", "none", "-o", output) == Done(0, "", "No jobs found\n")
    assert run("list", "--dag-id", "none", "-o", "json") == Done(0, "[]\n", "")


def test_status_shows_no_secrets(run: Run, scripted_ray: ScriptedRay) -> None:
    runtime_env = {
        "env_vars": {"MY_TOKEN": "t0ken-value", "A": "an0ther-value"},
        "pip": ["--extra-index-url=https://me:passw0rd@example.com/simple", "x==1"],
        "working_dir": "https://example.com/a.zip?signature=s1gned",
    }
    scripted_ray.add_job("a", "FAILED", runtime_env=runtime_env, entrypoint="x --token t0ken-value", message="m\nn")
    for output in ("json", "yaml", "table", "plain"):
        done = run("status", "a", "-o", output)
        assert (done.code, done.err) == (0, "")
        assert not [secret for secret in ("t0ken", "an0ther", "passw0rd", "s1gned") if secret in done.out]
        assert "MY_TOKEN" in done.out
    (details,) = json.loads(run("status", "a", "-o", "json").out)
    assert (details["submission_id"], details["status"], details["message"]) == ("a", "FAILED", "m\nn")
    assert details["runtime_env"]["pip"] == ["--extra-index-url=https://***@example.com/simple", "x==1"]


def test_status_of_a_pending_job_says_why_beside_the_result(run: Run, scripted_ray: ScriptedRay) -> None:
    scripted_ray.add_job("a", "PENDING", message="said", metadata={"airflow_resources": '{"GPU": 1}'})
    usage = {"data": {"clusterStatus": {"loadMetricsReport": {"usageByNode": {"ab": {"GPU": [1.0, 1.0]}}}}}}
    scripted_ray.script("GET", "/api/cluster_status", answers.as_json(usage))
    done = run("status", "a", "-o", "json")
    assert json.loads(done.out)[0]["status"] == "PENDING"
    assert "PENDING: needs 1 GPU on one node, free are 0 GPU of 1 GPU; Ray: said" in done.err


def test_a_folder_that_is_not_there_is_a_wrong_argument(run: Run, scripted_ray: ScriptedRay) -> None:
    done = run("submit", "--working-dir", "/no/such/folder", "--", "x")
    assert done.code == 2
    assert "/no/such/folder" in done.err
    assert scripted_ray.jobs == {}


def test_stop_waits_and_tells_the_last_status(run: Run, scripted_ray: ScriptedRay) -> None:
    scripted_ray.stop_takes = 0.6
    scripted_ray.add_job("a")
    scripted_ray.add_job("b", "SUCCEEDED")
    assert run("stop", "a") == Done(0, "STOPPED\n", "")
    assert run("stop", "b") == Done(0, "SUCCEEDED\n", "")


def test_stop_without_waiting_asks_once(run: Run, scripted_ray: ScriptedRay) -> None:
    scripted_ray.stop_takes = 600
    scripted_ray.add_job("a")
    scripted_ray.add_job("b", "SUCCEEDED")
    asked = run("stop", "--no-wait", "a")
    assert (asked.code, asked.out) == (0, "")
    assert asked.err == (
        "Ray job a was asked to stop; to see whether it has: "
        "python -m airflow_provider_rayjobs status a --conn-id ray_x\n"
    )
    assert [one.method for one in scripted_ray.received] == ["POST"]
    assert run("stop", "--no-wait", "b") == Done(0, "SUCCEEDED\n", "")
    assert run("stop", "--no-wait", "no-such").code == 4


def test_a_job_that_ray_does_not_stop_yet_is_an_error(run: Run, scripted_ray: ScriptedRay) -> None:
    scripted_ray.add_job("a", "PENDING")
    scripted_ray.script("POST", "/api/jobs/a/stop", answers.as_json({"stopped": False}))
    assert run("stop", "--no-wait", "a") == Done(1, "", "Ray job a is PENDING and can't be stopped yet; try again\n")


def test_delete_wants_a_job_that_has_ended(run: Run, scripted_ray: ScriptedRay) -> None:
    scripted_ray.add_job("a")
    scripted_ray.add_job("b", "STOPPED", end_time=ENDED)
    live = run("delete", "a")
    assert (live.code, live.out) == (1, "")
    assert "only a job that has ended can be deleted; to stop it: python -m airflow_provider_rayjobs stop a" in live.err
    assert run("delete", "b") == Done(0, "", "Deleted Ray job b\n")
    assert list(scripted_ray.jobs) == ["a"]
