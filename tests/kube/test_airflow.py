"""Clusters of tasks in a real Airflow: its tries, kills and clears, lost processes, and clusters of several tasks."""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_rayjobs.links import JOB_PAGE_XCOM
from tests.kube.clusters import PLAY, UNSCHEDULABLE
from tests.kube.dying_try import ROLE_OF_THE_DOCS
from tests.kube.heads import SharedHeads
from tests.support.airflow_env import AirflowEnv

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.kube.bench import Access, Kube
    from tests.kube.controller import KubeRay
    from tests.support.databases import Database
    from tests.support.ray_head import RayHead

pytestmark = pytest.mark.timeout(600)

BOTH = pytest.mark.parametrize("dag_id", ["kc_sync", "kc_deferred"])


@pytest.fixture(scope="module")
def access(kube: Kube) -> Access:
    """The namespace of the Airflow."""
    return kube.new_access(ROLE_OF_THE_DOCS)


@pytest.fixture(autouse=True)
def _nothing_of_other_tests(kube: Kube, access: Access) -> Iterator[None]:
    yield
    for job in rayjobs(access):
        kube.api.delete("rayjobs", access.namespace, job["metadata"]["name"])


@pytest.fixture(scope="module")
def airflow(
    access: Access, tmp_path_factory: pytest.TempPathFactory, new_database: Callable[[Path], Database]
) -> Iterator[AirflowEnv]:
    home = tmp_path_factory.mktemp("airflow")
    shutil.copytree(Path(__file__).with_name("dags"), home / "dags")
    # Each task imports the Kubernetes client; many at once would miss the short heartbeats of these Airflows.
    env = AirflowEnv(home, home / "dags", new_database(home), parallelism=3)
    env.start()
    env.add_connection("kube_bench", **access.connection())
    for dag_id in ("kc_sync", "kc_deferred", "kc_shared", "kc_many", "kc_dying", "kc_dying_shared"):
        env.wait_dag(dag_id)
    yield env
    env.stop()


def rayjobs(access: Access) -> list[dict[str, Any]]:
    return access.api.list("rayjobs", access.namespace)


def command(trace: Path, gate: Path | None = None) -> str:
    wait = "sleep 1" if gate is None else f"until [ -e {gate} ]; do sleep 0.3; done"
    return f"echo begun >> {trace}; echo hello from the 'driver'; {wait}; echo ended >> {trace}"


def wait_for(what: Callable[[], object], timeout: float = 90.0) -> None:
    deadline = time.monotonic() + timeout
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.3)


@BOTH
def test_a_task_runs_on_its_own_cluster(
    airflow: AirflowEnv, kuberay: KubeRay, kube: Kube, access: Access, tmp_path: Path, dag_id: str
) -> None:
    trace = tmp_path / "trace"
    airflow.trigger(dag_id, "plain", {"command": command(trace)})
    airflow.wait_task(dag_id, "plain", "job", "success", timeout=150)
    kuberay.wait(lambda: not kuberay.left(), timeout=30)
    assert trace.read_text().split() == ["begun", "ended"]
    assert len(kuberay.made) == 1
    log = airflow.task_log(dag_id, "plain", "job")
    assert "hello from the driver" in log
    assert "Made RayJob" in log
    assert "SUCCEEDED after" in log
    (job,) = rayjobs(access)
    names = f"{access.namespace}/{job['status']['rayClusterName']}/session_"
    link = airflow.xcom(dag_id, "plain", "job", key=JOB_PAGE_XCOM)
    assert link.startswith(f"https://history.example/{names}")
    assert link.endswith(f"/{job['spec']['jobId']}")


@BOTH
@pytest.mark.parametrize("how", ["failed", "success"])
def test_a_mark_while_the_cluster_comes_up_ends_it(
    airflow: AirflowEnv, kuberay: KubeRay, kube: Kube, access: Access, dag_id: str, how: Any
) -> None:
    run_id = f"waiting-{how}"
    airflow.trigger(dag_id, run_id, {"command": "true", "play": UNSCHEDULABLE})
    airflow.wait_log(dag_id, run_id, "job", "head pod unschedulable", timeout=90)
    airflow.set_task_state(dag_id, run_id, "job", how)
    wait_for(lambda: not kube.left(access.namespace), timeout=60)


@BOTH
def test_a_mark_while_the_job_runs_ends_both(
    airflow: AirflowEnv, kuberay: KubeRay, kube: Kube, access: Access, tmp_path: Path, dag_id: str
) -> None:
    trace = tmp_path / "trace"
    airflow.trigger(dag_id, "running", {"command": command(trace, tmp_path / "gate")})
    airflow.wait_log(dag_id, "running", "job", "hello from the driver", timeout=150)
    airflow.set_task_state(dag_id, "running", "job", "failed")
    wait_for(lambda: not kube.left(access.namespace), timeout=60)
    assert trace.read_text().split() == ["begun"]


