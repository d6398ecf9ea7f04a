"""
The part of operators that have a KubeRay cluster made for them, for the job or for several tasks.

A cluster comes up before there is a job: the task waits for it here, or deferred. Until KubeRay knows the job, whatever
ends the task also ends the cluster.
"""

from __future__ import annotations

import copy
import time
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred

from airflow_provider_rayjobs.exceptions import (
    RayClusterStartError,
    RayJobError,
    RayJobInterruptedError,
    RayJobLostError,
    RayJobResultError,
    RayJobsError,
    RayJobTimeoutError,
    RayKubernetesError,
)
from airflow_provider_rayjobs.kubernetes.given import is_to_be_made
from airflow_provider_rayjobs.tasks.rendering import RendersTexts, rendered_pieces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow.providers.common.compat.sdk import BaseOperator, Context

    from airflow_provider_rayjobs.following.events import JobEvent
    from airflow_provider_rayjobs.kubernetes.api import KubeApi
    from airflow_provider_rayjobs.kubernetes.cluster import ClusterRef
    from airflow_provider_rayjobs.kubernetes.lease import Lease
    from airflow_provider_rayjobs.tasks.guard import JobGuard
    from airflow_provider_rayjobs.tasks.identity import TaskIdentity
    from airflow_provider_rayjobs.tasks.own_cluster import OwnCluster, Wish

    Operator = BaseOperator
else:
    Operator = object

#: Seconds to wait for Kubernetes when a task that has failed ends its cluster.
END_PATIENCE = 10.0

#: XCom key of what names the task's cluster.
CLUSTER_XCOM = "ray_cluster"


#: The outcome of a job by the status that KubeRay saw last.
_OUTCOMES = {"SUCCEEDED": "succeeded", "FAILED": "failed", "STOPPED": "stopped"}


