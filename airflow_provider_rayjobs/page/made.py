"""Clusters that KubeRay makes for tasks of this Airflow: found in XComs, with what Kubernetes says of them."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from sqlalchemy import and_, select

from airflow_provider_rayjobs.exceptions import RayKubernetesError, RayKubernetesRefusedError
from airflow_provider_rayjobs.kubernetes.cluster import ClusterRef
from airflow_provider_rayjobs.kubernetes.waiting import look, why_not_ready
from airflow_provider_rayjobs.operators.own_cluster import CLUSTER_XCOM
from airflow_provider_rayjobs.page.rows import task_path
from airflow_provider_rayjobs.page.view import problem
from airflow_provider_rayjobs.text.safe_text import safe_value

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow_provider_rayjobs.cluster.connection import ClusterConnection
    from airflow_provider_rayjobs.kubernetes.calls import Flow

#: Maximum number of clusters on the page, the newest ones.
MAX_CLUSTERS = 100

#: Maximum seconds for what Kubernetes says of the clusters of one connection, and for one call.
KUBE_TIMEOUT, CALL_TIMEOUT = 15.0, 5.0

#: States of DAG runs whose clusters may live.
_LIVE_RUNS = ("queued", "running")

#: States of tasks whose own cluster is gone, or soon will be.
_ENDED_TASKS = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MadeCluster:
    """
    A cluster, and the task that had it made.

    :param ref: names the cluster.
    :param since: when the task asked for it, in Unix milliseconds.
    """

    ref: ClusterRef
    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    since: int


def made_clusters() -> list[MadeCluster]:
    """Return the clusters of DAG runs that have not ended, the newest first, without those of tasks that have ended."""
    same_task = and_(
        *(
            getattr(TaskInstance, name) == getattr(XComModel, name)
            for name in ("dag_id", "run_id", "task_id", "map_index")
        )
    )
    wanted = (
        select(XComModel, TaskInstance.state)
        .join(DagRun, DagRun.id == XComModel.dag_run_id)
        .outerjoin(TaskInstance, same_task)
        .where(XComModel.key == CLUSTER_XCOM, DagRun.state.in_(_LIVE_RUNS))
        .order_by(XComModel.timestamp.desc())
        .limit(MAX_CLUSTERS)
    )
    found = []
    with create_session() as session:
        for entry, state in session.execute(wanted):
            try:
                ref = ClusterRef.from_json(XComModel.deserialize_value(entry))
            except ValueError:  # of a task that stores something else under this key
                continue
            if not (ref.owned and state in _ENDED_TASKS):
                names = entry.dag_id, entry.run_id, entry.task_id, entry.map_index
                found.append(MadeCluster(ref, *names, since=int(entry.timestamp.timestamp() * 1000)))
    return found


@dataclass(frozen=True)
class Looked:
    """
    What Kubernetes said of some clusters.

    :param states: the state of each by its uid; empty for one that is gone. One that was not read is missing.
    :param problem: why not all were read.
    """

    states: dict[str, str]
    problem: str = ""


def look_at(refs: Sequence[ClusterRef], connection: Any) -> Looked:
    """
    Ask Kubernetes for the state of clusters, in bounded time. Blocks.

    :param refs: clusters of one connection.
    :param connection: this connection.
    """
    from airflow_provider_rayjobs.kubernetes.api import KubeApi

    states: dict[str, str] = {}
    try:
        api = KubeApi(refs[0].kubernetes_conn_id, _log, patience=0.0, timeout=CALL_TIMEOUT, connection=connection)
        api.run(_states(refs, states, time.monotonic() + KUBE_TIMEOUT))
    except RayKubernetesError as e:
        return Looked(states, problem(str(e)))
    wanted = {ref.uid for ref in refs}
    late = len(wanted - states.keys())
    said = f"{late} of {len(wanted)} clusters were not read within {KUBE_TIMEOUT:.0f} s" if late else ""
    return Looked(states, said)


def _states(refs: Sequence[ClusterRef], states: dict[str, str], end: float) -> Flow[None]:
    for ref in refs:
        if time.monotonic() > end:
            return
        try:
            states[ref.uid] = yield from _state(ref)
        except RayKubernetesRefusedError as e:  # for instance, a right is missing in one namespace
            states[ref.uid] = problem(str(e))


def _state(ref: ClusterRef) -> Flow[str]:
    sight = yield from look(ref.namespace, ref.name, ref.uid)
    if sight.lease is None:
        return ""
    if sight.lease.is_ready:
        return "ready" if not sight.lease.job_id else "runs its job"
    if sight.lease.is_spent:
        return f"its job has ended ({sight.lease.job_status or sight.lease.state})"
    if sight.lease.is_live:
        return f"waits: {why_not_ready(sight).text}"
    return why_not_ready(sight).text


def reach(ref: ClusterRef, connection: Any) -> ClusterConnection:
    """
    Return how to talk to a cluster. Blocks.

    :raises RayClusterStartError: the cluster is gone.
    :raises RayKubernetesError: Kubernetes can't be asked, or refuses.
    """
    from airflow_provider_rayjobs.kubernetes.connect import connect

    return connect(ref, _log, patience=0.0, timeout=CALL_TIMEOUT, connection=connection)


def shown(clusters: Sequence[MadeCluster], looked: Looked, hide: Callable[[str], str]) -> dict[str, Any]:
    """
    Return clusters as JSON; those that are gone are left out.

    :param hide: removes secrets from text.
    """
    rows = [
        {
            "name": one.ref.name,
            "namespace": one.ref.namespace,
            "dag_id": one.dag_id,
            "run_id": one.run_id,
            "task_id": one.task_id,
            "map_index": one.map_index,
            "shared": not one.ref.owned,
            "since": one.since,
            "state": hide(looked.states.get(one.ref.uid, "not known")),
            "task_url": task_path(one.dag_id, one.run_id, one.task_id, one.map_index),
        }
        for one in clusters
        if looked.states.get(one.ref.uid) != ""
    ]
    safe: dict[str, Any] = safe_value({"clusters": rows, "problem": looked.problem})
    return safe
