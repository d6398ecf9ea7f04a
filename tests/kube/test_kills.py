"""A task's process is killed with SIGKILL, at each moment: the next try goes on, and without one nothing is left."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.kube.bench import cluster_spec
from tests.kube.controller import ENDED
from tests.kube.dying_try import ROLE_OF_THE_DOCS, tries_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.kube.bench import Access
    from tests.kube.controller import KubeRay

PACKAGE = "airflow_provider_rayjobs"

#: What the process calls when it is killed, and whether it is killed before or after that.
MOMENTS = {
    "created": (f"{PACKAGE}.operators.own_cluster:MakesCluster._note_cluster", "before"),
    "waiting": (f"{PACKAGE}.kubernetes.waiting:WaitLog.note", "after"),
    "ready": (f"{PACKAGE}.operators.submit:RaySubmitJobOperator._submit", "before"),
    "submitted": (f"{PACKAGE}.operators.own_cluster:MakesCluster._hand_over", "before"),
    "running": (f"{PACKAGE}.operators.submit:RaySubmitJobOperator._follow", "before"),
    "ended": (f"{PACKAGE}.operators.submit:RaySubmitJobOperator._outcome", "before"),
}


@pytest.fixture
def access(new_access: Callable[..., Access]) -> Access:
    """A new namespace, with the rights that the documentation asks for."""
    return new_access(ROLE_OF_THE_DOCS)


def killed(target: str, when: str, given: dict[str, Any]) -> None:
    """Run a try in a process of its own, which is killed."""
    command = [sys.executable, "-m", "tests.kube.dying_try", json.dumps({**given, "target": target, "when": when})]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, env=dict(os.environ), capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]


def task(kube_conn_id: str, trace: Path, seconds: int = 4, **cluster: Any) -> dict[str, Any]:
    own = {"spec": cluster_spec(), "access": "proxy", "kubernetes_conn_id": kube_conn_id, "keep_seconds": 5, **cluster}
    return {
        "entrypoint": f"echo begun >> {trace}; sleep {seconds} && echo ended >> {trace}",
        "cluster": own,
        "run_id": f"run-{secrets.token_hex(4)}",
    }


@pytest.mark.parametrize("moment", MOMENTS)
def test_the_next_try_goes_on_with_the_one_cluster_and_the_one_job(
    kuberay: KubeRay, access: Access, kube_conn_id: str, tmp_path: Path, moment: str
) -> None:
    trace = tmp_path / "trace"
    given = task(kube_conn_id, trace, start_timeout=90)
    killed(*MOMENTS[moment], given)
    after = tries_of(**given)
    after.context()  # the try that was killed
    submission_id = after.run()
    assert trace.read_text().split() == ["begun", "ended"]
    assert len(kuberay.made) == 1
    (job,) = access.api.list("rayjobs", access.namespace)
    assert job["spec"]["jobId"] == submission_id
    kuberay.wait(lambda: not kuberay.left())


#: The moments at which there is no job yet.
BEFORE_THE_JOB = {"created", "waiting", "ready"}


@pytest.mark.parametrize("moment", MOMENTS)
def test_without_a_next_try_the_job_ends_and_then_the_cluster(
    kuberay: KubeRay, access: Access, kube_conn_id: str, tmp_path: Path, moment: str
) -> None:
    """If KubeRay does not know the job, it ends the cluster at the deadline, and else after the job's end."""
    trace = tmp_path / "trace"
    killed(*MOMENTS[moment], task(kube_conn_id, trace, start_timeout=30))
    states = kuberay.states[access.namespace, access.api.list("rayjobs", access.namespace)[0]["metadata"]["name"]]
    kuberay.wait(lambda: states and states[-1][1] in ENDED, timeout=100)
    kuberay.wait(lambda: not kuberay.left())
    assert len(kuberay.made) == 1
    assert not processes_of(trace)
    ran = trace.read_text().split() if trace.exists() else []
    assert ran == ([] if moment in BEFORE_THE_JOB else ["begun", "ended"])
    (job,) = access.api.list("rayjobs", access.namespace)
    known = moment in {"running", "ended"}
    assert job["status"]["jobDeploymentStatus"] == ("Complete" if known else "Failed")
    assert job["status"].get("reason") == (None if known else "PreRunningDeadlineExceeded")


def test_a_job_that_kuberay_was_not_told_of_ends_with_the_cluster(
    kuberay: KubeRay, kube_conn_id: str, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    killed(*MOMENTS["submitted"], task(kube_conn_id, trace, seconds=3600, start_timeout=30))
    kuberay.wait(trace.exists)
    assert processes_of(trace)
    kuberay.wait(lambda: not kuberay.left(), timeout=100)
    kuberay.wait(lambda: not processes_of(trace), timeout=30)
    assert trace.read_text().split() == ["begun"]
    assert len(kuberay.made) == 1


def processes_of(trace: Path) -> list[str]:
    """Return the pids of the processes that have a path in their arguments."""
    arguments = ((file.parent.name, _read(file)) for file in Path("/proc").glob("[0-9]*/cmdline"))
    return [pid for pid, text in arguments if str(trace).encode() in text]


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:  # it has just ended
        return b""


def test_without_a_next_try_nothing_is_left_of_many(cheap_kuberay: KubeRay, kube_conn_id: str, tmp_path: Path) -> None:
    for moment, where in MOMENTS.items():
        killed(*where, task(kube_conn_id, tmp_path / moment, start_timeout=30))
    assert len(cheap_kuberay.made) == len(MOMENTS)
    cheap_kuberay.wait(lambda: not cheap_kuberay.left(), timeout=90)
