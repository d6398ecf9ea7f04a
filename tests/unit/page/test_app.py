"""The page "Ray jobs", served by Airflow's own application, behind its own login."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import airflow_provider_rayjobs
from airflow_provider_rayjobs.compat import connections, masking
from airflow_provider_rayjobs.kubernetes.calls import RAYJOBS
from airflow_provider_rayjobs.kubernetes.cluster import ClusterRef
from airflow_provider_rayjobs.page import rows
from tests.support import airflow_app, answers
from tests.support.airflow_app import PRIVATE_DAG, add_connection, add_task, client_of, remove_connection
from tests.support.kube_calls import Objects
from tests.support.ports import free_port
from tests.support.scripted_server import ScriptedRay

if tuple(map(int, version("apache-airflow").split(".")[:2])) < (3, 1):
    pytest.skip("Airflow's UI takes no pages before 3.1", allow_module_level=True)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastapi import FastAPI
    from fastapi.testclient import TestClient

MAX_READERS = 2
PAGE = Path(airflow_provider_rayjobs.__file__).parent / "page"
EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def app() -> Iterator[FastAPI]:
    installed = {point.name for point in entry_points(group="airflow.plugins")}
    assert "ray_jobs" in installed, "install the project anew: its entry points have changed"
    with airflow_app.running_app() as made:
        yield made


@pytest.fixture(scope="module")
def olga(app: FastAPI) -> TestClient:
    return client_of(app, "olga")


@pytest.fixture
def ray(app: FastAPI, scripted_ray: ScriptedRay) -> Iterator[ScriptedRay]:
    """A cluster that the connection "ray_one" names."""
    add_connection("ray_one", conn_type="ray_jobs", host=scripted_ray.url, password="s3cret-token")
    yield scripted_ray
    remove_connection("ray_one")


def origin(dag_id: str = "train", **more: str) -> dict[str, str]:
    """Return what the provider writes into a job's metadata."""
    said = {"dag_id": dag_id, "run_id": "manual__1", "task_id": "fit", "map_index": "-1", "try_number": "1"}
    said["deployment"] = connections.derived_deployment()
    return {f"airflow_{name}": value for name, value in {**said, **more}.items()}


def jobs_of(client: TestClient, conn_id: str = "ray_one") -> list[dict[str, Any]]:
    answer = client.get(f"/ray-jobs/api/connections/{conn_id}/jobs")
    assert answer.status_code == 200, answer.text
    jobs: list[dict[str, Any]] = answer.json()["jobs"]
    return jobs


JOB_ROUTE = "/api/connections/ray_one/jobs/job-1"
TASK_ROUTE = "/api/dags/train/job?run_id=manual__1&task_id=fit"
ROUTES = [
    *("/", "/task", "/page.js", "/task.js", "/common.js", "/page.css"),
    *("/api/kubernetes", "/api/connections", "/api/connections/ray_one/jobs", JOB_ROUTE, TASK_ROUTE),
]


@pytest.mark.parametrize("route", ROUTES)
def test_every_route_asks_for_airflows_login(app: FastAPI, ray: ScriptedRay, route: str) -> None:
    ray.add_job("job-1")
    stranger = client_of(app, None)
    assert stranger.get(f"/ray-jobs{route}").status_code == 401
    stranger.cookies.set("_token", "no.such.token")
    assert stranger.get(f"/ray-jobs{route}").status_code in (401, 403)
    assert client_of(app, "olga").get(f"/ray-jobs{route}").status_code == 200
    assert not [request for request in ray.received if request.method != "GET"]


def test_there_are_no_other_routes_and_none_that_changes_anything(olga: TestClient) -> None:
    from airflow_provider_rayjobs.page.app import create_app

    routes: dict[str, set[str]] = {route.path: route.methods for route in create_app().routes}  # type: ignore[attr-defined]
    by_name = {
        "/api/connections/{connection_id}/jobs",
        "/api/connections/{connection_id}/jobs/{submission_id}",
        "/api/dags/{dag_id}/job",
        "/api/kubernetes/{connection_id}/clusters",
    }
    assert set(routes) == {*ROUTES[:-3], *by_name}
    assert set.union(*routes.values()) <= {"GET", "HEAD"}
    assert olga.post("/ray-jobs/api/connections").status_code == 405


