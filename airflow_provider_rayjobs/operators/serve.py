"""
The operator that deploys applications of Ray Serve.

DAG files import this module, so it loads only what the class body needs; methods import the rest.
"""

from __future__ import annotations

import contextlib
import time
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowTaskTimeout, BaseOperator, conf

from airflow_provider_rayjobs.cluster.fields import DEFAULT_CONN_ID
from airflow_provider_rayjobs.exceptions import (
    RayClusterUnreachableError,
    RayJobsError,
    RayServeDeployError,
    RayServeTimeoutError,
)
from airflow_provider_rayjobs.kubernetes.given import check_makes_none, known_cluster
from airflow_provider_rayjobs.tasks.rendering import RendersTexts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_rayjobs.client.serve_config import Plan
    from airflow_provider_rayjobs.following.serving import ServeEvent, ServeWatch
    from airflow_provider_rayjobs.hooks import RayJobHook
    from airflow_provider_rayjobs.serve import ServeDetails

__all__ = ["RayServeDeployOperator"]


class RayServeDeployOperator(RendersTexts, BaseOperator):
    """
    Deploys applications of Ray Serve, and waits until they are healthy.

    Other applications of the cluster stay as they are. If one of the applications can't be deployed, the operator puts
    back what was there before. A retry goes on with what is being deployed already.

    Example::

        RayServeDeployOperator(
            task_id="deploy",
            applications=[
                {"name": "text", "route_prefix": "/text", "import_path": "text_ml:app",
                 "runtime_env": {"working_dir": "s3://models/text-{{ ds }}.zip"}},
            ],
        )

    All parameters but ``remove_others``, ``roll_back``, ``deferrable`` and ``poll_interval`` are templated.

    :param applications: the applications, each with the fields of Ray's ``ServeApplicationSchema``: ``name``,
        ``import_path``, ``route_prefix``, ``runtime_env``, ``args``, ``deployments`` and others.
    :param config: instead of ``applications``: a whole config, as a dict or as YAML, as ``serve deploy`` takes it.
        Options of its top level, such as ``http_options``, only have an effect when they start Serve.
    :param remove_others: whether the other applications that were deployed with a config are deleted, as by ``serve
        deploy``. By default they are kept.
    :param roll_back: whether to put back what was there before, if an application can't be deployed or is not healthy
        in time. Applications that were not there are removed.
    :param ray_conn_id: Airflow connection of type ``ray_jobs``.
    :param cluster: instead of ``ray_conn_id``: the cluster of ``with ray_cluster(…) as cluster``.
    :param deferrable: whether to wait in the triggerer, without holding a worker slot.
    :param deploy_timeout: seconds from the deployment until all applications must be healthy.
    :param poll_interval: maximum time between two looks at the applications, in seconds.
    :return: the status of each application by name, as XCom.
    :raises ValueError: if an argument is wrong, and this is known when the DAG is parsed.
    :raises TypeError: if an argument has a wrong type, likewise.
    """

    template_fields: Sequence[str] = ("applications", "config", "ray_conn_id", "cluster", "deploy_timeout")
    template_fields_renderers: ClassVar[dict[str, str]] = {"applications": "json", "config": "yaml"}
    ui_color = "#dcebff"

    def __init__(
        self,
        *,
        applications: Any = None,
        config: Any = None,
        remove_others: bool = False,
        roll_back: bool = True,
        ray_conn_id: str = DEFAULT_CONN_ID,
        cluster: Any = None,
        deferrable: bool | None = None,
        deploy_timeout: float | str = 1200.0,
        poll_interval: float = 5.0,
        **kwargs: Any,
    ) -> None:
        from airflow_provider_rayjobs.tasks import arguments

        super().__init__(**kwargs)
        check_makes_none(ray_conn_id, cluster)
        if (applications is None) == (config is None):
            raise ValueError("give one of applications and config")
        arguments.check_known_config(config, applications)
        self.applications = applications
        self.config = config
        self.remove_others = remove_others
        self.roll_back = roll_back
        self.ray_conn_id = ray_conn_id
        self.cluster = cluster
        self._cluster_is_given = cluster is not None
        if deferrable is None:
            deferrable = conf.getboolean("operators", "default_deferrable", fallback=False)
        self.deferrable = deferrable
        self.deploy_timeout = deploy_timeout
        self.poll_interval = poll_interval

    @cached_property
    def hook(self) -> RayJobHook:
        """
        The hook of the task's cluster.

        :raises RayKubernetesRefusedError: the cluster is not known.
        """
        from airflow_provider_rayjobs.hooks import RayJobHook

        return RayJobHook(self.ray_conn_id, cluster=known_cluster(self.cluster, is_given=self._cluster_is_given))

    def _do_render_template_fields(self, parent: Any, *args: Any, **kwargs: Any) -> None:
        """Render, and have Airflow mask what is secret: it stores the rendered fields."""
        super()._do_render_template_fields(parent, *args, **kwargs)
        if parent is self:
            from airflow_provider_rayjobs.client.serve_config import read_config
            from airflow_provider_rayjobs.compat import masking

            with contextlib.suppress(TypeError, ValueError):  # execute() says what is wrong
                masking.register_config(read_config(self.config, self.applications))

    def execute(self, context: Context) -> dict[str, str]:
        """
        Deploy the applications, and wait until they are healthy.

        :raises RayServeDeployError: if they did not become healthy.
        :raises AirflowFailException: if the config is wrong, or another application can't be kept.
        :raises RayClusterUnreachableError: if the cluster was unreachable for ``unreachable_timeout`` seconds.
        """
        from airflow_provider_rayjobs.client.serve_config import digest_of, plan
        from airflow_provider_rayjobs.following.serving import ServeWatch
        from airflow_provider_rayjobs.tasks import context as task_context
        from airflow_provider_rayjobs.tasks.guard import refused_for_good

        with refused_for_good():
            timeout, config = self._checked_timeout(), self._checked_config()
            with self.hook.get_conn().waiting_for_cluster(self.log):
                details = self.hook.get_serve_details()
                try:
                    planned = plan(config, details, remove_others=self.remove_others)
                except ValueError as e:
                    raise AirflowFailException(f"Nothing was deployed: {e}") from None
                details = self._deploy(planned, details)
        deployed = {name: digest_of(one.config) for name, one in details.applications.items() if name in planned.names}
        watch = ServeWatch(
            planned.names,
            self._deadline(context, timeout),
            self.poll_interval,
            deployed={name: deployed.get(name, "") for name in planned.names},
        )
        if self.deferrable and not self._are_running(planned, details) and self._may_store(planned):
            task_context.note_deferral(context)
            self._defer(watch, planned)
        return self._conclude(self._wait_here(watch, planned), planned.before, watch.deployed)

    def _checked_timeout(self) -> float:
        from airflow_provider_rayjobs.client.checks import check_duration
        from airflow_provider_rayjobs.tasks.arguments import as_number

        timeout = as_number(self.deploy_timeout)
        try:
            for name, value in (("deploy_timeout", timeout), ("poll_interval", self.poll_interval)):
                if value is None:
                    raise TypeError(f"{name} must be a number of seconds")
                check_duration(name, value)
        except (TypeError, ValueError) as e:
            raise AirflowFailException(str(e)) from None
        return float(timeout)

    def _deadline(self, context: Context, timeout: float) -> float:
        """Return when the applications must be healthy, in Unix seconds."""
        deadline = time.time() + timeout
        started = context["ti"].start_date
        if self.deferrable and self.execution_timeout is not None and started is not None:
            # Airflow 3 does not enforce execution_timeout while the task is deferred.
            deadline = min(deadline, started.timestamp() + self.execution_timeout.total_seconds())
        return deadline

    def _checked_config(self) -> dict[str, Any]:
        """Return the config, with local code uploaded."""
        from airflow_provider_rayjobs.client.serve_config import read_config, with_runtime_envs

        try:
            return with_runtime_envs(read_config(self.config, self.applications), self._prepared)
        except (TypeError, ValueError) as e:
            if isinstance(e, RayJobsError):
                raise
            raise AirflowFailException(f"Nothing was deployed: {e}") from None

    def _prepared(self, runtime_env: dict[str, Any]) -> Any:
        """Upload the local code of a ``runtime_env`` to where it stays as long as the application does."""
        from airflow_provider_rayjobs.client.serve_config import local_path
        from airflow_provider_rayjobs.packaging.resolve import with_absolute_paths
        from airflow_provider_rayjobs.tasks.context import dag_folder

        path = local_path(runtime_env)
        if path is not None and not self.hook.cluster.package_folder:
            raise ValueError(
                f"runtime_env names {path!r} on this machine. Ray deletes uploaded code when no process uses it, but "
                "each new replica of an application needs it. Give a URI, such as s3://…/app.zip, or set the "
                f"package_folder of connection {self.ray_conn_id!r}, to which local code is uploaded"
            )
        folder = dag_folder(self)
        return self.hook.prepare_runtime_env(with_absolute_paths(runtime_env, folder) if folder else runtime_env)

    def _deploy(self, planned: Plan, details: ServeDetails) -> ServeDetails:
        """Say what is done, and do it; return what is there then."""
        self.log.info("Ray Serve at %s: this deployment %s", self.hook.get_address(), planned)
        if planned.lost and self.roll_back:
            self.log.warning("Deployed with serve.run, so it can't be put back: %s", ", ".join(planned.lost))
        if not planned.is_needed:
            self.log.info("The cluster has this config already: nothing is sent")
            return details
        self.hook.deploy_applications(planned.body)
        return self.hook.get_serve_details()

    @staticmethod
    def _are_running(planned: Plan, details: ServeDetails) -> bool:
        return all(name in details.applications and details.applications[name].is_running for name in planned.names)

    def _may_store(self, planned: Plan) -> bool:
        """Whether Airflow's database may hold what a rollback needs."""
        from airflow_provider_rayjobs.compat import masking
        from airflow_provider_rayjobs.text.safe_text import is_safe

        if not self.roll_back or (is_safe(planned.before) and not masking.holds_secrets(planned.before)):
            return True
        self.log.info(
            "Waiting on this worker: a rollback needs the previous config, which has secrets that Airflow's database "
            "must not hold"
        )
        return False

    def _defer(self, watch: ServeWatch, planned: Plan) -> None:
        from airflow_provider_rayjobs.tasks.context import DEFERRAL_MARGIN
        from airflow_provider_rayjobs.triggers import RayServeTrigger

        ref = self.hook.cluster_ref
        self.defer(
            trigger=RayServeTrigger(
                ray_conn_id=self.ray_conn_id,
                cluster=None if ref is None else ref.to_json(),
                **watch.to_json(),
            ),
            method_name="execute_complete",
            kwargs={
                "before": planned.before if self.roll_back else {},
                "deployed": dict(watch.deployed),
            },
            timeout=timedelta(seconds=max(watch.deadline - time.time(), 0) + DEFERRAL_MARGIN),
        )

    def _wait_here(self, watch: ServeWatch, planned: Plan) -> ServeEvent:
        """Wait in this process; Airflow's ``execution_timeout`` interrupts this."""
        try:
            return self._waited(watch)
        except AirflowTaskTimeout:
            self.log.warning("execution_timeout has passed")
            self._put_back(planned.before, watch.deployed)
            raise

    def _waited(self, watch: ServeWatch) -> ServeEvent:
        from airflow_provider_rayjobs.compat import masking
        from airflow_provider_rayjobs.following.serving import ServeWaiter

        cluster, transport = self.hook.cluster, self.hook.get_conn()
        waiter = ServeWaiter(
            watch,
            cluster.address,
            cluster.unreachable_timeout,
            self.log,
            lambda config: masking.public_for_config(config, cluster),
        )
        while True:
            try:
                with transport.single_attempts(waiter.contact):
                    details = self.hook.get_serve_details()
            except RayJobsError as e:
                event = waiter.failed(e)
            else:
                event = waiter.saw(details)
            if event is not None:
                return event
            time.sleep(waiter.pause())

    def execute_complete(
        self, context: Context, event: Any = None, before: Any = None, deployed: Any = None
    ) -> dict[str, str]:
        """
        End the task as the trigger's event says.

        :param event: a :class:`~airflow_provider_rayjobs.following.serving.ServeEvent` as JSON.
        :param before: the configs that a rollback puts back, by name.
        :param deployed: digests of the configs that were deployed, by name.
        """
        from airflow_provider_rayjobs.following.serving import ServeEvent
        from airflow_provider_rayjobs.tasks.guard import refused_for_good

        with refused_for_good():
            return self._conclude(ServeEvent.from_json(event), before or {}, deployed or {})

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume after a deferral of this try; start from the beginning if the deferral was of an earlier try."""
        from airflow_provider_rayjobs.tasks import context as task_context

        if task_context.resumes_earlier_try(context):
            return self.execute(context)
        return super().resume_execution(next_method, next_kwargs, context)

    def on_kill(self) -> None:
        """Say that the deployment goes on: a killed process may have no time to put anything back."""
        self.log.warning("The deployment goes on without this task, and is not rolled back")

    def _conclude(self, event: ServeEvent, before: Mapping[str, Any], deployed: Mapping[str, str]) -> dict[str, str]:
        """Return the statuses of healthy applications; else roll back, and raise why."""
        from airflow_provider_rayjobs.following.events import Outcome

        statuses = dict(event.statuses)
        if event.outcome is Outcome.SUCCEEDED:
            return statuses
        what = f"{event.address}: {event.detail}"
        if event.outcome is Outcome.UNREACHABLE:
            raise RayClusterUnreachableError(what, address=event.address)
        if event.outcome is Outcome.STOPPED:
            raise AirflowFailException(f"The deployment goes on, but can't be followed: {event.detail}")
        if event.outcome is Outcome.LOST:
            raise RayServeDeployError(f"{what}. Nothing was rolled back", statuses=statuses)
        self.log.error("The deployment failed: %s", event.detail)
        done, rolled_back = self._rolled_back(before, deployed)
        kind = RayServeTimeoutError if event.outcome is Outcome.TIMEOUT else RayServeDeployError
        raise kind(f"{what}\n{done}", statuses=statuses, rolled_back=rolled_back)

    def _rolled_back(self, before: Mapping[str, Any], deployed: Mapping[str, str]) -> tuple[str, bool]:
        """Put back what was there before, and wait until it is healthy; return what was done, and if anything was."""
        from airflow_provider_rayjobs.following.events import Outcome
        from airflow_provider_rayjobs.following.serving import ServeWatch
        from airflow_provider_rayjobs.tasks.arguments import as_number

        if not self.roll_back:
            return "Nothing was rolled back (roll_back=False)", False
        done, back = self._put_back(before, deployed)
        if waiting := tuple(name for name in back if before[name] is not None):
            began = time.monotonic()
            deadline = time.time() + float(as_number(self.deploy_timeout))
            event = self._waited(ServeWatch(waiting, deadline, self.poll_interval))
            how = (
                f"healthy after {time.monotonic() - began:.0f} s"
                if event.outcome is Outcome.SUCCEEDED
                else f"NOT healthy: {event.detail}"
            )
            done = f"{done}; {', '.join(waiting)}: {how}"
        return done, bool(back)

    def _put_back(self, before: Mapping[str, Any], deployed: Mapping[str, str]) -> tuple[str, list[str]]:
        """Send the configs that were there before; return what was done, and the applications that were put back."""
        from airflow_provider_rayjobs.client.serve_config import plan_back

        if not self.roll_back:
            return "", []
        if not before:
            return "Nothing was rolled back: the config that was there before is not known", []
        try:
            with self.hook.get_conn().waiting_for_cluster(self.log):
                body, back = plan_back(before, deployed, self.hook.get_serve_details())
                if back:
                    self.hook.deploy_applications(body)
        except (RayJobsError, ValueError) as e:
            self.log.error("Could not be rolled back: %s", e)
            return f"Could not be rolled back: {e}", []
        parts = {
            "back to the previous config": [name for name in back if before[name] is not None],
            "removed, because it was not there before": [name for name in back if before[name] is None],
            "left alone, because somebody else has changed it": [name for name in before if name not in back],
        }
        said = "; ".join(f"{', '.join(names)}: {what}" for what, names in parts.items() if names)
        done = f"Rolled back: {said}"
        self.log.info("%s", done)
        return done, back
