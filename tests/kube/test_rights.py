"""Each single right of the documentation's Role is taken away: the task's log or its error names it."""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_rayjobs.exceptions import RayAuthError
from airflow_provider_rayjobs.hooks import RayJobHook
from airflow_provider_rayjobs.kubernetes.cluster import ClusterRef
from tests.kube.bench import cluster_spec
from tests.kube.clusters import INVALID_IMAGE_NAME, PLAY
from tests.kube.dying_try import ROLE_OF_THE_DOCS, tries_of
from tests.kube.heads import SharedHeads

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.kube.bench import Access, Kube
    from tests.kube.controller import KubeRay
    from tests.support.ray_head import RayHead
    from tests.support.tries import Tries

ROLE: dict[str, Any] = next(yaml.safe_load_all(ROLE_OF_THE_DOCS.read_text()))

#: Without these, the task fails.
NEEDED = [
    ("rayjobs", "create"),
    ("rayjobs", "get"),
    ("rayjobs", "list"),
    ("rayjobs", "patch"),
    ("secrets", "get"),
    ("services/proxy", "get"),
    ("services/proxy", "create"),
    ("services/proxy", "update"),
]
#: Without these, the task says less of a cluster that comes up.
EXPLAINING = [("rayclusters", "get"), ("pods", "list"), ("events", "list")]
#: Without these, a cluster or the record of a job stays longer.
ENDING = [("rayjobs", "delete"), ("services/proxy", "delete")]


@pytest.fixture
def kuberay(new_kuberay: Callable[..., KubeRay], ray_head: RayHead) -> KubeRay:
    """A KubeRay whose clusters take long enough for the task to say what it waits for."""
    return new_kuberay(SharedHeads(ray_head, seconds=4))


@pytest.fixture
def access_without(
    new_access: Callable[..., Access], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[str, str], Access]:
    """A function that makes a namespace, and a connection of a user that lacks one right."""

    def make(kind: str, verb: str) -> Access:
        rules = [
            {"apiGroups": rule["apiGroups"], "resources": [one], "verbs": left}
            for rule in ROLE["rules"]
            for one in rule["resources"]
            if (left := [name for name in rule["verbs"] if (one, name) != (kind, verb)])
        ]
        (tmp_path / "role.yaml").write_text(yaml.safe_dump({**ROLE, "rules": rules}))
        access = new_access(tmp_path / "role.yaml")
        monkeypatch.setenv("AIRFLOW_CONN_KUBE_BENCH", json.dumps(access.connection()))
        return access

    return make


def task(spec: dict[str, Any] | None = None, play: str = "", **arguments: Any) -> Tries:
    own = {"spec": spec or cluster_spec(), "access": "proxy", "kubernetes_conn_id": "kube_bench"}
    own |= {"annotations": {PLAY: play}, "start_timeout": 60}
    return tries_of(arguments.pop("entrypoint", "true"), own, f"run-{secrets.token_hex(4)}", **arguments)


def test_no_right_is_forgotten_here() -> None:
    rights = [(kind, verb) for rule in ROLE["rules"] for kind in rule["resources"] for verb in rule["verbs"]]
    assert sorted(NEEDED + EXPLAINING + ENDING) == sorted(rights)


@pytest.mark.parametrize(("kind", "verb"), NEEDED)
def test_a_needed_right_is_named_and_nothing_is_left(
    kuberay: KubeRay, kube: Kube, access_without: Callable[[str, str], Access], tmp_path: Path, kind: str, verb: str
) -> None:
    access = access_without(kind, verb)
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "main.py").write_text(f"print('{secrets.token_hex(8)}')")  # no head has this package yet
    spec = cluster_spec(authOptions={"mode": "token"}) if kind == "secrets" else None
    with pytest.raises(AirflowFailException, match=f"403.* a Role with the verb '{verb}' on '{kind}' there"):
        task(spec, runtime_env={"working_dir": str(tmp_path / "code")}).run()
    kuberay.wait(lambda: not kube.left(access.namespace))


@pytest.mark.parametrize(("kind", "verb"), EXPLAINING)
def test_a_right_that_only_explains_is_named_while_the_task_waits(
    kuberay: KubeRay, access_without: Callable[[str, str], Access], kind: str, verb: str
) -> None:
    access_without(kind, verb)
    one = task()
    assert one.run()
    assert f"the connection's user may not read {kind}, which would tell more" in "\n".join(one.lines)


def test_a_cluster_that_may_not_be_deleted_is_told_of_and_ends_at_the_deadline(
    kuberay: KubeRay, access_without: Callable[[str, str], Access]
) -> None:
    access = access_without("rayjobs", "delete")
    one = task(play=INVALID_IMAGE_NAME)
    with pytest.raises(AirflowFailException, match="the cluster can't start"):
        one.run()
    assert "a Role with the verb 'delete' on 'rayjobs' there" in one.lines[-1]
    (job,) = access.api.list("rayjobs", access.namespace)
    assert job["spec"]["preRunningDeadlineSeconds"] == 660


def test_the_record_of_a_job_that_may_not_be_deleted(
    kuberay: KubeRay, access_without: Callable[[str, str], Access]
) -> None:
    access_without("services/proxy", "delete")
    one = task(entrypoint="sleep 60", wait_for_completion=False)
    submission_id = one.run()
    hook = RayJobHook(cluster=ClusterRef.from_json(one.ti.xcoms["ray_cluster"]))
    with pytest.raises(RayAuthError, match="a Role with the verb 'delete' on 'services/proxy' there"):
        hook.delete_job(submission_id)
