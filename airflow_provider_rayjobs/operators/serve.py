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
    RayRequestRefusedError,
    RayServeDeployError,
    RayServeTimeoutError,
    RayTLSError,
)
from airflow_provider_rayjobs.kubernetes.given import check_makes_none, known_cluster
from airflow_provider_rayjobs.tasks.rendering import RendersTexts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_rayjobs.client.serve_config import Plan, Rollback
    from airflow_provider_rayjobs.following.serving import ServeEvent, ServeWatch
    from airflow_provider_rayjobs.hooks import RayJobHook
    from airflow_provider_rayjobs.serve import ServeDetails

__all__ = ["RayServeDeployOperator"]

#: Seconds that a deferred task keeps of its execution_timeout for a rollback, and the most that it keeps, as a share.
ROLLBACK_TIME = 120.0
ROLLBACK_SHARE = 0.25

#: Seconds within which a deployment may take effect whose request was interrupted.
APPEAR_TIMEOUT = 4.0


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

    #: What this deployment has changed; there is none before a plan was made.
    _rollback: Rollback
    #: Whether the cluster may have got anything; whether a request is under way; whether its outcome has been told.
    _is_sent = _is_in_flight = _is_told = False

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
            from airflow_provider_rayjobs.client.serve_config import parsed_or_lines
            from airflow_provider_rayjobs.compat import masking

            # Also what execute() will refuse: Airflow stores it all the same.
            masking.register_config([parsed_or_lines(self.config), self.applications])

    def execute(self, context: Context) -> dict[str, str]:
        """
        Deploy the applications, and wait until they are healthy.

        :raises RayServeDeployError: if they did not become healthy.
        :raises AirflowFailException: if the config is wrong, or another application can't be kept.
        :raises RayClusterUnreachableError: if the cluster was unreachable for ``unreachable_timeout`` seconds.
        """
        from airflow_provider_rayjobs.following.serving import ServeWatch
        from airflow_provider_rayjobs.tasks import context as task_context
        from airflow_provider_rayjobs.tasks.guard import refused_for_good

        with refused_for_good():
            timeout, config = self._checked_timeout(), self._checked_config()
            with self._owning_outcome():
                planned, details = self._deploy(config)
                self._rollback = self._rollback.confirmed(details)
                watch = ServeWatch(
                    planned.names,
                    self._deadline(context, timeout),
                    self.poll_interval,
                    deployed=self._rollback.digests,
                )
                if self.deferrable and not self._are_running(planned, details) and self._may_store():
                    task_context.note_deferral(context)
                    self._defer(watch)
                return self._conclude(self._waited(watch))

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
            # Airflow 3 does not enforce execution_timeout while the task is deferred. Airflow 2 does, before it calls
            # execute_complete, so the trigger must end earlier to leave time for a rollback.
            limit = self.execution_timeout.total_seconds()
            deadline = min(deadline, started.timestamp() + limit - min(ROLLBACK_TIME, limit * ROLLBACK_SHARE))
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

    def _deploy(self, config: dict[str, Any]) -> tuple[Plan, ServeDetails]:
        """Say what is done, and do it; return what the last attempt did, and what is there then."""
        from airflow_provider_rayjobs.client.serve_config import AGAIN, plan

        plans: list[Plan] = []

        def attempt(details: ServeDetails) -> dict[str, Any] | None:
            if plans and self._rollback.is_there(details) and not plans[-1].parts[AGAIN]:
                self.log.info("The cluster has got what was sent")
                return None
            try:
                planned = plan(config, details, remove_others=self.remove_others)
            except ValueError as e:
                if plans:
                    raise RayServeDeployError(f"The deployment was not sent again: {e}") from None
                raise AirflowFailException(f"Nothing was deployed: {e}") from None
            self._rollback = planned.rollback.after(self._rollback) if plans else planned.rollback
            plans.append(planned)
            self.log.info("Ray Serve at %s: this deployment %s", self.hook.get_address(), planned)
            if self.roll_back:
                for name, why in planned.rollback.lost.items():
                    self.log.warning("Application %r can't be put back: %s", name, why)
            if planned.is_needed:
                return planned.body
            self.log.info("The cluster has this config already: nothing is sent")
            return None

        details = self._until_sent(attempt)
        return plans[-1], details

    def _until_sent(self, attempt: Callable[[ServeDetails], dict[str, Any] | None]) -> ServeDetails:
        """
        Read what is there, and send what is to be sent; after a lost answer, from the beginning.

        :param attempt: returns what to send, None for nothing.
        :return: what is there then.
        """
        from airflow_provider_rayjobs.client.contact import Contact
        from airflow_provider_rayjobs.client.retries import absence_waits

        contact, waits = Contact(self.hook.cluster.unreachable_timeout, self.log), absence_waits()
        with self.hook.get_conn().waiting_for_cluster(self.log):
            while True:
                details = self.hook.get_serve_details()
                body = attempt(details)
                if body is None:
                    return details
                try:
                    self._send(body)
                except RayTLSError:
                    raise
                except RayClusterUnreachableError as e:
                    if detail := contact.failed(e):
                        address = self.hook.get_address()
                        raise RayClusterUnreachableError(f"{address}: {detail}", address=address) from None
                    time.sleep(max(0.0, min(next(waits), contact.left)))
                else:
                    contact.back()
                    return self.hook.get_serve_details()

    def _send(self, body: dict[str, Any]) -> None:
        was_sent, self._is_sent, self._is_in_flight = self._is_sent, True, True
        try:
            self.hook.deploy_applications(body)
        except RayRequestRefusedError:  # refused before anything was done
            self._is_sent, self._is_in_flight = was_sent, False
            raise
        except RayJobsError:
            self._is_in_flight = False
            raise
        self._is_in_flight = False

    @contextlib.contextmanager
    def _owning_outcome(self) -> Iterator[None]:
        """
        Put back what was there before, whatever ends the block after a deployment was sent.

        Not if the cluster can't be reached, and not after an error that says what became of the deployment.
        """
        try:
            yield
        except AirflowTaskTimeout:
            if self._is_sent:
                self.log.warning("execution_timeout has passed")
                self._put_back()
            raise
        except (AirflowFailException, RayClusterUnreachableError, RayServeDeployError):
            raise
        except RayJobsError as e:
            if not self._is_sent:
                raise
            self.log.error("The deployment failed: %s", e)
            done, rolled_back = self._rolled_back()
            if isinstance(e, RayRequestRefusedError):
                raise AirflowFailException(f"{e}\n{done}") from None
            raise RayServeDeployError(f"{e}\n{done}", rolled_back=rolled_back) from None

    @staticmethod
    def _are_running(planned: Plan, details: ServeDetails) -> bool:
        return all(name in details.applications and details.applications[name].is_running for name in planned.names)

    def _may_store(self) -> bool:
        """Whether Airflow's database may hold what a rollback needs."""
        from airflow_provider_rayjobs.compat import masking
        from airflow_provider_rayjobs.text.safe_text import is_safe

        before = self._rollback.before
        if not self.roll_back or (is_safe(before) and not masking.holds_secrets(before)):
            return True
        self.log.info(
            "Waiting on this worker: a rollback needs the previous config, which has secrets that Airflow's database "
            "must not hold"
        )
        return False

    def _defer(self, watch: ServeWatch) -> None:
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
            kwargs={"rollback": self._rollback.to_json() if self.roll_back else {}},
            timeout=timedelta(seconds=max(watch.deadline - time.time(), 0) + DEFERRAL_MARGIN),
        )

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

    def execute_complete(self, context: Context, event: Any = None, rollback: Any = None) -> dict[str, str]:
        """
        End the task as the trigger's event says.

        :param event: a :class:`~airflow_provider_rayjobs.following.serving.ServeEvent` as JSON.
        :param rollback: a :class:`~airflow_provider_rayjobs.client.serve_config.Rollback` as JSON.
        """
        from airflow_provider_rayjobs.client.serve_config import Rollback
        from airflow_provider_rayjobs.following.serving import ServeEvent
        from airflow_provider_rayjobs.tasks.guard import refused_for_good

        self._rollback, self._is_sent = Rollback.from_json(rollback or {}), True
        with refused_for_good(), self._owning_outcome():
            return self._conclude(ServeEvent.from_json(event))

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume after a deferral of this try; start from the beginning if the deferral was of an earlier try."""
        from airflow_provider_rayjobs.tasks import context as task_context

        if task_context.resumes_earlier_try(context):
            return self.execute(context)
        return super().resume_execution(next_method, next_kwargs, context)

    def on_kill(self) -> None:
        """Say that the deployment goes on: a killed process may have no time to put anything back."""
        if self._is_sent and not self._is_told:
            self.log.warning("The deployment goes on without this task, and is not rolled back")

    def _conclude(self, event: ServeEvent) -> dict[str, str]:
        """Return the statuses of healthy applications; else roll back, and raise why."""
        from airflow_provider_rayjobs.following.events import Outcome

        statuses = dict(event.statuses)
        if event.outcome is Outcome.SUCCEEDED:
            self._is_told = True
            return statuses
        what = f"{event.address}: {event.detail}" if event.address else event.detail
        if event.outcome is Outcome.UNREACHABLE:
            raise RayClusterUnreachableError(what, address=event.address)
        if event.outcome is Outcome.LOST:
            self._is_told = True
            raise RayServeDeployError(f"{what}. Nothing was rolled back", statuses=statuses)
        self.log.error("The deployment failed: %s", event.detail)
        done, rolled_back = self._rolled_back()
        if event.outcome is Outcome.STOPPED:
            state = "The deployment" if rolled_back else "The deployment goes on, but"
            raise AirflowFailException(f"{state} can't be followed: {event.detail}\n{done}")
        kind = RayServeTimeoutError if event.outcome is Outcome.TIMEOUT else RayServeDeployError
        raise kind(f"{what}\n{done}", statuses=statuses, rolled_back=rolled_back)

    def _rolled_back(self) -> tuple[str, bool]:
        """Put back what was there before, and wait until it is healthy; return what was done, and if anything was."""
        from airflow_provider_rayjobs.following.events import Outcome
        from airflow_provider_rayjobs.following.serving import ServeWatch
        from airflow_provider_rayjobs.tasks.arguments import as_number

        if not self.roll_back:
            self._is_told = True
            return "Nothing was rolled back (roll_back=False)", False
        done, back = self._put_back()
        if waiting := tuple(name for name in back if self._rollback.before[name] is not None):
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

    def _put_back(self) -> tuple[str, list[str]]:
        """Send the configs that were there before; return what was done, and the applications that were put back."""
        from airflow_provider_rayjobs.client.serve_config import plan_back

        if not self.roll_back or self._is_told:
            return "", []
        before, lost = self._rollback.before, self._rollback.lost
        if not before:
            self._is_told = True
            return f"Nothing was rolled back: the config that was there before is not known{_reasons(lost)}", []
        back: list[str] = []

        def attempt(details: ServeDetails) -> dict[str, Any] | None:
            body, back[:] = plan_back(self._rollback, details)
            return body

        try:
            self._await_effect()
            self._until_sent(attempt)
        except (RayJobsError, ValueError) as e:
            self.log.error("Could not be rolled back: %s", e)
            return f"Could not be rolled back: {e}", []
        finally:
            self._is_in_flight = False
        self._is_told = True
        parts = {
            "back to the previous config": [name for name in back if before[name] is not None],
            "removed, because it was not there before": [name for name in back if before[name] is None],
            "left alone, because somebody else has changed it": [name for name in before if name not in back],
            f"not put back{_reasons(lost)}": list(lost),
        }
        said = "; ".join(f"{', '.join(names)}: {what}" for what, names in parts.items() if names)
        done = f"Rolled back: {said}"
        self.log.info("%s", done)
        return done, back

    def _await_effect(self) -> None:
        """Wait a little for a deployment whose request was interrupted: it may take effect a moment later."""
        end = time.monotonic() + (APPEAR_TIMEOUT if self._is_in_flight else 0.0)
        while time.monotonic() < end and not self._rollback.is_there(self.hook.get_serve_details()):
            time.sleep(APPEAR_TIMEOUT / 10)


def _reasons(lost: Mapping[str, str]) -> str:
    """Return why applications can't be put back, for the end of a sentence."""
    return f" ({'; '.join(dict.fromkeys(lost.values()))})" if lost else ""