@pytest.mark.parametrize("route", ROUTES)
def test_a_strict_policy_forbids_all_but_the_pages_own_files(olga: TestClient, ray: ScriptedRay, route: str) -> None:
    headers = olga.get(f"/ray-jobs{route}").headers
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    assert "http" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"


def test_the_page_needs_nothing_from_elsewhere_and_makes_no_markup_of_values() -> None:
    html = "".join(file.read_text() for file in PAGE.glob("*.html"))
    script = "".join(file.read_text() for file in PAGE.glob("*.js"))
    assert not re.search(r"https?://", html + (PAGE / "page.css").read_text())
    assert not re.search(r"\bon\w+=|<style|style=", html)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|Function\(", script)


def test_airflows_ui_has_the_page_in_its_menu(olga: TestClient) -> None:
    plugins = {plugin["name"]: plugin for plugin in olga.get("/api/v2/plugins").json()["plugins"]}
    (view,) = plugins["ray_jobs"]["external_views"]
    assert view["href"] == "/ray-jobs/"
    assert (view["name"], view["category"], view["destination"]) == ("Ray jobs", "browse", "nav")
    assert olga.get("/api/v2/plugins/importErrors").json()["total_entries"] == 0


def test_a_job_is_shown_with_its_task_and_links_to_both_sides(olga: TestClient, ray: ScriptedRay) -> None:
    ray.add_job("job-1", "SUCCEEDED", metadata=origin(run_id="manual__2026-01-01T00:00:00+00:00"), start_time=1000)
    (job,) = jobs_of(olga)
    assert job["status"] == "SUCCEEDED"
    assert (job["dag_id"], job["task_id"], job["map_index"]) == ("train", "fit", -1)
    assert job["started"] == 1000
    assert job["ended"] > 1000
    assert job["task_url"] == "../dags/train/runs/manual__2026-01-01T00%3A00%3A00%2B00%3A00/tasks/fit"
    assert job["job_url"] == f"{ray.url}/#/jobs/job-1"
    assert job["message"] == "Job finished successfully."


def test_a_mapped_tasks_link_names_its_index(olga: TestClient, ray: ScriptedRay) -> None:
    ray.add_job("job-1", metadata=origin(map_index="3"))
    assert jobs_of(olga)[0]["task_url"].endswith("/tasks/fit/mapped/3")


def test_jobs_of_other_deployments_and_of_no_dag_have_no_task_here(olga: TestClient, ray: ScriptedRay) -> None:
    ray.add_job("theirs", metadata=origin(deployment="other"))
    ray.add_job("by-hand", entrypoint="python by_hand.py", metadata=None)
    ray.other_jobs = [{"type": "DRIVER", "status": "RUNNING", "job_id": "01000000", "submission_id": None}]
    jobs = {job["submission_id"]: job for job in jobs_of(olga)}
    assert jobs.keys() == {"theirs", "by-hand"}
    assert [jobs[name]["task_url"] for name in jobs] == [None, None]
    assert jobs["by-hand"]["entrypoint"] == "python by_hand.py"


def test_the_newest_of_a_thousand_come_first(olga: TestClient, ray: ScriptedRay) -> None:
    for number in range(1000):
        ray.add_job(f"job-{number}", "SUCCEEDED", metadata=origin(), start_time=10_000 + number * 7919 % 1000)
    jobs = jobs_of(olga)
    assert len(jobs) == 1000
    started = [job["started"] for job in jobs]
    assert started == sorted(started, reverse=True)
    paths = [request.path for request in ray.received]
    assert sorted(paths) == ["/api/cluster_status", "/api/jobs/", "/api/version"]


def test_of_a_long_record_the_newest_are_kept(
    olga: TestClient, ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_rayjobs.page.rows.MAX_JOBS", 3)
    for number in range(10):
        ray.add_job(f"job-{number}", "SUCCEEDED", start_time=10_000 + (number * 7) % 10)
    answer = olga.get("/ray-jobs/api/connections/ray_one/jobs").json()
    assert [job["started"] for job in answer["jobs"]] == [10_009, 10_008, 10_007]
    assert answer["on_record"] == 10


def test_markup_in_a_job_comes_as_json_text(olga: TestClient, ray: ScriptedRay) -> None:
    ray.add_job("job-1", "FAILED", entrypoint=EVIL, message=EVIL, metadata=origin(dag_id=EVIL, run_id="../../x"))
    answer = olga.get("/ray-jobs/api/connections/ray_one/jobs")
    assert answer.headers["content-type"] == "application/json"
    (job,) = answer.json()["jobs"]
    assert job["message"] == EVIL
    assert job["task_url"] == "../dags/%3Cimg%20src%3Dx%20onerror%3Dalert%281%29%3E/runs/..%2F..%2Fx/tasks/fit"


def test_no_secret_is_shown(olga: TestClient, ray: ScriptedRay) -> None:
    env_vars = {"API_TOKEN": "tok-91aa07", "DSN": "first-91aa07\nsecond-91aa07", "SIZE": "huge"}
    ray.add_job(
        "job-1",
        "FAILED",
        entrypoint="run --key tok-91aa07 --size huge --token s3cret-token",
        message="failed\nlog\nValueError: second-91aa07 and tok-91aa07",
        metadata={"airflow_secret_env_vars": "DSN"},
        runtime_env={"env_vars": env_vars},
    )
    text = olga.get("/ray-jobs/api/connections/ray_one/jobs").text
    assert "91aa07" not in text
    assert "s3cret-token" not in text
    (job,) = json.loads(text)["jobs"]
    assert job["message"] == "failed … ValueError: *** and ***"
    assert job["entrypoint"] == "run --key *** --size huge --token ***"
    assert masking.public("tok-91aa07") == "tok-91aa07", "nothing stays behind in the process"


def test_a_failed_jobs_message_is_what_failed_and_the_error(olga: TestClient, ray: ScriptedRay) -> None:
    output = "\n".join(f"line {number}" for number in range(1000))
    said = "Job entrypoint command failed with exit code 1"
    ray.add_job(
        "job-1", "FAILED", message=f"{said}, last available logs (truncated to 20,000 chars):\n{output}\nboom\n"
    )
    assert jobs_of(olga)[0]["message"] == f"{said} … boom"


# Who may see what


def test_connections_are_those_that_the_user_may_read(app: FastAPI, olga: TestClient, ray: ScriptedRay) -> None:
    add_connection("other", conn_type="http", host="127.0.0.1")
    assert olga.get("/ray-jobs/api/connections").json() == ["ray_one"]
    vera = client_of(app, "vera")
    assert vera.get("/ray-jobs/api/connections").json() == []
    assert vera.get("/ray-jobs/api/connections/ray_one/jobs").status_code == 403
    assert not ray.received


def test_jobs_of_a_dag_are_shown_to_those_who_may_read_it(app: FastAPI, olga: TestClient, ray: ScriptedRay) -> None:
    ray.add_job("open", metadata=origin())
    ray.add_job("closed", metadata=origin(PRIVATE_DAG))
    ray.add_job("closed-elsewhere", metadata=origin(PRIVATE_DAG, deployment="other"))
    assert {job["submission_id"] for job in jobs_of(olga)} == {"open", "closed", "closed-elsewhere"}
    assert {job["submission_id"] for job in jobs_of(client_of(app, "paul"))} == {"open"}


def test_connections_of_the_environment_are_found_by_name(
    olga: TestClient, scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = json.dumps({"conn_type": "ray_jobs", "host": scripted_ray.url})
    monkeypatch.setenv("AIRFLOW_CONN_RAY_HIDDEN", connection)
    monkeypatch.setenv("AIRFLOW_CONN_RAY_DEFAULT", connection)
    scripted_ray.add_job("job-1")
    assert olga.get("/ray-jobs/api/connections").json() == ["ray_default"]
    assert len(jobs_of(olga, "ray_hidden")) == 1


def test_no_other_type_of_connection_is_used(olga: TestClient, scripted_ray: ScriptedRay) -> None:
    add_connection("web", conn_type="http", host=scripted_ray.url, password="p")
    for conn_id in ("web", "nowhere"):
        answer = olga.get(f"/ray-jobs/api/connections/{conn_id}/jobs")
        assert answer.status_code == 404
        assert conn_id in answer.json()["detail"]
    assert not scripted_ray.received


# One job, and the job of a task


def details_of(client: TestClient, submission_id: str) -> Any:
    return client.get(f"/ray-jobs/api/connections/ray_one/jobs/{submission_id}")


def job_of_task(client: TestClient, dag_id: str, **more: Any) -> dict[str, Any]:
    query = {"run_id": "manual__1", "task_id": "fit", **more}
    answer = client.get(f"/ray-jobs/api/dags/{dag_id}/job", params=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_the_whole_message_of_a_job_is_shown_on_demand(olga: TestClient, ray: ScriptedRay) -> None:
    message = "failed\n" + "a line of output\n" * 1000 + "ValueError: boom"
    entrypoint = "python train.py " + "--option value " * 100
    ray.add_job("job-1", "FAILED", message=message, entrypoint=entrypoint)
    (row,) = jobs_of(olga)
    assert len(row["message"]) + len(row["entrypoint"]) < 1000
    found = details_of(olga, "job-1").json()
    assert (found["message"], found["entrypoint"]) == (message, entrypoint)


def test_details_are_shown_to_those_who_may_read_the_dag(app: FastAPI, olga: TestClient, ray: ScriptedRay) -> None:
    ray.add_job("closed", message="hush", metadata=origin(PRIVATE_DAG))
    assert details_of(olga, "closed").status_code == 200
    refused = details_of(client_of(app, "paul"), "closed")
    assert refused.status_code == 403
    assert "hush" not in refused.text
    ray.add_job("by-hand")
    assert details_of(client_of(app, "vera"), "by-hand").status_code == 403, "she may not read the connection"


@pytest.mark.parametrize("submission_id", ["gone", "%2E", "a%00b"])
def test_a_job_that_is_not_there_is_an_error(olga: TestClient, ray: ScriptedRay, submission_id: str) -> None:
    answer = details_of(olga, submission_id)
    assert answer.status_code in (404, 502)
    assert isinstance(answer.json()["detail"], str)


def test_the_job_of_a_task_is_found_by_its_connection(olga: TestClient, ray: ScriptedRay) -> None:
    add_task("view_a", page=f"{ray.url}/#/jobs/job-1", fields={"ray_conn_id": "ray_one"})
    ray.add_job("job-1", metadata=origin("view_a")).log = ["hello\n"]
    job = job_of_task(olga, "view_a")["job"]
    assert (job["status"], job["connection"], job["log"]) == ("RUNNING", "ray_one", {"lines": ["hello"]})


def test_without_rendered_arguments_the_connection_is_found_by_the_page(olga: TestClient, ray: ScriptedRay) -> None:
    add_connection("ray_a", conn_type="ray_jobs", host="http://127.0.0.1:9")
    add_connection("ray_b", conn_type="ray_jobs", host="127.0.0.1", extra='{"verify": 7}')
    for name, page in (("view_b", f"{ray.url}/#/jobs/job-1"), ("view_c", "http://elsewhere/#/jobs/job-1")):
        add_task(name, page=page)
    ray.add_job("job-1")
    found, lost = job_of_task(olga, "view_b"), job_of_task(olga, "view_c")
    for conn_id in ("ray_a", "ray_b"):
        remove_connection(conn_id)
    assert found["job"]["connection"] == "ray_one"
    assert lost == {
        "job": {"submission_id": "job-1", "job_url": "http://elsewhere/#/jobs/job-1"},
        "problem": "No connection that you may read leads to the cluster of this job.",
    }


def test_a_job_that_the_viewer_has_whole_is_not_read_again(olga: TestClient, ray: ScriptedRay) -> None:
    add_task("view_i", page=f"{ray.url}/#/jobs/job-1", fields={"ray_conn_id": "ray_one"})
    ray.add_job("job-1", "SUCCEEDED")
    assert job_of_task(olga, "view_i", settled="job-1") == {"unchanged": True}
    assert not ray.received
    assert job_of_task(olga, "view_i", settled="an-earlier-try")["job"]["status"] == "SUCCEEDED"


def test_a_driver_that_was_not_submitted_has_no_details(olga: TestClient, ray: ScriptedRay) -> None:
    driver = {"type": "DRIVER", "status": "RUNNING", "job_id": "01000000", "submission_id": None, "entrypoint": "hush"}
    ray.script("GET", "/api/jobs/01000000", answers.as_json(driver))
    refused = details_of(olga, "01000000")
    assert refused.status_code == 404
    assert "hush" not in refused.text


@pytest.mark.parametrize("index", [-2, 2**31, "x"])
def test_a_map_index_that_no_task_has_is_refused(olga: TestClient, index: object) -> None:
    query = {"run_id": "manual__1", "task_id": "fit", "map_index": str(index)}
    assert olga.get("/ray-jobs/api/dags/train/job", params=query).status_code == 422


def test_a_task_without_a_job_says_so(olga: TestClient) -> None:
    add_task("view_d")
    assert job_of_task(olga, "view_d") == {"job": None}
    assert job_of_task(olga, "nowhere", map_index=3) == {"job": None}


def test_what_is_known_of_a_job_is_shown_if_the_cluster_is_away(olga: TestClient) -> None:
    page = "http://127.0.0.1:9/#/jobs/job-1"
    add_connection("ray_gone", conn_type="ray_jobs", host="http://127.0.0.1:9")
    add_task("view_e", page=page, fields={"ray_conn_id": "ray_gone"})
    found = job_of_task(olga, "view_e")
    remove_connection("ray_gone")
    assert found["job"] == {"submission_id": "job-1", "job_url": page, "connection": "ray_gone"}
    assert "connection refused" in found["problem"]


def test_the_view_is_for_those_who_may_read_the_task_the_connection_and_the_jobs_dag(
    app: FastAPI, olga: TestClient, ray: ScriptedRay
) -> None:
    page = f"{ray.url}/#/jobs/closed"
    for name in (PRIVATE_DAG, "view_f"):
        add_task(name, page=page, fields={"ray_conn_id": "ray_one"})
    ray.add_job("closed", message="hush", metadata=origin(PRIVATE_DAG))
    paul, vera = client_of(app, "paul"), client_of(app, "vera")
    assert job_of_task(olga, PRIVATE_DAG)["job"]["message"] == "hush"
    query = {"run_id": "manual__1", "task_id": "fit"}
    assert paul.get(f"/ray-jobs/api/dags/{PRIVATE_DAG}/job", params=query).status_code == 403
    pointing = job_of_task(paul, "view_f")  # a task of another DAG that names the job
    assert "hush" not in json.dumps(pointing)
    assert "permission to read the DAG" in pointing["problem"]
    assert "permission to read connection 'ray_one'" in job_of_task(vera, "view_f")["problem"]


def test_logs_and_messages_are_for_those_who_may_read_task_logs(
    app: FastAPI, olga: TestClient, ray: ScriptedRay
) -> None:
    add_task("view_g", page=f"{ray.url}/#/jobs/job-1", fields={"ray_conn_id": "ray_one"})
    ray.add_job("job-1", "FAILED", message="hush", metadata=origin("view_g"), entrypoint="python x.py").log = ["hush\n"]
    ray.add_job("by-hand", "FAILED", message="mine")
    nora = client_of(app, "nora")
    for client, shown in ((olga, True), (nora, False)):
        job = job_of_task(client, "view_g")["job"]
        assert (job["status"], job["entrypoint"]) == ("FAILED", "python x.py")
        row = next(row for row in jobs_of(client) if row["submission_id"] == "job-1")
        details = details_of(client, "job-1").json()
        assert [one["message"] == "hush" for one in (job, row, details)] == [shown] * 3
        assert ("hush" in json.dumps([job, row, details])) is shown
        assert details_of(client, "by-hand").json()["message"] == "mine"
    assert job["log"] == {"problem": "You don't have permission to read the logs of this DAG."}
    assert (job["failure"], job["progress"]) == (None, None)


def test_the_log_of_a_job_without_a_dag_is_for_those_who_may_read_the_task_s(app: FastAPI, ray: ScriptedRay) -> None:
    add_task("view_h", page=f"{ray.url}/#/jobs/job-1", fields={"ray_conn_id": "ray_one"})
    ray.add_job("job-1").log = ["hush\n"]
    assert "hush" not in json.dumps(job_of_task(client_of(app, "nora"), "view_h"))


def test_views_of_a_slow_cluster_are_bounded_and_shared(
    app: FastAPI, ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_rayjobs.page.view.PART_TIMEOUT", 2.0)
    monkeypatch.setattr("airflow_provider_rayjobs.page.app.VIEW_TIMEOUT", 3.0)
    ray.script("GET", "/api/jobs/job-.*", answers.default(delay=60), forever=True)
    with client_of(app, "olga") as client, ThreadPoolExecutor() as threads:
        names = [f"job-{number % 4}" for number in range(12)]
        gone = list(threads.map(lambda name: details_of(client, name), names))
    assert {answer.status_code for answer in gone} == {504}
    asked = [request.path for request in ray.received]
    assert len(asked) == len(set(asked)) <= 4, "one request for each job"
    times = [request.time for request in ray.received]
    assert all(later - earlier > 1.0 for earlier, later in zip(times, times[MAX_READERS:], strict=False))


def test_a_job_that_gets_no_turn_says_so_and_not_that_the_cluster_is_slow(
    app: FastAPI, ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_rayjobs.page.app.TURN_TIMEOUT", 0.5)
    monkeypatch.setattr("airflow_provider_rayjobs.page.shared.SHORTEST_HOLD", 0.1)
    ray.add_job("job-3")
    ray.script("GET", "/api/jobs/job-[12]", answers.default(delay=3), forever=True)
    with client_of(app, "olga") as client, ThreadPoolExecutor() as threads:
        slow = [threads.submit(details_of, client, name) for name in ("job-1", "job-2")]
        ray.wait_for(lambda: len(ray.received) == 2)
        refused = details_of(client, "job-3")
        assert [one.result().status_code for one in slow] == [502, 502], "there are no such jobs"
        again = details_of(client, "job-3")
    assert refused.status_code == 503
    assert refused.json()["detail"] == f"{ray.url}: too many jobs are being read; try again"
    assert again.status_code == 200, "the refusal is not kept"


def test_open_pages_cost_a_head_no_more_than_one(app: FastAPI, olga: TestClient, ray: ScriptedRay) -> None:
    ray.add_job("job-1")
    paul = client_of(app, "paul")
    for client in (olga, paul, olga, paul):
        assert len(jobs_of(client)) == 1
    assert len([request for request in ray.received if request.path == "/api/jobs/"]) == 1
    add_connection("ray_one", conn_type="ray_jobs", host=ray.url, password="another-token")
    jobs_of(olga)
    assert len([request for request in ray.received if request.path == "/api/jobs/"]) == 2, "with other credentials"


def test_rows_are_masked_once_for_all_users(
    app: FastAPI, olga: TestClient, ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    masked = []
    monkeypatch.setattr(rows, "public_for", lambda job, _cluster: masked.append(job.submission_id) or str)
    ray.add_job("job-1", metadata=origin())
    ray.add_job("job-2", metadata=origin(PRIVATE_DAG))
    assert [len(jobs_of(client)) for client in (olga, client_of(app, "paul"), olga)] == [2, 1, 2]
    assert sorted(masked) == ["job-1", "job-2"]


def test_a_cluster_is_told_by_its_session_and_shows_what_is_free(olga: TestClient, ray: ScriptedRay) -> None:
    usage = {"usageByNode": {"a": {"CPU": [1.0, 4.0], "GPU": [0.5, 1.0]}, "b": {"CPU": [2.0, 4.0], "memory": [0, 9]}}}
    status = {"data": {"clusterStatus": {"loadMetricsReport": usage, "autoscalerReport": None}}}
    ray.script("GET", "/api/cluster_status", answers.as_json(status))
    answer = olga.get("/ray-jobs/api/connections/ray_one/jobs").json()
    assert (answer["address"], answer["session"]) == (ray.url, ray.session_name)
    assert answer["resources"] == {"nodes": 2, "CPU": {"free": 5.0, "total": 8.0}, "GPU": {"free": 0.5, "total": 1.0}}


# Clusters that do not answer


def test_an_unreachable_cluster_is_an_error_of_its_own(olga: TestClient, ray: ScriptedRay) -> None:
    port = free_port()
    add_connection("ray_gone", conn_type="ray_jobs", host=f"http://127.0.0.1:{port}", password="s3cret-token")
    answer = olga.get("/ray-jobs/api/connections/ray_gone/jobs")
    remove_connection("ray_gone")
    assert answer.status_code == 502
    assert "connection refused" in answer.json()["detail"]
    assert jobs_of(olga) == []


def test_a_wrong_connection_says_which_field(olga: TestClient) -> None:
    add_connection("ray_wrong", conn_type="ray_jobs", host="127.0.0.1", extra='{"verify": 7}')
    answer = olga.get("/ray-jobs/api/connections/ray_wrong/jobs")
    remove_connection("ray_wrong")
    assert answer.status_code == 502
    assert "'verify'" in answer.json()["detail"]


def test_an_error_of_the_cluster_shows_no_secret(olga: TestClient, ray: ScriptedRay) -> None:
    ray.script("GET", "/api/jobs/", answers.text(403, "Forbidden: s3cret-token"))
    answer = olga.get("/ray-jobs/api/connections/ray_one/jobs")
    assert answer.status_code == 502
    assert "the credentials were refused" in answer.json()["detail"]
    assert "s3cret-token" not in answer.text


def test_a_slow_cluster_is_given_up_and_holds_up_no_other(
    app: FastAPI, ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_rayjobs.page.rows.LIST_TIMEOUT", 2.0)
    ray.script("GET", "/api/jobs/", answers.default(delay=60), forever=True)
    slow = "/ray-jobs/api/connections/ray_one/jobs"
    with ScriptedRay() as quick, client_of(app, "olga") as client, ThreadPoolExecutor() as threads:
        add_connection("ray_quick", conn_type="ray_jobs", host=quick.url)
        waiting = [threads.submit(client.get, slow) for _ in range(4)]
        ray.wait_for(lambda: any(request.path == "/api/jobs/" for request in ray.received))
        assert jobs_of(client, "ray_quick") == []
        assert not any(each.done() for each in waiting)
        gone = [each.result() for each in waiting]
    remove_connection("ray_quick")
    assert {answer.status_code for answer in gone} == {504}
    assert ray.url in gone[0].json()["detail"]
    assert len([request for request in ray.received if request.path == "/api/jobs/"]) == 1, "all share one request"


# Clusters that KubeRay makes


@pytest.fixture
def kube(app: FastAPI, scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch) -> Iterator[Objects]:
    """A Kubernetes that the connection "kube" names, with the cluster of a task, whose head is the scripted server."""
    objects = Objects()
    status = {"jobDeploymentStatus": "Running", "rayClusterName": "etl-abcde", "dashboardURL": scripted_ray.url}
    objects.add(
        RAYJOBS, {"metadata": {"name": "etl", "namespace": "ray"}, "spec": {"jobId": "job-1"}, "status": status}
    )
    monkeypatch.setattr("airflow_provider_rayjobs.kubernetes.api.KubeApi", lambda *_, **__: objects)
    monkeypatch.setattr("airflow_provider_rayjobs.kubernetes.connect.KubeApi", lambda *_, **__: objects)
    add_connection("kube", conn_type="kubernetes")
    yield objects
    remove_connection("kube")


REF = ClusterRef("kube", "ray", "etl", "uid-1", history_url="https://h/{cluster}/{submission_id}", owned=True)
OF_TASK = {"submission_id": "job-1", "ray_cluster": REF.to_json(), "ray_job_history": "https://h/etl-abcde/job-1"}
CLUSTERS = "/ray-jobs/api/kubernetes/kube/clusters"


def clusters_of(client: TestClient) -> list[tuple[str, str]]:
    answer = client.get(CLUSTERS)
    assert answer.status_code == 200, answer.text
    assert answer.json()["problem"] == ""
    return [(row["dag_id"], row["state"]) for row in answer.json()["clusters"]]


def test_the_cluster_of_a_running_task_is_shown_to_those_who_may_read_both(app: FastAPI, kube: Objects) -> None:
    running: dict[str, Any] = {"xcoms": OF_TASK, "states": ("running", "running"), "run_id": "manual__2"}
    add_task("kube_a", **running)
    add_task(PRIVATE_DAG, **running)
    olga, paul, vera = (client_of(app, name) for name in ("olga", "paul", "vera"))
    assert olga.get("/ray-jobs/api/kubernetes").json() == ["kube"]
    assert set(clusters_of(olga)) == {("kube_a", "runs its job"), (PRIVATE_DAG, "runs its job")}
    assert clusters_of(paul) == [("kube_a", "runs its job")]
    assert vera.get("/ray-jobs/api/kubernetes").json() == []
    assert vera.get(CLUSTERS).status_code == 403
    calls = len(kube.calls)
    clusters_of(olga)
    assert len(kube.calls) == calls, "what Kubernetes said is shared"


def test_only_connections_to_kubernetes_are_used(olga: TestClient, kube: Objects) -> None:
    add_connection("web", conn_type="http", host="127.0.0.1")
    for conn_id in ("web", "nowhere"):
        assert olga.get(f"/ray-jobs/api/kubernetes/{conn_id}/clusters").status_code == 404
    assert olga.get("/ray-jobs/api/kubernetes/kubernetes_default/clusters").json() == {"clusters": [], "problem": ""}
    assert not kube.calls


def test_a_task_s_job_is_shown_while_its_cluster_lives_and_then_its_history(
    app: FastAPI, kube: Objects, scripted_ray: ScriptedRay
) -> None:
    olga, vera = client_of(app, "olga"), client_of(app, "vera")
    scripted_ray.add_job("job-1", metadata=origin("kube_b"))
    add_task("kube_b", page=f"{scripted_ray.url}/#/jobs/job-1", xcoms=OF_TASK, fields={"ray_conn_id": "ray_default"})
    found = job_of_task(olga, "kube_b")["job"]
    assert (found["status"], found["cluster"], found["connection"]) == ("RUNNING", "RayJob ray/etl", "kube")
    assert found["history_url"] == "https://h/etl-abcde/job-1"
    assert "permission to read connection 'kube'" in job_of_task(vera, "kube_b")["problem"]

    kube.of.clear()
    add_task(
        "kube_c", page=OF_TASK["ray_job_history"], xcoms={**OF_TASK, "ray_cluster": {**REF.to_json(), "uid": "u2"}}
    )
    gone = job_of_task(olga, "kube_c")
    assert gone["problem"].startswith("RayJob ray/etl is gone, with its cluster")
    assert gone["job"]["job_url"] == gone["job"]["history_url"] == "https://h/etl-abcde/job-1"


def test_while_the_cluster_comes_up_the_task_says_what_it_waits_for(olga: TestClient, kube: Objects) -> None:
    kube.of[RAYJOBS, "etl"]["status"] = {"jobDeploymentStatus": "Initializing"}
    add_task("kube_d", xcoms={key: OF_TASK[key] for key in ("submission_id", "ray_cluster")})
    found = job_of_task(olga, "kube_d")
    assert found["job"]["waits"]["text"].startswith("The cluster: waits: KubeRay has made no RayCluster yet")
    assert "problem" not in found
