"""By default the scripted head does with jobs and packages what a head does."""

from __future__ import annotations

import json
import time

from airflow_provider_rayjobs.testing.ray_server import ScriptedRay
from tests.unit.testing.http_client import JOBS, Client


def test_a_job_goes_as_told(scripted_ray: ScriptedRay, client: Client) -> None:
    request = {"entrypoint": "true", "submission_id": "a", "metadata": {"k": "v"}}
    assert client.ask("POST", JOBS, request) == (200, '{"job_id": "a", "submission_id": "a"}')
    details = client.job("a")
    assert (details["status"], details["metadata"], details["end_time"]) == ("PENDING", {"k": "v"}, None)
    scripted_ray.set_status("a", "RUNNING")
    assert client.job("a")["status"] == "RUNNING"
    scripted_ray.set_status("a", "FAILED", driver_exit_code=3)
    details = client.job("a")
    assert (details["status"], details["driver_exit_code"]) == ("FAILED", 3)
    assert details["end_time"] >= details["start_time"]
    assert [one.json for one in scripted_ray.received_on("POST")] == [request]


def test_a_job_goes_by_the_clock(scripted_ray: ScriptedRay, client: Client) -> None:
    scripted_ray.new_job_timeline = [(0.0, "RUNNING"), (0.15, "SUCCEEDED")]
    client.ask("POST", JOBS, {"entrypoint": "true", "submission_id": "a"})
    assert client.job("a")["status"] == "RUNNING"
    time.sleep(0.2)
    assert client.job("a")["status"] == "SUCCEEDED"


def test_a_job_goes_by_reads(scripted_ray: ScriptedRay, client: Client) -> None:
    scripted_ray.new_job_reads = ["PENDING", "RUNNING", "SUCCEEDED"]
    client.ask("POST", JOBS, {"entrypoint": "true", "submission_id": "a"})
    seen = [client.job("a")["status"] for _ in range(4)]
    assert seen == ["PENDING", "RUNNING", "SUCCEEDED", "SUCCEEDED"]


def test_submissions_that_a_head_refuses(scripted_ray: ScriptedRay, client: Client) -> None:
    scripted_ray.add_job("a", "SUCCEEDED")
    status, text = client.ask("POST", JOBS, {"entrypoint": "true", "submission_id": "a"})
    assert status == 500
    assert "Job with submission_id a already exists." in text
    scripted_ray.submit_fields -= {"entrypoint_label_selector"}
    assert client.ask("POST", JOBS, {"entrypoint": "true", "entrypoint_label_selector": {}})[0] == 400
    assert client.ask("POST", JOBS, {"entrypoint": "true", "metadata": {"k": 1}})[0] == 400
    assert client.ask("POST", JOBS, b"{")[0] == 400
    assert list(scripted_ray.jobs) == ["a"]


def test_unknown_jobs_and_routes(client: Client) -> None:
    for method, path in (
        ("GET", ""),
        ("GET", "/logs"),
        ("GET", "/logs/tail"),
        ("POST", "/stop"),
        ("DELETE", ""),
    ):
        assert client.ask(method, f"/api/jobs/x{path}") == (404, "Job x does not exist")
    assert client.ask("GET", "/nowhere")[0] == 404


def test_list_and_logs(scripted_ray: ScriptedRay, client: Client) -> None:
    scripted_ray.add_job("a")
    scripted_ray.append_log("a", ["one\n", "two\n"])
    scripted_ray.other_jobs = [{"type": "DRIVER", "job_id": "01000000", "submission_id": None}]
    listed = json.loads(client.ask("GET", JOBS)[1])
    assert [(one["type"], one["submission_id"]) for one in listed] == [("SUBMISSION", "a"), ("DRIVER", None)]
    assert client.ask("GET", "/api/jobs/a/logs") == (200, '{"logs": "one\\ntwo\\n"}')


def test_stop_and_delete(scripted_ray: ScriptedRay, client: Client) -> None:
    scripted_ray.add_job("a")
    scripted_ray.stop_takes = 0.15
    status, text = client.ask("DELETE", "/api/jobs/a")
    assert (status, "non-terminal state RUNNING" in text) == (500, True)
    assert client.ask("POST", "/api/jobs/a/stop") == (200, '{"stopped": true}')
    assert client.job("a")["status"] == "RUNNING"
    time.sleep(0.2)
    assert client.job("a")["status"] == "STOPPED"
    assert client.ask("POST", "/api/jobs/a/stop") == (200, '{"stopped": false}')
    assert client.ask("DELETE", "/api/jobs/a") == (200, '{"deleted": true}')
    assert client.ask("GET", "/api/jobs/a")[0] == 404


def test_a_stop_that_is_not_heeded(scripted_ray: ScriptedRay, client: Client) -> None:
    scripted_ray.add_job("a")
    scripted_ray.stop_takes = None
    assert client.ask("POST", "/api/jobs/a/stop") == (200, '{"stopped": true}')
    assert client.job("a")["status"] == "RUNNING"


def test_packages() -> None:
    with ScriptedRay(max_body=10) as server:
        client = Client(server)
        assert client.ask("GET", "/api/packages/gcs/p.zip") == (404, "Package gcs://p.zip does not exist")
        assert client.ask("PUT", "/api/packages/gcs/p.zip", b"0123456789")[0] == 200
        assert client.ask("GET", "/api/packages/gcs/p.zip")[0] == 200
        status, text = client.ask("PUT", "/api/packages/gcs/q.zip", b"01234567890")
        assert (status, "Maximum request body size 10 exceeded" in text) == (413, True)
        assert server.packages == {"p.zip": b"0123456789"}
        client.connection.close()


def test_a_restart_forgets_and_begins_a_new_session(scripted_ray: ScriptedRay, client: Client) -> None:
    scripted_ray.add_job("a")
    before = json.loads(client.ask("GET", "/api/version")[1])["session_name"]
    scripted_ray.restart()
    assert json.loads(client.ask("GET", "/api/version")[1])["session_name"] != before
    assert client.ask("GET", "/api/jobs/a")[0] == 404


def test_a_job_has_the_chosen_fields_when_it_has_ended(scripted_ray: ScriptedRay, client: Client) -> None:
    job = scripted_ray.add_job("a")
    job.end = {"driver_exit_code": 7}
    job.timeline = [(0.0, "RUNNING"), (time.time() + 0.6, "FAILED")]
    assert client.job("a")["driver_exit_code"] is None
    time.sleep(0.7)
    assert [client.job("a")[name] for name in ("status", "driver_exit_code")] == ["FAILED", 7]
