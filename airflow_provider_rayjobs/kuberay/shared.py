"""A cluster for several tasks of a DAG run: a setup task makes it, a teardown task ends it."""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, BaseOperator, conf

from airflow_provider_rayjobs.exceptions import RayClusterStartError, RayKubernetesError
from airflow_provider_rayjobs.kubernetes.cluster import ClusterRef, KubeRayCluster
from airflow_provider_rayjobs.operators.own_cluster import MakesCluster

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_rayjobs.tasks.guard import JobGuard


class RayClusterUpOperator(MakesCluster, BaseOperator):
    """
    Has KubeRay make a cluster for several tasks of a DAG run, and waits until it takes jobs.

    Used by :func:`ray_cluster`. A retry after a lost worker takes over the cluster that is there; a user's clear gets a
    new one. Killed before the cluster is ready, the task ends it.

    :param cluster: the cluster (templated).
    :param deferrable: whether to wait in the triggerer, without holding a worker slot.
    :return: what names the cluster, as XCom; it has no secret.
    :raises TypeError: if ``cluster`` is no :class:`KubeRayCluster`.
    """

    template_fields: Sequence[str] = ("cluster",)
    ui_color = "#dcebff"
    _cluster_is_owned = False
    #: Id of the task that ends the cluster.
    _down_id = ""

    def __init__(
        self,
        *,
        cluster: KubeRayCluster,
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        given: Any = cluster
        if not isinstance(given, KubeRayCluster):
            raise TypeError(f"cluster must be a KubeRayCluster, not {type(given).__name__}")
        self.cluster = cluster
        if deferrable is None:
            deferrable = conf.getboolean("operators", "default_deferrable", fallback=False)
        self.deferrable = deferrable
        self._guard: JobGuard | None = None
        self._killed = False

    def execute(self, context: Context) -> Any:
        """Make the cluster, or take over the one that an earlier try left, and wait until it takes jobs."""
        from airflow_provider_rayjobs.tasks import context as task_context
        from airflow_provider_rayjobs.tasks.guard import refused_for_good

        with refused_for_good():
            if self.deferrable:
                task_context.note_deferral(context)
            identity = task_context.task_identity(context, "")
            guard = self._new_guard(context)
            with guard.guarding():
                self._bring_up(context, identity, guard, reattach=True, results=False)
                return self._hold()

    def execute_on_cluster(self, context: Context, event: Any = None) -> Any:
        """
        End the task as the trigger that waited for the cluster says.

        :param event: a :class:`~airflow_provider_rayjobs.kubernetes.start_event.StartEvent` as JSON.
        """
        from airflow_provider_rayjobs.tasks.guard import refused_for_good

        with refused_for_good():
            self._started(context, event)
            guard = self._new_guard(context)
            guard.stop_earlier = self._end_cluster
            with guard.guarding():
                return self._hold()

    def _hold(self) -> dict[str, Any]:
        """
        Let the cluster live for its ``lifetime``, as it is ready; until then a nearer deadline ends it.

        :return: what names the cluster.
        """
        from airflow_provider_rayjobs.kubernetes.lease import set_deadline
        from airflow_provider_rayjobs.tasks.arguments import as_number

        ref = self._cluster_ref
        assert ref is not None  # noqa: S101 - for mypy
        seconds = math.ceil(as_number(self.cluster.lifetime))
        try:
            lease = self._kube_api(ref).run(set_deadline(ref.namespace, ref.name, ref.uid, seconds))
            if not lease.is_live:
                raise RayClusterStartError(f"{ref}: KubeRay has ended the cluster meanwhile: {lease.end_reason}")
        except RayKubernetesError:
            if self._guard is not None and self._guard.still_runs_task():  # else a next try may have taken it over
                self._end_cluster()
            raise
        self.log.info("KubeRay ends the cluster %d s after its start, if no teardown has", seconds)
        return ref.to_json()

    def _new_guard(self, context: Context) -> JobGuard:
        from airflow_provider_rayjobs.hooks import RayJobHook
        from airflow_provider_rayjobs.tasks.guard import JobGuard
        from airflow_provider_rayjobs.tasks.killed import TaskProcess

        guard = JobGuard(RayJobHook(), self.log, TaskProcess(context["ti"]), enabled=True)
        guard.killed = self._killed
        self._guard = guard
        return guard

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume after a deferral; if Airflow ended it by its own timeout, the cluster is ended first."""
        from airflow_provider_rayjobs.tasks import context as task_context

        if task_context.resumes_earlier_try(context):
            return self.execute(context)
        if next_method == "__fail__":
            self._recall_cluster(context)
            self._end_cluster()
        return super().resume_execution(next_method, next_kwargs, context)

    def update_relative(self, other: Any, upstream: bool = True, edge_modifier: Any = None) -> None:
        """
        Have the teardown wait for each task that uses the cluster.

        Airflow calls this for each task that takes this task's output. Its own setups and teardowns leave out mapped
        tasks, and those after the block.
        """
        super().update_relative(other, upstream, edge_modifier)
        if not upstream and self._down_id and getattr(other, "node_id", None) != self._down_id:
            other.set_downstream(self.dag.get_task(self._down_id))

    def on_kill(self) -> None:
        """Note that the process is asked to end, and interrupt the wait; the cluster is ended if the task was."""
        self._killed = True
        if self._guard is not None:
            self._guard.kill()


class RayClusterDownOperator(BaseOperator):
    """
    Ends the cluster of :class:`RayClusterUpOperator`; used by :func:`ray_cluster`.

    :param cluster: what that task returned (templated).
    """

    template_fields: Sequence[str] = ("cluster",)
    ui_color = "#dcebff"

    def __init__(self, *, cluster: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cluster = cluster

    def execute(self, context: Context) -> None:
        """Delete the RayJob, and so its cluster; one that is gone is fine."""
        from airflow_provider_rayjobs.kubernetes.api import PATIENCE
        from airflow_provider_rayjobs.kubernetes.connect import end
        from airflow_provider_rayjobs.tasks.guard import refused_for_good

        if self.cluster is None:
            self.log.info("The setup task has made no cluster")
            return
        with refused_for_good():
            try:
                ref = ClusterRef.from_json(self.cluster)
            except ValueError as e:
                raise AirflowFailException(str(e)) from e
            ended = end(ref, self.log, patience=PATIENCE)
        self.log.info("Ended the cluster: %s" if ended else "%s is gone already", ref)


@contextmanager
def ray_cluster(
    cluster: KubeRayCluster,
    *,
    task_id: str = "ray_cluster",
    deferrable: bool | None = None,
    on_failure_fail_dagrun: bool = False,
    **kwargs: Any,
) -> Iterator[Any]:
    """
    Make a cluster for the tasks of the block: a setup task makes it, and a teardown task ends it.

    Each DAG run has its own cluster. The teardown runs however the tasks end. If it never runs, KubeRay ends the
    cluster after its ``lifetime``. If a task of the block is cleared with its downstream tasks, Airflow also clears the
    setup and the teardown; cleared alone, the task finds no cluster.

    Example::

        with ray_cluster(KubeRayCluster("/opt/airflow/clusters/cpu.yaml", namespace="ray")) as cluster:
            prepare = RaySubmitJobOperator(task_id="prepare", entrypoint="python prepare.py", cluster=cluster)
            train = RaySubmitJobOperator(task_id="train", entrypoint="python train.py", cluster=cluster)
            prepare >> train

    :param cluster: the cluster. Its ``keep_seconds`` does not count: the teardown ends it.
    :param task_id: id of the setup task; that of the teardown has ``_down`` appended.
    :param deferrable: whether the setup task waits in the triggerer, without holding a worker slot.
    :param on_failure_fail_dagrun: whether the DAG run fails if the teardown fails.
    :param kwargs: other arguments of both tasks, such as ``retries``.
    :return: what the tasks of the block take as ``cluster``.
    """
    up = RayClusterUpOperator(task_id=task_id, cluster=cluster, deferrable=deferrable, **kwargs)
    up.as_setup()  # type: ignore[no-untyped-call]  # of Airflow
    down = RayClusterDownOperator(task_id=f"{task_id}_down", cluster=up.output, **kwargs)
    up._down_id = down.task_id
    with down.as_teardown(setups=up, on_failure_fail_dagrun=on_failure_fail_dagrun):
        yield up.output
