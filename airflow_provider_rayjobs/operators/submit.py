"""
The operator that submits a Ray job and follows it.

DAG files import this module, so it loads only what the class body needs; methods import the rest.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowTaskTimeout,
    BaseOperator,
    TaskDeferred,
    conf,
    get_current_context,
)

from airflow_provider_rayjobs.cluster.fields import DEFAULT_CONN_ID
from airflow_provider_rayjobs.exceptions import (
    RayClusterStartError,
    RayJobFailedError,
    RayJobInterruptedError,
    RayJobsError,
    RayPackageError,
)
from airflow_provider_rayjobs.kubernetes.given import check_one_cluster, known_cluster
from airflow_provider_rayjobs.links import RayJobLink
from airflow_provider_rayjobs.operators.lineage import TellsLineage
from airflow_provider_rayjobs.operators.own_cluster import MakesCluster
from airflow_provider_rayjobs.operators.result import ReadsResult

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_rayjobs.following.events import JobEvent
    from airflow_provider_rayjobs.following.watcher import Watch
    from airflow_provider_rayjobs.hooks import RayJobHook
    from airflow_provider_rayjobs.jobs import JobDetails
    from airflow_provider_rayjobs.kubernetes.lease import Lease
    from airflow_provider_rayjobs.observability.report import TryReport
    from airflow_provider_rayjobs.tasks.arguments import JobArguments
    from airflow_provider_rayjobs.tasks.guard import JobGuard
    from airflow_provider_rayjobs.tasks.identity import TaskIdentity
    from airflow_provider_rayjobs.tasks.killed import TaskProcess

__all__ = ["RaySubmitJobOperator"]

#: Seconds after a reattachment within which STOPPED means that the job was killed together with its old try.
REATTACH_GRACE = 60.0

#: Seconds after ``execution_timeout`` at which a worker that Airflow's alarm missed ends the wait.
ALARM_GRACE = 5.0


class RaySubmitJobOperator(ReadsResult, MakesCluster, TellsLineage, BaseOperator):
    """
    Submits a job to a Ray cluster, follows it, and ends as the job ends.

    One try makes at most one Ray job. After a worker crash, the next try follows the job that is there. A retry after a
    failed job, and a clear by a user, start a new one. When the task is killed, its job is stopped.

    Example::

        RaySubmitJobOperator(
            task_id="train",
            entrypoint="python train.py --epochs 10",
            runtime_env={"working_dir": "/opt/airflow/jobs/train", "pip": ["torch"]},
            entrypoint_num_gpus=1,
            job_timeout=3600,
            deferrable=True,
        )

    :param entrypoint: the command that the cluster runs in a shell: a string, or a list of words, which are quoted so
        that each stays one argument.
    :param runtime_env: Ray's runtime environment for the job; local files in it are packed and uploaded.
        Relative paths are relative to the folder of the DAG file.
    :param secret_env_vars: environment variables of the job whose values are secret, beside those of ``runtime_env``.
        Airflow shows none of them, whatever their names are. Write templates (``{{ conn.… }}``,
        ``{{ var.value.… }}``): Airflow keeps and shows the code of DAG files.
    :param submission_id: id of the job; by default it is derived from the task instance. A later try adds its number if
        Ray has seen the id before.
    :param metadata: strings that are stored with the job.
    :param entrypoint_num_cpus: CPU cores to reserve for the entrypoint.
    :param entrypoint_num_gpus: GPUs to reserve for the entrypoint.
    :param entrypoint_memory: memory to reserve for the entrypoint, in bytes.
    :param entrypoint_resources: custom resources to reserve for the entrypoint.
    :param entrypoint_label_selector: labels that the entrypoint's node must have.
    :param ray_conn_id: Airflow connection of type ``ray_jobs``.
    :param cluster: instead of ``ray_conn_id``: a :class:`~airflow_provider_rayjobs.kuberay.KubeRayCluster`, which
        KubeRay makes for this job, or the cluster of ``with ray_cluster(…) as cluster``.
    :param read_result: whether the task returns what the job reports with
        :func:`airflow_provider_rayjobs.job.report_result`, instead of the submission id. That module is sent with the
        job. What a job had reported before it FAILED becomes an XCom, too.
    :param result_path: URL of a folder that the cluster and the Airflow workers can reach, as ``ObjectStoragePath``
        takes it, for a result of more than 16 MiB, up to 100 MB. For larger data return a path, not the data. It is
        stored there as ``<submission id>.….json``, and not deleted automatically. Needs ``read_result``.
    :param wait_for_completion: whether the task waits for the job's end; if not, it ends when the job is accepted.
    :param deferrable: whether to wait in the triggerer, without holding a worker slot.
    :param poll_interval: seconds between two requests for the job's status, at most; a young job is polled more often.
    :param job_timeout: seconds from the submission after which the job is stopped and the task fails.
    :param pending_timeout: seconds that the job may be PENDING before it is stopped and the task fails.
    :param stream_logs: whether the job's lines appear in the task log while it runs.
    :param inject_trace_context: whether the job gets the trace context of its task, as the environment variables
        ``TRACEPARENT`` and ``TRACESTATE``, so that what it traces belongs to the task. What ``runtime_env`` or
        ``secret_env_vars`` say of these variables takes precedence. Airflow traces tasks from 3.2 on, with
        ``[traces] otel_on``.
    :param log_progress: whether the task log tells how many of the job's Ray tasks are done, at most once a minute, for
        a job that runs longer than that. A function that reports its own progress needs no such lines.
    :param stop_on_kill: whether the job is stopped when the task is killed, marked or cleared, or times out.
    :param reattach: whether a try follows the job of an earlier try that was lost, which is the default; if not, that
        job is stopped.
    :param durable: the same; Airflow's own operators have this name for it since 3.3. Give one of the two.
    :param openlineage_inject_parent_job_info: whether the job's environment names the task's run as the parent of its
        own OpenLineage runs; by default as Airflow's ``[openlineage] spark_inject_parent_job_info``.
    :param openlineage_inject_transport_info: whether it says where Airflow sends OpenLineage's events; by default as
        ``[openlineage] spark_inject_transport_info``.
    :return: the submission id, as XCom; with ``read_result``, what the job has reported.
    :raises ValueError: if an argument is wrong, and this is known when the DAG is parsed.
    :raises TypeError: if an argument has a wrong type, likewise.
    """

    template_fields: Sequence[str] = (
        "entrypoint",
        "runtime_env",
        "secret_env_vars",  # Airflow itself hides the whole field, because of this name
        "submission_id",
        "metadata",
        "entrypoint_num_cpus",
        "entrypoint_num_gpus",
        "entrypoint_memory",
        "entrypoint_resources",
        "entrypoint_label_selector",
        "ray_conn_id",
        "cluster",
        "result_path",
        "job_timeout",
        "pending_timeout",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {
        "entrypoint": "bash",
        "runtime_env": "json",
        "metadata": "json",
    }
    operator_extra_links = (RayJobLink(),)
    ui_color = "#dcebff"

    #: URL of the job's page, if this process has stored it.
    _job_page = ""
    #: The cluster's Ray version, if this process has read it.
    _ray_version = ""

    def __init__(
        self,
        *,
        entrypoint: str | list[str],
        runtime_env: dict[str, Any] | str | None = None,
        secret_env_vars: dict[str, str] | str | None = None,
        submission_id: str | None = None,
        metadata: dict[str, str] | str | None = None,
        entrypoint_num_cpus: float | str | None = None,
        entrypoint_num_gpus: float | str | None = None,
        entrypoint_memory: int | str | None = None,
        entrypoint_resources: dict[str, float] | dict[str, str] | str | None = None,
        entrypoint_label_selector: dict[str, str] | str | None = None,
        ray_conn_id: str = DEFAULT_CONN_ID,
        cluster: Any = None,
        read_result: bool = False,
        result_path: str | None = None,
        wait_for_completion: bool = True,
        deferrable: bool | None = None,
        poll_interval: float = 30.0,
        job_timeout: float | str | None = None,
        pending_timeout: float | str | None = None,
        stream_logs: bool = True,
        log_progress: bool = True,
        stop_on_kill: bool = True,
        reattach: bool | None = None,
        durable: bool | None = None,
        openlineage_inject_parent_job_info: bool | None = None,
        openlineage_inject_transport_info: bool | None = None,
        inject_trace_context: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_one_cluster(ray_conn_id, cluster)
        if read_result and not wait_for_completion:
            raise ValueError("read_result=True needs wait_for_completion=True: the result is read at the job's end")
        if result_path is not None and not read_result and "result_path" not in (kwargs.get("default_args") or {}):
            raise ValueError("result_path needs read_result=True: the result is not read without it")
        self.entrypoint = entrypoint
        self.runtime_env = runtime_env
        self.secret_env_vars = secret_env_vars
        self.submission_id = submission_id
        self.metadata = metadata
        self.entrypoint_num_cpus = entrypoint_num_cpus
        self.entrypoint_num_gpus = entrypoint_num_gpus
        self.entrypoint_memory = entrypoint_memory
        self.entrypoint_resources = entrypoint_resources
        self.entrypoint_label_selector = entrypoint_label_selector
        self.ray_conn_id = ray_conn_id
        self.cluster = cluster
        self._cluster_is_given = cluster is not None
        self.read_result = read_result
        self.result_path = result_path
        self.wait_for_completion = wait_for_completion
        if deferrable is None:
            deferrable = conf.getboolean("operators", "default_deferrable", fallback=False)
        self.deferrable = deferrable
        self.poll_interval = poll_interval
        self.job_timeout = job_timeout
        self.pending_timeout = pending_timeout
        self.stream_logs = stream_logs
        self.log_progress = log_progress
        self.stop_on_kill = stop_on_kill
        if None not in (reattach, durable) and reattach != durable:
            raise ValueError(
                f"reattach={reattach!r} and durable={durable!r} contradict each other: both say whether a try follows "
                "the job of a lost try; give only one of them (the other may come from default_args)"
            )
        self.reattach = next((wish for wish in (reattach, durable) if wish is not None), True)
        self.openlineage_inject_parent_job_info = openlineage_inject_parent_job_info
        self.openlineage_inject_transport_info = openlineage_inject_transport_info
        self.inject_trace_context = inject_trace_context
        self._arguments.check()
        self._guard: JobGuard | None = None
        self._identity: TaskIdentity | None = None
        self._process: TaskProcess | None = None
        self._killed = False

    @cached_property
    def hook(self) -> RayJobHook:
        """
        The hook of the task's cluster.

        :raises RayKubernetesRefusedError: the cluster is not known.
        """
        from airflow_provider_rayjobs.hooks import RayJobHook

        cluster = self._cluster_ref if self.makes_cluster else self.cluster
        hook = RayJobHook(self.ray_conn_id, cluster=known_cluster(cluster, is_given=self._cluster_is_given))
        hook.kubernetes_options = self._kubernetes_options
        return hook

    def _kubernetes_options(self) -> dict[str, Any]:
        """Return how Kubernetes is asked for the way to the cluster: a kill interrupts this, or leaves no time."""
        if (guard := self._guard) is None:
            return {}
        return {"patience": 0.0} if guard.killed else {"breakable": guard.breakable}

    def _do_render_template_fields(self, parent: Any, *args: Any, **kwargs: Any) -> None:
        """
        Render, and register what is secret.

        Airflow stores the rendered fields before ``pre_execute``, and a template that fails is logged.
        """
        register = parent is self
        if register:
            self._register_env_vars()
        super()._do_render_template_fields(parent, *args, **kwargs)
        if register:
            self._register_env_vars()
            self._hide_env_vars()

    def _register_env_vars(self) -> None:
        from airflow_provider_rayjobs.compat import masking

        if isinstance(self.runtime_env, Mapping):
            masking.register_env_vars(self.runtime_env.get("env_vars"))
        if isinstance(self.secret_env_vars, Mapping):
            masking.register_env_vars(self.secret_env_vars, self.secret_env_vars)

    def _hide_env_vars(self) -> None:
        """Hide secrets where the rendered fields are printed: ``airflow tasks render`` does not mask them."""
        from airflow_provider_rayjobs.compat import masking
        from airflow_provider_rayjobs.text.job_secrets import HiddenValues

        if isinstance(self.secret_env_vars, Mapping):
            self.secret_env_vars = HiddenValues(self.secret_env_vars, self.secret_env_vars)
        if isinstance(self.runtime_env, Mapping) and isinstance(env_vars := self.runtime_env.get("env_vars"), Mapping):
            hidden = HiddenValues(env_vars, masking.sensitive_names(env_vars))
            self.runtime_env = {**self.runtime_env, "env_vars": hidden}

    @property
    def _arguments(self) -> JobArguments:
        """The arguments of the job, as they are now: with templates or rendered."""
        from airflow_provider_rayjobs.tasks.arguments import JobArguments

        return JobArguments(
            entrypoint=self.entrypoint,
            runtime_env=self.runtime_env,
            secret_env_vars=self.secret_env_vars,
            submission_id=self.submission_id,
            metadata=self.metadata,
            entrypoint_num_cpus=self.entrypoint_num_cpus,
            entrypoint_num_gpus=self.entrypoint_num_gpus,
            entrypoint_memory=self.entrypoint_memory,
            entrypoint_resources=self.entrypoint_resources,
            entrypoint_label_selector=self.entrypoint_label_selector,
            result_path=self.result_path,
            poll_interval=self.poll_interval,
            job_timeout=self.job_timeout,
            pending_timeout=self.pending_timeout,
        )

    def execute(self, context: Context) -> Any:
        """Submit the job, or take over the job of an earlier try, and follow it to its end."""
        from airflow_provider_rayjobs.tasks import context as task_context
        from airflow_provider_rayjobs.tasks.guard import refused_for_good

        with refused_for_good(), self._reporting(context):
            self._checked_job()
            self._pack(context)
            if self.deferrable:
                task_context.note_deferral(context)
            number = task_context.next_submission(context)
            if self.makes_cluster and (event := self._start_cluster(context, number, self.reattach)):
                with self._linking_history(context):
                    result = self._conclude(context, event)
                    self._keep_cluster()
                    return result
            return self._run(context, number)

    def execute_on_cluster(self, context: Context, event: Any = None) -> Any:
        """
        Submit the job to the cluster that the trigger has waited for.

        :param event: a :class:`~airflow_provider_rayjobs.kubernetes.start_event.StartEvent` as JSON.
        """
        from airflow_provider_rayjobs.tasks.guard import refused_for_good

        with refused_for_good(), self._reporting(context):
            return self._run(context, self._started(context, event))

    @contextmanager
    def _reporting(self, context: Context) -> Iterator[None]:
        """Tell, with metrics, why the block ends with an error, and what it has sent to the cluster."""
        try:
            yield
        except BaseException as e:  # Airflow's own timeout is no Exception
            self._report(context).failed(e)
            raise
        finally:
            self._report(context).sent()

    def _report(self, context: Context) -> TryReport:
        from airflow_provider_rayjobs.observability.report import TryReport

        # Not `self.hook.cluster`: this must not read the connection.
        hook = self.__dict__.get("hook")
        known = hook.__dict__ if hook is not None else {}
        made = self._cluster_ref or (self.cluster if self.makes_cluster else None)
        conn_id = made.kubernetes_conn_id if made is not None else self.ray_conn_id
        cluster, transport = known.get("cluster"), known.get("_transport")
        return TryReport(
            context.get("ti"), cluster.conn_id if cluster else conn_id, transport.counts if transport else None
        )

    def _checked_job(self) -> dict[str, Any]:
        self._check_lineage()
        try:
            return self._arguments.for_hook()
        except (TypeError, ValueError) as e:
            raise AirflowFailException(f"Nothing was submitted: {e}") from None

    def _run(self, context: Context, number: int) -> Any:
        """Submit the job to the cluster, which is there, or take over the job of an earlier try, and follow it."""
        from airflow_provider_rayjobs.tasks.earlier_tries import settle_earlier_jobs

        job = self._checked_job()
        guard = self._new_guard(context)
        identity = self._identity = self._identity_of(context, number)

        def settle(reattach: bool) -> JobDetails | None:
            return settle_earlier_jobs(
                self.hook,
                identity,
                explicit_id=job["submission_id"],
                entrypoint=job["entrypoint"],
                reattach=reattach,
            )

        guard.stop_earlier = self._end_unused_cluster if self.makes_cluster else lambda: settle(reattach=False)
        with (
            self._linking_history(context),
            guard.guarding(),
            self._ending_cluster_of_failure(self._end_cluster, guard),
        ):
            known = self._read_cluster_job()
            with self._waiting_for_cluster():
                session = self._session(context)
                found = self._usable_job(known, identity) if known else settle(self.reattach)
            if found is None and known:
                return self._replace_cluster(context, number, guard)
            if found is None:
                watch, has_ended = self._submit(context, identity, session), False
            else:
                watch, has_ended = self._take_over(context, found, session), found.status.is_terminal
            if self.wait_for_completion:
                result = self._conclude(context, self._follow(context, watch, has_ended=has_ended))
            else:
                result = watch.submission_id
            self._keep_cluster()
            return result

    def _session(self, context: Context) -> str | None:
        """Return the name of the head's session, and note its Ray version."""
        info = self.hook.get_version_info()
        self._note_head(context, info)
        self._ray_version = info.ray_version
        return info.session_name

    def _end_unused_cluster(self) -> None:
        """End the task's cluster when a kill comes before this try has a job; an earlier try's job may go on."""
        if self.stop_on_kill or not self._cluster_job:
            self._end_cluster()

    def _usable_job(self, submission_id: str, identity: TaskIdentity) -> JobDetails | None:
        """
        Return the job that the cluster was made for, if it runs or has SUCCEEDED.

        :raises RayJobInterruptedError: a later try has submitted it, so this process is left over.
        """
        from airflow_provider_rayjobs.jobs import JobStatus
        from airflow_provider_rayjobs.tasks.stopping import find_job

        job = find_job(self.hook, submission_id)
        if job and identity.is_before(job):
            raise RayJobInterruptedError(
                "Nothing was submitted: a later try of the task runs now", submission_id=submission_id
            )
        return job if job and (not job.status.is_terminal or job.status is JobStatus.SUCCEEDED) else None

    def _replace_cluster(self, context: Context, number: int, guard: JobGuard) -> Any:
        """
        Run the job on a new cluster, because the one that is there had its job: KubeRay follows only that one.

        :raises RayClusterStartError: another process may use the cluster.
        """
        self._check_still_runs(guard)
        self.log.info(
            "Ray job %s of an earlier try has failed, or the head has restarted; making a new cluster",
            self._cluster_job,
        )
        self._start_cluster(context, number, reattach=False)
        return self._run(context, number)

    def _check_still_runs(self, guard: JobGuard) -> None:
        if not guard.still_runs_task():
            raise RayClusterStartError(
                f"{self._cluster_ref} has Ray job {self._cluster_job} of another try, and Airflow does not say that "
                "this process still runs the task; nothing was submitted"
            )

    def _start_cluster(self, context: Context, number: int, reattach: bool) -> JobEvent | None:
        """
        Have the job's own cluster made, or take over that of an earlier try, and wait until it takes jobs.

        :return: the outcome, if the job of an earlier try has SUCCEEDED and its cluster is gone, or soon will be.
        :raises TaskDeferred: the trigger waits.
        """
        from airflow_provider_rayjobs.tasks.arguments import as_number

        guard, identity = self._new_guard(context), self._identity_of(context, number)
        with guard.guarding():
            lease = self._bring_up(
                context,
                identity,
                guard,
                reattach=reattach,
                results=reattach,
                job_timeout=as_number(self.job_timeout),
                entrypoint=self._checked_job()["entrypoint"],
            )
        return None if lease.is_ready else self._earlier_success(context, number, lease)

    def _earlier_success(self, context: Context, number: int, lease: Lease) -> JobEvent | None:
        """
        Return the outcome of an earlier try's job, which KubeRay saw SUCCEED; its cluster may be gone.

        :return: None if the job's result has to be read: from this cluster if it is there, or from a new one.
        """
        from airflow_provider_rayjobs.following.events import JobEvent, Outcome
        from airflow_provider_rayjobs.kubernetes.access import history_template
        from airflow_provider_rayjobs.kubernetes.lease import has_cluster
        from airflow_provider_rayjobs.links import store_history_page
        from airflow_provider_rayjobs.tasks import context as task_context

        ref = self._cluster_ref
        assert ref is not None  # noqa: S101 - for mypy
        if self.read_result:
            if not self._kube_api(ref).run(has_cluster(lease)):
                self.log.info("The cluster of an earlier try has ended, with the job's result; making a new one")
                self._start_cluster(context, number, reattach=False)
            return None
        self.log.info("Ray job %s of an earlier try has SUCCEEDED", lease.job_id)
        task_context.push_xcom(context, task_context.SUBMISSION_ID_XCOM, lease.job_id)
        self._show_id(context, lease.job_id)
        store_history_page(context, history_template(ref, lease.ray_cluster), lease.job_id)
        now = time.time()
        return JobEvent(lease.job_id, str(ref), Outcome.SUCCEEDED, reattached_at=now, ended_at=now)

    def _identity_of(self, context: Context, number: int = 1) -> TaskIdentity:
        from airflow_provider_rayjobs.tasks import context as task_context

        deployment = "" if self._cluster_is_given else self.hook.cluster.deployment
        return task_context.task_identity(context, deployment, number)

    def _new_guard(self, context: Context) -> JobGuard:
        """Return the guard of the next block. ``stop_on_kill`` is about jobs: a cluster without one is ended."""
        from airflow_provider_rayjobs.hooks import RayJobHook
        from airflow_provider_rayjobs.tasks.guard import JobGuard
        from airflow_provider_rayjobs.tasks.killed import TaskProcess

        # Without its cluster there is no hook yet, and nothing to be stopped on it.
        hook = RayJobHook() if self.makes_cluster and self._cluster_ref is None else self.hook
        if self._process is None or not self._process.is_of(context["ti"]):
            # One for all guards: what it last asked Airflow may be old after a long wait for a cluster.
            self._process = TaskProcess(context["ti"])
        enabled = {"enabled": self.stop_on_kill, "enabled_without_job": self.makes_cluster}
        guard = JobGuard(hook, self.log, self._process, **enabled)
        guard.killed = self._killed  # a kill that came before there was a guard
        guard.end_cluster = self._end_cluster if self.makes_cluster else None
        self._guard = guard
        return guard

    def _submit(self, context: Context, identity: TaskIdentity, session: str | None) -> Watch:
        """Submit this try's own job."""
        from airflow_provider_rayjobs.compat import masking
        from airflow_provider_rayjobs.tasks.earlier_tries import submit_once
        from airflow_provider_rayjobs.tasks.task_log import log_group, submission_lines

        job = self._with_run_of_task(context, self._arguments.for_hook())
        self._warn_of_expansion(job["runtime_env"])
        try:
            with self._waiting_for_cluster(), self._report(context).submitting(self._ray_version) as accepted:
                runtime_env = self._prepare(self._with_trace(context, job["runtime_env"]))
                job["runtime_env"] = self._with_package(context, runtime_env, identity)
                lines = submission_lines(job, masking.public)
                job["metadata"] = {**job["metadata"], **self._package_metadata}
                submission_id = submit_once(
                    self.hook,
                    identity,
                    announce=lambda submission_id: self._announce(context, submission_id, session),
                    **job,
                )
                accepted(submission_id)
        except RayJobsError:
            raise
        except ValueError as e:  # the runtime_env with its packages is too large
            raise AirflowFailException(f"Nothing was submitted: {e}") from None
        now = time.time()  # limits count from here: a wait for an absent cluster does not count
        if self._guard is not None:
            self._guard.accept()
        self._hand_over(submission_id)
        self.log.info("Submitted %s", self.hook.cluster.job_page(submission_id))
        log_group(self.log, "What was submitted", lines)
        return self._watch(context, submission_id, now, session)

    def _take_over(self, context: Context, found: JobDetails, session: str | None) -> Watch:
        """Take over the job of an earlier try."""
        now, submission_id = time.time(), str(found.submission_id)
        self._show_id(context, submission_id)  # it may take long, so not while a kill would have to stop the job
        if self._guard is not None:
            self._guard.announce(submission_id, exists=True)
        self._push_id(context, submission_id, session)
        self._hand_over(submission_id)
        self._report(context).reattached()
        self.log.info("Reattached, the job is %s: %s", found.status, self.hook.cluster.job_page(submission_id))
        started = (found.start_time or now * 1000) / 1000
        return self._watch(context, submission_id, started, session, now)

    @contextmanager
    def _waiting_for_cluster(self) -> Iterator[None]:
        """
        Let the requests of the block wait for an absent cluster; a kill interrupts them.

        The requests that stop a job are not made in this block: they have only a few seconds.
        """
        guard = self._guard
        signals: Any = (
            {} if guard is None else {"breakable": guard.breakable, "before_submission": guard.before_submission}
        )
        with self.hook.get_conn().waiting_for_cluster(self.log, **signals):
            yield

    def _warn_of_expansion(self, runtime_env: Mapping[str, Any] | None) -> None:
        from airflow_provider_rayjobs.client.runtime_env import expanded_on_the_node
        from airflow_provider_rayjobs.compat import masking

        env_vars = (runtime_env or {}).get("env_vars") or {}
        for name in {*(self.secret_env_vars or ()), *masking.sensitive_names(env_vars)}:
            if expanded_on_the_node(env_vars[name]):
                self.log.warning(
                    "The job may get another value for the secret environment variable %s, which is not masked: the "
                    "value contains $NAME or ${NAME}, which Ray replaces and which can't be quoted. Encode the secret, "
                    "for example as Base64",
                    name,
                )

    def _with_trace(self, context: Context, runtime_env: dict[str, Any] | None) -> dict[str, Any] | None:
        """Return the ``runtime_env`` with the task's trace context, if it is wanted and there is one."""
        from airflow_provider_rayjobs.observability.traces import environment_of, with_trace

        if not self.inject_trace_context:
            return runtime_env
        if not (variables := environment_of(context["ti"])):
            self.log.info("The job gets no trace context: Airflow does not trace this task (see [traces] otel_on)")
            return runtime_env
        return with_trace(runtime_env, variables)

    def _prepare(self, runtime_env: dict[str, Any] | None) -> dict[str, Any] | None:
        """Upload local files; done before the submission, so that a kill meanwhile has no job to stop."""
        from airflow_provider_rayjobs.packaging.resolve import with_absolute_paths
        from airflow_provider_rayjobs.tasks.context import dag_folder

        if runtime_env is not None and (folder := dag_folder(self)):
            runtime_env = with_absolute_paths(runtime_env, folder)
        try:
            return self.hook.prepare_runtime_env(runtime_env)
        except RayPackageError as e:
            raise type(e)(f"Nothing was submitted: {e}") from None

    def _announce(self, context: Context, submission_id: str, session: str | None) -> None:
        """Store the id before the job exists, so that it can be stopped."""
        if self._guard is not None:
            self._guard.announce(submission_id)
        self._push_id(context, submission_id, session)
        self._show_id(context, submission_id)

    def _push_id(self, context: Context, submission_id: str, session: str | None) -> None:
        from airflow_provider_rayjobs.links import store_job_page
        from airflow_provider_rayjobs.tasks import context as task_context

        task_context.push_xcom(context, task_context.SUBMISSION_ID_XCOM, submission_id)
        self._note_job(submission_id)
        self._job_page = store_job_page(context, self.hook.cluster, submission_id, session)

    def _show_id(self, context: Context, submission_id: str) -> None:
        from airflow_provider_rayjobs.tasks import context as task_context

        try:
            task_context.show_submission_id(context, submission_id)
        except Exception as e:  # noqa: BLE001 - must not end a task whose job runs
            self.log.warning("The job's id could not be stored in task_state_store, which only shows it: %r", e)

    @contextmanager
    def _linking_history(self, context: Context) -> Iterator[None]:
        """Let the task's link lead to the history server at the end of the block, unless the task only defers."""
        try:
            yield
        except TaskDeferred:
            raise
        except BaseException:  # Airflow's own timeout is no Exception
            self._link_to_history(context)
            raise
        self._link_to_history(context)

    def _link_to_history(self, context: Context) -> None:
        from airflow_provider_rayjobs.links import link_to_history

        if self.cluster is None or not self.wait_for_completion:  # the job's cluster stays
            return
        self._job_page = ""  # the link reads it from its XCom again
        try:
            link_to_history(context)
        except Exception as e:  # noqa: BLE001 - must not replace the task's outcome
            self.log.warning("The link to the history server could not be stored: %r", e)

    def _watch(
        self,
        context: Context,
        submission_id: str,
        submitted_at: float,
        session: str | None,
        reattached_at: float | None = None,
    ) -> Watch:
        from airflow_provider_rayjobs.following.watcher import Watch
        from airflow_provider_rayjobs.tasks.arguments import as_number

        job_timeout = as_number(self.job_timeout)
        pending_timeout = as_number(self.pending_timeout)
        deadlines = {} if job_timeout is None else {"job_timeout": submitted_at + job_timeout}
        started = context["ti"].start_date
        if self.execution_timeout is not None and started is not None:
            # Airflow 3 does not enforce it while the task is deferred. On a worker Airflow's alarm comes first; this is
            # for an alarm that was raised in code that swallows it.
            grace = 0 if self.deferrable else ALARM_GRACE
            deadlines["execution_timeout"] = started.timestamp() + self.execution_timeout.total_seconds() + grace
        return Watch(
            submission_id=submission_id,
            submitted_at=submitted_at,
            session_name=session,
            poll_interval=self.poll_interval,
            deadlines=deadlines,
            pending_deadline=None if pending_timeout is None else submitted_at + pending_timeout,
            stream_logs=self.stream_logs,
            log_progress=self.log_progress,
            reattached_at=reattached_at,
        )

    def _follow(self, context: Context, watch: Watch, *, has_ended: bool = False) -> JobEvent:
        """
        Follow the job to its end.

        :param has_ended: whether it is known to have ended, so that no trigger is needed.
        :raises TaskDeferred: the trigger follows it.
        """
        if self.deferrable and not has_ended:
            self._defer(watch)
        return self._follow_here(context, watch)

    def _defer(self, watch: Watch) -> None:
        from airflow_provider_rayjobs.following.log_stream import DRAIN_TOTAL
        from airflow_provider_rayjobs.following.watcher import LIMIT_STOP_TOTAL
        from airflow_provider_rayjobs.tasks.context import DEFERRAL_MARGIN
        from airflow_provider_rayjobs.triggers import RayJobTrigger

        ref = self.hook.cluster_ref
        trigger = RayJobTrigger(
            ray_conn_id=self.ray_conn_id,
            cluster=None if ref is None else ref.to_json(),
            stop_on_kill=self.stop_on_kill,
            **watch.to_json(),
        )
        timeout = None
        if watch.deadlines:
            # At the first deadline the trigger stops the job and reads the rest of its log.
            left = max(min(watch.deadlines.values()) - time.time(), 0)
            timeout = timedelta(seconds=left + LIMIT_STOP_TOTAL + DRAIN_TOTAL + DEFERRAL_MARGIN)
        self.defer(trigger=trigger, method_name="execute_complete", timeout=timeout)

    def execute_complete(self, context: Context, event: Any = None) -> Any:
        """
        End the task as the trigger's event says.

        :param event: a :class:`~airflow_provider_rayjobs.following.events.JobEvent` as JSON.
        """
        from airflow_provider_rayjobs.following.events import JobEvent
        from airflow_provider_rayjobs.tasks.guard import refused_for_good

        checked = JobEvent.from_json(event)
        self._recall_cluster(context)
        self._cluster_job = checked.submission_id  # it was handed over before the deferral
        with refused_for_good(), self._reporting(context):
            guard = self._new_guard(context)
            with (
                self._linking_history(context),
                guard.guarding(),
                self._ending_cluster_of_failure(self._end_cluster, guard),
            ):
                guard.announce(checked.submission_id, exists=True)
                result = self._conclude(context, checked)
                self._keep_cluster()
                return result

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume after a deferral; if Airflow ended it by its own timeout, the job is stopped first."""
        from airflow_provider_rayjobs.tasks import context as task_context

        if task_context.resumes_earlier_try(context):
            return self.execute(context)
        if next_method != "__fail__":
            return super().resume_execution(next_method, next_kwargs, context)
        with self._reporting(context):
            reason, ti = (next_kwargs or {}).get("error"), context["ti"]
            # If the trigger crashed, the next try takes its job over; after the last try there is none.
            ends = "timeout" in str(getattr(reason, "value", reason)).lower() or ti.try_number > ti.max_tries
            if ends and self.stop_on_kill:
                self._stop_left_behind(context)
                self._link_to_history(context)
            return super().resume_execution(next_method, next_kwargs, context)

    def _stop_left_behind(self, context: Context) -> None:
        from airflow_provider_rayjobs.tasks.stopping import STOP_TIMEOUT, stop_job_and_wait

        if self.makes_cluster:
            self._recall_cluster(context)
            self._end_cluster()
            return
        try:
            submission_id = self._known_id(context)
            self.log.warning("The deferral ended without an event; stopping Ray job %s", submission_id)
            status = stop_job_and_wait(self.hook, submission_id, patience=STOP_TIMEOUT)
            self.log.info("Ray job %s is %s", submission_id, status or "not found on the cluster")
        except (RayJobsError, AirflowException) as e:  # must not replace the deferral's own error
            self.log.error("The Ray job could not be stopped: %s", e)

    def _conclude(self, context: Context, event: JobEvent) -> Any:
        """Return the result of a job that has ended; submit a new job, once, if one that was taken over has none."""
        from airflow_provider_rayjobs.tasks.earlier_tries import NewJobNeededError

        try:
            return self._outcome(context, event)
        except NewJobNeededError:  # only of a job that was taken over, so at most once
            pass
        if self.makes_cluster:  # KubeRay ends this one, whose job has ended
            if self._guard is not None:
                self._check_still_runs(self._guard)
            self._end_cluster()
            number = self._identity.number if self._identity else 1
            self._start_cluster(context, number, reattach=False)
            return self._run(context, number)
        identity = self._identity or self._identity_of(context)
        with self._waiting_for_cluster():
            session = self._session(context)
        return self._outcome(context, self._follow(context, self._submit(context, identity, session)))

    def _outcome(self, context: Context, event: JobEvent) -> Any:
        """
        Return the result of a job that has ended.

        :raises RayJobsError: the job did not succeed.
        :raises NewJobNeededError: the job was taken over from an earlier try, and has no result for this one.
        """
        from airflow_provider_rayjobs.following.events import Outcome, raise_for_outcome
        from airflow_provider_rayjobs.tasks.earlier_tries import NewJobNeededError

        event = self._as_kuberay_saw(event)
        self._note_job(event.submission_id, event)
        self._report(context).ended(event, self._ray_version)
        if self.read_result and event.progress is not None:
            self._push_progress(context, event.progress)
        reattached = event.reattached_at
        if event.outcome is Outcome.STOPPED and reattached and event.ended_at - reattached < REATTACH_GRACE:
            self.log.info("Ray job %s was stopped together with its own try; submitting a new job", event.submission_id)
            raise NewJobNeededError
        if event.outcome is Outcome.FAILED:
            raise self._failed(context, event)
        raise_for_outcome(event)
        return self._reported(context, event) if self.read_result else event.submission_id

    def _failed(self, context: Context, event: JobEvent) -> RayJobFailedError:
        """Store why the job FAILED, and return the error."""
        from airflow_provider_rayjobs.following.events import failed_error
        from airflow_provider_rayjobs.tasks import context as task_context

        if event.failure is not None:
            try:
                task_context.push_xcom(context, task_context.FAILURE_XCOM, event.failure.to_json())
            except Exception as e:  # noqa: BLE001 - must not replace the job's own error
                self.log.warning("Why the job failed could not be stored as XCom: %r", e)
        return failed_error(event, self._left_by_failed(context, event))

    def _follow_here(self, context: Context, watch: Watch) -> JobEvent:
        """Follow the job in this process; a kill cancels this."""
        from airflow_provider_rayjobs.client.aiohttp_transport import AiohttpTransport
        from airflow_provider_rayjobs.compat import masking
        from airflow_provider_rayjobs.following.poller import Poller
        from airflow_provider_rayjobs.following.watcher import JobWatcher
        from airflow_provider_rayjobs.tasks.ended_cluster import follow

        async def followed() -> JobEvent:
            counts = self.hook.get_conn().counts
            async with Poller(AiohttpTransport(self.hook.cluster, counts=counts)) as poller:
                public_for = partial(masking.public_for, cluster=poller.cluster)
                watcher = JobWatcher(poller, watch, self.log, public_for)
                return await follow(watcher, watch.submission_id, self.hook.cluster_ref, self.log)

        guard = self._guard or self._new_guard(context)
        return guard.run(followed())

    def on_kill(self) -> None:
        """
        Note that the process is asked to end, and interrupt the wait.

        Airflow calls this in the handler of SIGTERM; Airflow 3 sends SIGKILL 5 s later. The interrupted ``execute``
        asks Airflow why, and stops the job if the task was ended.
        """
        self._killed = True
        if self._guard is not None:
            self._guard.kill()
        elif self.stop_on_kill and isinstance(sys.exception(), AirflowTaskTimeout):
            # Airflow 2 calls this on a fresh instance when a deferred task's execution_timeout has passed.
            self._stop_left_behind(get_current_context())

    def _known_id(self, context: Context) -> str:
        """Return the id of the job that this try follows, in an instance that did not submit it."""
        from airflow_provider_rayjobs.tasks import context as task_context

        known = task_context.own_submission_id(context)
        return known or self._identity_of(context).submission_id()