@BOTH
def test_a_clear_while_the_cluster_comes_up_gets_another(
    airflow: AirflowEnv, kuberay: KubeRay, kube: Kube, access: Access, tmp_path: Path, dag_id: str
) -> None:
    trace = tmp_path / "trace"
    airflow.trigger(dag_id, "cleared", {"command": command(trace), "play": UNSCHEDULABLE})
    airflow.wait_log(dag_id, "cleared", "job", "head pod unschedulable", timeout=90)
    (old,) = rayjobs(access)
    airflow.clear(dag_id, "cleared", "job")

    def new() -> list[dict[str, Any]]:
        return [job for job in rayjobs(access) if job["metadata"]["uid"] != old["metadata"]["uid"]]

    wait_for(new)
    wait_for(lambda: [job for job in new() if job.get("status", {}).get("rayClusterName")])
    name = new()[0]["status"]["rayClusterName"]
    wait_for(lambda: access.api.find("rayclusters", access.namespace, name))
    kube.api.patch("rayclusters", access.namespace, name, {"metadata": {"annotations": {PLAY: None}}})
    airflow.wait_task(dag_id, "cleared", "job", "success", timeout=150)
    assert trace.read_text().split() == ["begun", "ended"]
    (left,) = rayjobs(access)
    assert left["metadata"]["uid"] != old["metadata"]["uid"]
    kuberay.wait(lambda: not kuberay.left(), timeout=30)


@pytest.mark.parametrize("when", ["waiting", "running"])
def test_a_lost_triggerer_changes_nothing(
    airflow: AirflowEnv, kuberay: KubeRay, kube: Kube, access: Access, tmp_path: Path, when: str
) -> None:
    trace, gate = tmp_path / "trace", tmp_path / "gate"
    play = UNSCHEDULABLE if when == "waiting" else ""
    airflow.trigger("kc_deferred", f"lost-{when}", {"command": command(trace, gate), "play": play})
    seen = "head pod unschedulable" if when == "waiting" else "hello from the driver"
    airflow.wait_log("kc_deferred", f"lost-{when}", "job", seen, timeout=150)
    airflow.kill_process("triggerer", signal.SIGKILL)
    (job,) = rayjobs(access)
    name = job["status"]["rayClusterName"]
    kube.api.patch("rayclusters", access.namespace, name, {"metadata": {"annotations": {PLAY: None}}})
    airflow.start_process("triggerer")
    gate.touch()
    airflow.wait_task("kc_deferred", f"lost-{when}", "job", "success", timeout=200)
    assert trace.read_text().split() == ["begun", "ended"]
    assert len(kuberay.made) == 1
    kuberay.wait(lambda: not kuberay.left(), timeout=30)


def test_several_tasks_share_a_cluster_and_runs_do_not_meet(
    airflow: AirflowEnv, kuberay: KubeRay, kube: Kube, access: Access, tmp_path: Path
) -> None:
    traces = {run_id: tmp_path / run_id for run_id in ("shared-1", "shared-2")}
    for run_id, trace in traces.items():
        airflow.trigger("kc_shared", run_id, {"command": command(trace)})
    for run_id, trace in traces.items():
        airflow.wait_task("kc_shared", run_id, "ray_cluster_down", "success", timeout=300)
        assert airflow.task("kc_shared", run_id, "second").state == "success"
        assert trace.read_text().split() == ["begun", "ended"] * 2
    assert len(kuberay.made) == 2
    wait_for(lambda: not kube.left(access.namespace))


def test_twenty_runs_side_by_side_do_not_meet(
    airflow: AirflowEnv, new_kuberay: Callable[..., KubeRay], ray_head: RayHead, access: Access, tmp_path: Path
) -> None:
    """Each run has a cluster of its own name; one real head stands for all of them."""
    kuberay = new_kuberay(SharedHeads(ray_head, seconds=10))
    gate, traces = tmp_path / "gate", {f"many-{number:02}": tmp_path / f"trace-{number}" for number in range(20)}
    for run_id, trace in traces.items():
        airflow.trigger("kc_many", run_id, {"command": f"echo this is '{run_id}'; {command(trace, gate)}"})
    wait_for(lambda: all(trace.exists() for trace in traces.values()), timeout=400)
    assert len(kuberay.left()) == len(set(kuberay.made)) == 20
    gate.touch()
    for run_id, trace in traces.items():
        airflow.wait_task("kc_many", run_id, "job", "success", timeout=400)
        assert trace.read_text().split() == ["begun", "ended"]
        tries = [airflow.task_log("kc_many", run_id, "job", number) for number in range(1, 5)]
        said = [line for text in tries for line in text.splitlines() if "this is many-" in line]
        assert {line.rpartition("this is ")[2][: len(run_id)] for line in said} == {run_id}
    jobs = rayjobs(access)
    assert sorted(job["metadata"]["annotations"]["airflow-provider-rayjobs/run-id"] for job in jobs) == list(traces)
    assert len({job["spec"]["jobId"] for job in jobs}) == 20
    kuberay.wait(lambda: not kuberay.left(), timeout=30)
    assert len(kuberay.made) == 20