class MakesCluster(RendersTexts, Operator):
    """Mixin: a cluster is made for the task, if its ``cluster`` is a :class:`KubeRayCluster`."""

    cluster: Any
    deferrable: bool
    stop_on_kill: bool = True
    #: Whether the cluster ends with the task's job; if not, it is for several tasks.
    _cluster_is_owned = True
    _cluster_ref: ClusterRef | None = None
    #: The job that KubeRay knows, and with which it ends the cluster; empty if it knows none.
    _cluster_job = ""
    #: Whether the task needs the head after the job's end, to read the job's result.
    read_result = False
    _guard: JobGuard | None

    if TYPE_CHECKING:

        def _new_guard(self, context: Context) -> JobGuard: ...

    def _do_render_template_fields(self, parent: Any, *args: Any, **kwargs: Any) -> None:
        """Render, and leave the DAG author's object as it is: mapped tasks may share it."""
        if parent is self and is_to_be_made(self.cluster):
            self.cluster = copy.copy(self.cluster)
            self._register_cluster_env()
        super()._do_render_template_fields(parent, *args, **kwargs)
        if parent is self:
            self._register_cluster_env()

    def _register_cluster_env(self) -> None:
        """Have Airflow mask what the spec gives its pods as secret variables: it shows the rendered spec."""
        from airflow_provider_rayjobs.compat import masking
        from airflow_provider_rayjobs.kubernetes.manifest import env_vars_in

        if is_to_be_made(self.cluster):
            for env_vars in env_vars_in(self.cluster.spec):
                masking.register_env_vars(env_vars)

    @property
    def makes_cluster(self) -> bool:
        """Whether a cluster is made for this task."""
        return is_to_be_made(self.cluster)

    def _use_cluster(self, ref: ClusterRef | None, job_id: str = "") -> None:
        """
        Use a cluster from now on.

        :param job_id: the job that KubeRay knows.
        """
        self._cluster_ref, self._cluster_job = ref, job_id
        self.__dict__.pop("hook", None)

    def _recall_cluster(self, context: Context) -> ClusterRef | None:
        """Find the task's own cluster again, in an instance that has not made it."""
        from airflow_provider_rayjobs.kubernetes.cluster import ClusterRef
        from airflow_provider_rayjobs.tasks import context as task_context

        if self._cluster_ref is None and self.makes_cluster:
            try:
                self._use_cluster(ClusterRef.from_json(task_context.own_xcom(context, CLUSTER_XCOM)))
            except ValueError:
                return None
        return self._cluster_ref

    def _wish(self, context: Context) -> Wish:
        from airflow_provider_rayjobs.tasks.own_cluster import read_wish

        try:
            return read_wish(self.cluster, self._cluster_file(context))
        except (OSError, TypeError, ValueError) as e:
            raise AirflowFailException(f"No cluster was made: {e}") from e

    def _cluster_file(self, context: Context) -> str | None:
        """Return the rendered content of the file that has the cluster's spec, if the spec is given so."""
        if not (name := self.cluster.file):
            return None
        environment: Any = self.get_template_env()
        if Path(name).is_absolute():
            template = environment.from_string(Path(name).read_text(encoding="utf-8"))
        else:
            from jinja2 import TemplateNotFound

            try:
                template = environment.get_template(name)
            except TemplateNotFound as e:
                raise ValueError(f"spec: the file {name!r} is not in the DAG's folders of templates") from e
        return "".join(map(str, rendered_pieces(template, context)))

    def _own_cluster(
        self, context: Context, identity: TaskIdentity, guard: JobGuard, **options: Any
    ) -> tuple[OwnCluster, Callable[[], None]]:
        """Return the task's cluster, and what ends those of its clusters that have no job."""
        from airflow_provider_rayjobs.kubernetes.api import KubeApi
        from airflow_provider_rayjobs.tasks.own_cluster import OwnCluster

        wish = self._wish(context)

        def own(api: KubeApi) -> OwnCluster:
            return OwnCluster(api, wish, identity, self.log, owned=self._cluster_is_owned, **options)

        def end_all(patience: float, *, with_jobs: bool) -> None:
            own(KubeApi(wish.kubernetes_conn_id, self.log, patience=patience)).end_all(with_jobs=with_jobs)

        guard.stop_earlier = partial(end_all, 0.0, with_jobs=self.stop_on_kill)  # in a process that is asked to end
        made = own(KubeApi(wish.kubernetes_conn_id, self.log, breakable=guard.breakable))
        return made, partial(end_all, END_PATIENCE, with_jobs=False)

    def _bring_up(
        self,
        context: Context,
        identity: TaskIdentity,
        guard: JobGuard,
        *,
        reattach: bool,
        results: bool,
        **options: Any,
    ) -> Lease:
        """
        Take over the cluster of an earlier try, or make one, and wait until it takes jobs.

        :param reattach: whether a cluster of an earlier try may be taken over.
        :param results: whether a RayJob whose job has SUCCEEDED may be returned.
        :raises TaskDeferred: the trigger waits.
        """
        from airflow_provider_rayjobs.compat import masking
        from airflow_provider_rayjobs.kubernetes.waiting import WaitLog, until_ready

        self._use_cluster(None)  # that of an earlier `execute` of this try is another one
        own, end_all = self._own_cluster(context, identity, guard, **options)
        with self._ending_cluster_of_failure(end_all, guard):
            guard.before_submission()
            lease = own.settle(reattach=reattach, results=results)
            ref = own.ref(lease)
            self._use_cluster(ref, lease.job_id)
            self._note_cluster(context, ref, identity)
            if lease.is_ready or lease.has_succeeded:
                return lease
            deadlines = {"start_timeout": own.start_deadline(lease), **self._execution_deadline(context)}
            if self.deferrable:
                self._defer_start(ref, deadlines, identity)
            wait_log = WaitLog(self.log, masking.public)
            lease = self._kube_api(ref).run(until_ready(ref, deadlines, wait_log))
            self.log.info("The cluster takes jobs")
            return lease

    def _note_cluster(self, context: Context, ref: ClusterRef, identity: TaskIdentity) -> None:
        """Store what names the cluster, and who waits for it: a trigger that is cancelled asks for that."""
        from airflow_provider_rayjobs.tasks import context as task_context

        task_context.push_xcom(context, CLUSTER_XCOM, ref.to_json())
        task_context.push_xcom(context, task_context.SUBMISSION_ID_XCOM, identity.submission_id())

    def _execution_deadline(self, context: Context) -> dict[str, float]:
        """Return when ``execution_timeout`` has passed: Airflow 3 does not enforce it while the task is deferred."""
        started = context["ti"].start_date
        if not self.deferrable or self.execution_timeout is None or started is None:
            return {}
        return {"execution_timeout": started.timestamp() + self.execution_timeout.total_seconds()}

    def _defer_start(self, ref: ClusterRef, deadlines: dict[str, float], identity: TaskIdentity) -> None:
        from airflow_provider_rayjobs.kubernetes.api import PATIENCE
        from airflow_provider_rayjobs.tasks.context import DEFERRAL_MARGIN
        from airflow_provider_rayjobs.triggers import RayClusterStartTrigger

        trigger = RayClusterStartTrigger(
            cluster=ref.to_json(),
            deadlines=deadlines,
            submission_id=identity.submission_id(),
            number=identity.number,
        )
        left = max(min(deadlines.values()) - time.time(), 0)
        timeout = timedelta(seconds=left + PATIENCE + DEFERRAL_MARGIN)
        self.defer(trigger=trigger, method_name="execute_on_cluster", timeout=timeout)

    def _started(self, context: Context, event: Any) -> int:
        """
        Check what the trigger that waited for the cluster has sent.

        :return: the number of the submission within its try.
        :raises RayKubernetesRefusedError: the cluster can't start.
        :raises RayClusterStartError: it did not start in time.
        """
        from airflow_provider_rayjobs.kubernetes.start_event import StartEvent

        started = StartEvent.from_json(event)
        ref = self._recall_cluster(context)
        for line in started.waited:  # Airflow keeps only the lines of a task's last deferral
            self.log.info("The cluster waited: %s", line)
        try:
            started.raise_if_failed()
            if ref is None:
                raise RayClusterStartError("The task's XCom that names its cluster is gone")
        except RayJobsError:
            self._end_cluster()
            raise
        self.log.info("The cluster takes jobs")
        return started.number

    def _read_cluster_job(self) -> str:
        """
        Ask which job KubeRay knows: another process of the task may have submitted it.

        :raises RayClusterStartError: the cluster's RayJob is gone.
        """
        from airflow_provider_rayjobs.kubernetes.lease import read

        if not self.makes_cluster or (ref := self._cluster_ref) is None:
            return ""
        lease = self._kube_api(ref).run(read(ref.namespace, ref.name, ref.uid))
        self._cluster_job = lease.job_id if lease else ""
        if lease is None:
            raise RayClusterStartError(f"{ref} is gone, with its cluster; a retry gets a new cluster")
        return self._cluster_job

    def _hand_over(self, submission_id: str) -> None:
        """Tell KubeRay which job the cluster is for: from then on it ends the cluster with the job."""
        from airflow_provider_rayjobs.kubernetes.lease import set_job

        if not self.makes_cluster or (ref := self._cluster_ref) is None:
            return
        keep, reads = self._keep_seconds, self.read_result
        flow = set_job(ref.namespace, ref.name, ref.uid, submission_id, keep, reads_result=reads)
        # If Kubernetes can't be asked, a next try takes over the cluster with this job.
        self._cluster_job = submission_id
        try:
            lease = self._kube_api(ref).run(flow)
            ended = not lease.is_live and lease.job_status not in _OUTCOMES
            if lease.is_deleting or ended or lease.has_lost_job:
                raise RayClusterStartError(f"{ref}: KubeRay has ended the cluster meanwhile: {lease.end_reason}")
        except RayClusterStartError:
            self._cluster_job = ""
            raise

    @property
    def _keep_seconds(self) -> int:
        from airflow_provider_rayjobs.tasks.arguments import as_number

        return int(as_number(self.cluster.keep_seconds))

    def _kube_api(self, ref: ClusterRef, **options: Any) -> KubeApi:
        from airflow_provider_rayjobs.kubernetes.api import KubeApi

        breakable = nullcontext if self._guard is None else self._guard.breakable
        return KubeApi(ref.kubernetes_conn_id, self.log, **{"breakable": breakable, **options})

    def _as_kuberay_saw(self, event: JobEvent) -> JobEvent:
        """Return a job's event; if the cluster is gone, KubeRay may have seen the job's end before it ended that."""
        from airflow_provider_rayjobs.following.events import Outcome
        from airflow_provider_rayjobs.kubernetes.lease import read
        from airflow_provider_rayjobs.tasks.earlier_tries import NewJobNeededError

        ref = self._cluster_ref
        if not self.makes_cluster or ref is None or event.outcome not in (Outcome.UNREACHABLE, Outcome.LOST):
            return event
        lease = self._kube_api(ref).run(read(ref.namespace, ref.name, ref.uid))
        if lease is None or lease.job_id != event.submission_id or lease.job_status not in _OUTCOMES:
            return event
        self.log.info("%s has ended; KubeRay saw its job end %s", ref, lease.job_status)
        if lease.job_status == "SUCCEEDED" and self.read_result:
            if event.reattached_at:
                raise NewJobNeededError
            raise RayJobResultError(
                f"{ref}: Ray job {event.submission_id} has SUCCEEDED, but its cluster has ended before the task could "
                "read the job's result; set a longer keep_seconds",
                submission_id=event.submission_id,
            )
        return replace(event, outcome=Outcome(_OUTCOMES[lease.job_status]), detail="", message=lease.end_reason)

    def _end_cluster(self) -> None:
        """End the task's own cluster; errors are logged."""
        from airflow_provider_rayjobs.kubernetes.connect import end

        if self._cluster_ref is None:
            return
        try:
            if end(self._cluster_ref, self.log, patience=END_PATIENCE):
                self.log.info("Ended the cluster")
        except RayJobsError as e:
            self.log.error("%s could not be ended: %s", self._cluster_ref, e)

    @contextmanager
    def _ending_cluster_of_failure(self, end: Callable[[], object], guard: JobGuard) -> Iterator[None]:
        """
        End the cluster if the block fails and nothing else would end it soon.

        A deferral, and a process that is asked to end, leave it to the trigger, the next try or the guard.
        """
        try:
            yield
        except (TaskDeferred, RayJobInterruptedError):
            raise
        except Exception as e:  # any error must not leave the cluster behind; it is raised again
            if self.makes_cluster and self._is_left_behind(e, guard):
                if guard.still_runs_task():  # else another process may use it, or KubeRay's deadline ends it
                    end()
            elif isinstance(e, RayJobError):  # the task has seen the job's end
                self._keep_cluster()
            raise

    def _is_left_behind(self, error: Exception, guard: JobGuard) -> bool:
        """Whether a task that fails leaves a cluster that KubeRay does not end together with its job."""
        from airflow_provider_rayjobs.tasks.guard import REFUSALS

        if not self._cluster_job or isinstance(error, RayJobLostError):
            return True
        if isinstance(error, RayJobTimeoutError):
            return error.may_run
        if isinstance(error, RayJobError):  # the task has seen the job's end
            return False
        # The job goes on, but nobody follows it any more.
        return isinstance(error, (AirflowFailException, *REFUSALS)) or not guard.has_next_try

    def _keep_cluster(self) -> None:
        """Let KubeRay end the cluster ``keep_seconds`` after the job's end: the task has read all that it needs."""
        from airflow_provider_rayjobs.kubernetes.lease import set_keep

        ref = self._cluster_ref
        if not self.makes_cluster or not self._cluster_job or ref is None:
            return
        try:
            flow = set_keep(ref.namespace, ref.name, ref.uid, self._keep_seconds)
            # A kill must not interrupt this: the task has its result.
            self._kube_api(ref, patience=END_PATIENCE, breakable=nullcontext).run(flow)
        except RayKubernetesError as e:
            self.log.warning("%s: its cluster stays a little longer than keep_seconds: %s", ref, e)