def test_the_teardown_runs_when_a_task_fails(airflow: AirflowEnv, kuberay: KubeRay, kube: Kube, access: Access) -> None:
    airflow.trigger("kc_shared", "failing", {"command": "exit 3"})
    airflow.wait_task("kc_shared", "failing", "ray_cluster_down", "success", timeout=200)
    assert airflow.task("kc_shared", "failing", "first").state == "failed"
    wait_for(lambda: not kube.left(access.namespace))


@pytest.fixture
def mortal_airflow(airflow: AirflowEnv) -> Iterator[AirflowEnv]:
    """The Airflow; what the test kills is started again."""
    yield airflow
    for name, component in airflow.components.items():
        if component.main() is None:
            airflow.start_process(name)


def kill_all_of(airflow: AirflowEnv) -> None:
    """Kill the scheduler with the workers, the triggerer, the API server, and what else there is."""
    for component in airflow.components.values():
        component.signal(signal.SIGSTOP)  # none of them acts on another's death
    for name in airflow.components:
        airflow.kill_process(name, signal.SIGKILL)
    assert not any(component.members() for component in airflow.components.values())


def test_nothing_is_left_if_airflow_is_killed_while_clusters_come_up(
    mortal_airflow: AirflowEnv, kuberay: KubeRay, access: Access, tmp_path: Path
) -> None:
    airflow, trace = mortal_airflow, tmp_path / "trace"
    airflow.trigger("kc_dying", "coming", {"command": command(trace), "play": UNSCHEDULABLE})
    for task_id in ("sync", "deferred"):
        airflow.wait_log("kc_dying", "coming", task_id, "head pod unschedulable", timeout=90)
    kill_all_of(airflow)
    assert len(rayjobs(access)) == len(kuberay.left()) == 2
    kuberay.wait(lambda: not kuberay.left(), timeout=100)
    assert [job["status"]["reason"] for job in rayjobs(access)] == ["PreRunningDeadlineExceeded"] * 2
    assert not trace.exists()


def test_the_jobs_end_and_then_their_clusters_if_airflow_is_killed_while_they_run(
    mortal_airflow: AirflowEnv, kuberay: KubeRay, access: Access, tmp_path: Path
) -> None:
    airflow, trace, gate = mortal_airflow, tmp_path / "trace", tmp_path / "gate"
    airflow.trigger("kc_dying", "running", {"command": command(trace, gate)})
    for task_id in ("sync", "deferred"):
        airflow.wait_log("kc_dying", "running", task_id, "hello from the driver", timeout=150)
    kill_all_of(airflow)
    time.sleep(10)  # nothing ends a job that runs
    assert len(kuberay.left()) == 2
    gate.touch()
    kuberay.wait(lambda: not kuberay.left(), timeout=60)
    assert sorted(trace.read_text().split()) == ["begun", "begun", "ended", "ended"]
    assert [job["status"]["jobStatus"] for job in rayjobs(access)] == ["SUCCEEDED"] * 2
    assert len(kuberay.made) == 2


def test_nothing_is_left_if_airflow_is_killed_between_the_tasks_of_a_cluster(
    mortal_airflow: AirflowEnv, kuberay: KubeRay, access: Access, tmp_path: Path
) -> None:
    airflow, trace = mortal_airflow, tmp_path / "trace"
    airflow.trigger("kc_dying_shared", "between", {"command": command(trace)})
    airflow.wait_log("kc_dying_shared", "between", "between", "waiting", timeout=200)
    kill_all_of(airflow)
    assert len(kuberay.left()) == 1
    kuberay.wait(lambda: not kuberay.left(), timeout=150)
    assert trace.read_text().split() == ["begun", "ended"]
    assert [job["status"]["reason"] for job in rayjobs(access)] == ["PreRunningDeadlineExceeded"]
    assert len(kuberay.made) == 1
