"""``@task.ray_job``: a Python function runs as the driver of a Ray job, and its value comes back."""

from __future__ import annotations

import contextlib
import inspect
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import AirflowFailException, DecoratedOperator, task_decorator_factory

from airflow_provider_rayjobs.cluster.fields import DEFAULT_UPLOAD_LIMIT
from airflow_provider_rayjobs.compat import versions
from airflow_provider_rayjobs.exceptions import RayJobResultError, RayJobsError, RayPackageError
from airflow_provider_rayjobs.operators.submit import RaySubmitJobOperator
from airflow_provider_rayjobs.text.safe_text import is_safe, safe_text, safe_value

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from airflow.providers.common.compat.sdk import Context, TaskDecorator

    from airflow_provider_rayjobs.following.events import JobEvent
    from airflow_provider_rayjobs.following.watcher import Watch
    from airflow_provider_rayjobs.functions.package import Task
    from airflow_provider_rayjobs.functions.result import Record
    from airflow_provider_rayjobs.jobs import JobDetails
    from airflow_provider_rayjobs.tasks.identity import TaskIdentity

__all__ = ["RayJobDecoratedOperator", "ray_job_task"]

#: XCom key of the function's last progress report.
PROGRESS_XCOM = "progress"

#: Keys of a function's ``**context``, as far as this Airflow has them: those that ``@task.virtualenv`` passes (the
#: serializable ones of ``airflow.providers.standard.operators.python``), and ``params``.
CONTEXT_KEYS = (
    *("ds", "ds_nodash", "expanded_ti_count", "inlets", "map_index_template", "outlets", "params", "partition_key"),
    *("run_id", "task_instance_key_str", "task_reschedule_count", "test_mode", "ts", "ts_nodash", "ts_nodash_with_tz"),
    *("data_interval_end", "data_interval_start", "logical_date", "partition_date", "prev_data_interval_end_success"),
    *("prev_data_interval_start_success", "prev_end_date_success", "prev_start_date_success"),
    # Airflow 2's own.
    *("execution_date", "next_ds", "next_ds_nodash", "next_execution_date", "prev_ds", "prev_ds_nodash"),
    *("prev_execution_date", "prev_execution_date_success", "tomorrow_ds", "tomorrow_ds_nodash", "yesterday_ds"),
    "yesterday_ds_nodash",
)


class RayJobDecoratedOperator(DecoratedOperator, RaySubmitJobOperator):
    """
    Runs a function as a Ray job; the operator of ``@task.ray_job``.

    The function is shipped as its source, so it must contain all that it needs: imports inside, data as arguments. It
    runs as the driver: ``ray.init()`` in it finds its cluster. Takes the arguments of
    :class:`~airflow_provider_rayjobs.operators.RaySubmitJobOperator`, except ``entrypoint`` and
    ``wait_for_completion``, and those below.

    Example::

        def square(number):
            return number * number

        RayJobDecoratedOperator(task_id="square", python_callable=square, op_args=[3])

    :param python_callable: the function.
    :param op_args: its positional arguments (templated).
    :param op_kwargs: its keyword arguments (templated).
    :param serializer: how the arguments are sent: ``json``
        (see :mod:`~airflow_provider_rayjobs.functions.shipped.values`) or ``cloudpickle``. The value always comes back
        as JSON.
    :param result_path: URL of a folder that the cluster and the Airflow workers can reach, as ``ObjectStoragePath``
        takes it (templated). A value of more than 16 MiB is stored there, as ``<submission id>.json``; it is not
        deleted automatically.
    :raises TypeError: if an argument has a wrong type, or the function is not a plain ``def``.
    :raises ValueError: if an argument is wrong, or the function uses variables of an enclosing function.
    """

    custom_operator_name = "@task.ray_job"
    _reads_result = True
    template_fields: Sequence[str] = ("op_args", "op_kwargs", "result_path", *RaySubmitJobOperator.template_fields)
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **RaySubmitJobOperator.template_fields_renderers,
        "op_args": "py",
        "op_kwargs": "py",
    }
    if versions.DECORATORS_MISS_XCOM_PUSH:
        xcom_push = None

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        serializer: str = "json",
        result_path: str | None = None,
        **kwargs: Any,
    ) -> None:
        from airflow_provider_rayjobs.functions import package as function_package

        for name in ("entrypoint", "wait_for_completion"):
            if name in kwargs:
                raise TypeError(
                    f"@task.ray_job does not take {name}: it runs the function and waits for its value; remove it"
                )
        if serializer not in function_package.SERIALIZERS:
            raise ValueError(f"serializer must be one of {', '.join(function_package.SERIALIZERS)}, not {serializer!r}")
        function_package.check_function(python_callable)
        super().__init__(
            python_callable=python_callable,
            entrypoint=["python", "-m", function_package.LAUNCHER, python_callable.__name__],
            wait_for_completion=True,
            **kwargs,
        )
        self.serializer = serializer
        self.result_path = result_path
        self._function: Task | None = None  # its packages, between the check and the upload
        self._attempt_key = ""  # makes the package of the call unique to this attempt

    def execute(self, context: Context) -> Any:
        """Submit the function's job, or take over the one that an earlier try left; return the function's value."""
        from airflow_provider_rayjobs.functions import result  # noqa: F401 - now: an upgrade may replace it meanwhile

        self._function = self._package(context)  # before any request, because it may raise
        return super().execute(context)

    def _package(self, context: Context) -> Task:
        from airflow_provider_rayjobs.functions import package as function_package

        try:
            if containers := {"container", "image_uri"}.intersection(self.runtime_env or {}):
                raise ValueError(
                    f"runtime_env[{containers.pop()!r}] can't be used with @task.ray_job, because Ray allows no "
                    "py_modules in containers; remove it"
                )
            if self.result_path is not None and "://" not in self.result_path:
                raise ValueError(
                    f"result_path must be a URL such as s3://…, gs://… or file://…, not {self.result_path!r}"
                )
            task = function_package.describe_task(
                self.python_callable,
                tuple(self.op_args),
                self._keywords(context),
                serializer=self.serializer,
                result_path=self.result_path,
            )
            return function_package.build_packages(task, self._upload_limit)
        except (TypeError, ValueError) as e:
            raise AirflowFailException(f"Nothing was submitted: {e}") from None

    @property
    def _upload_limit(self) -> int:
        """Maximum size of the package, in bytes. A cluster that KubeRay makes has the default."""
        return DEFAULT_UPLOAD_LIMIT if self._cluster_is_given else self.hook.cluster.upload_limit

    def _keywords(self, context: Mapping[str, Any]) -> dict[str, Any]:
        """Return the keyword arguments, and the parts of the context for which the function has parameters."""
        parameters = inspect.signature(self.python_callable).parameters
        given = inspect.signature(self.python_callable).bind_partial(*self.op_args, **self.op_kwargs).arguments
        named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        wanted = {}
        for name, parameter in parameters.items():
            if name in given or name not in context or parameter.kind not in named:
                continue
            if parameter.default is inspect.Parameter.empty:
                wanted[name] = self._from_context(context[name], f"context[{name!r}]")
            elif parameter.default is None:  # as with `@task.virtualenv`, what can't be sent stays None
                with contextlib.suppress(TypeError):
                    wanted[name] = self._from_context(context[name], name)
        if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
            taken = {name for name, parameter in parameters.items() if parameter.kind in named}
            wanted |= self._rest_of_context(context, {*self.op_kwargs, *taken})
        return {**self.op_kwargs, **wanted}

    def _from_context(self, value: Any, name: str) -> Any:
        from airflow_provider_rayjobs.functions.shipped import values

        plain = _plain(value)
        if self.serializer == "json":
            values.encode(plain, name)
        return plain

    def _rest_of_context(self, context: Mapping[str, Any], taken: Collection[str]) -> dict[str, Any]:
        """Return the items for a function's ``**context``; those without a JSON form are left out."""
        from airflow_provider_rayjobs.functions.shipped import values

        rest = {}
        # Not key by key: Airflow 2 warns about some of them then.
        for name, value in context.items():
            if name not in CONTEXT_KEYS or name in taken:
                continue
            try:
                values.encode(plain := _plain(value), name)
            except TypeError as e:
                self.log.debug("Left out of the function's context: %s", e)
            else:
                rest[name] = plain
        return rest

    def _submit(self, context: Context, identity: TaskIdentity, session: str | None) -> Watch:
        if self._function is None:  # this try has submitted before, or followed the job of an earlier one
            self._function = self._package(context)
        self._attempt_key = identity.attempt_key
        return super()._submit(context, identity, session)

    def _prepare(self, runtime_env: dict[str, Any] | None) -> dict[str, Any]:
        """Upload the function last: Ray keeps a package that no job uses for ten minutes only."""
        from airflow_provider_rayjobs.functions.package import upload_packages
        from airflow_provider_rayjobs.hooks import package_store
        from airflow_provider_rayjobs.packaging.upload import ReadyRuntimeEnv

        ready = super()._prepare(runtime_env) or {}
        assert self._function is not None  # noqa: S101 - for mypy
        try:
            uris = upload_packages(self._function, package_store(self.hook.get_conn()), self._attempt_key)
        except RayPackageError as e:
            raise type(e)(f"Nothing was submitted: {e}") from None
        self._function = None  # it may be large, and the wait long
        return ReadyRuntimeEnv({**ready, "py_modules": [*(ready.get("py_modules") or []), *uris]})

    def _outcome(self, context: Context, event: JobEvent) -> Any:
        if event.progress is not None:
            self._push_progress(context, event.progress)
        return super()._outcome(context, event)

    def _traceback(self, context: Context, event: JobEvent) -> str:
        """Return the function's own traceback; empty if the driver wrote none."""
        from airflow_provider_rayjobs.compat import masking
        from airflow_provider_rayjobs.functions.result import traceback_of

        try:
            with self._waiting_for_cluster():
                job = self.hook.get_job_info(event.submission_id)
            record = self._read(context, job, event.submission_id)
        except RayJobsError as e:
            self.log.debug("No traceback of the function: %s", e)
            return ""
        return safe_text(masking.public_for(job)(traceback_of(record))) if record.outcome == "error" else ""

    def _result(self, context: Context, event: JobEvent) -> Any:
        from airflow_provider_rayjobs.tasks.earlier_tries import NewJobNeededError
        from airflow_provider_rayjobs.tasks.stopping import find_job

        with self._waiting_for_cluster():
            job = find_job(self.hook, event.submission_id)
        try:
            if job is None:
                raise RayJobResultError(f"{event.address}: Ray job {event.submission_id} is gone, with its result")
            return self._value(self._read(context, job, event.submission_id), event)
        except RayJobResultError as e:
            # The try that submitted this job fails; a later one, which took it over, submits a new job.
            if event.reattached_at is None:
                raise
            self.log.warning("%s; submitting a new job", e)
            raise NewJobNeededError from e

    def _value(self, record: Record, event: JobEvent) -> Any:
        value = self._value_in(record, event)
        if versions.INTEGERS_HAVE_64_BITS and not _has_short_integers(value):
            raise RayJobResultError(
                f"{event.address}: Ray job {event.submission_id}: the function's value holds an integer of more than "
                "64 bits, which Airflow can't store in an XCom; return it as a string"
            )
        if not is_safe(value):
            self.log.warning(
                "The function's value holds NUL characters or lone surrogates, which Airflow's databases can't store; "
                "they were replaced by their escapes, such as \\x00"
            )
        return safe_value(value)

    def _value_in(self, record: Record, event: JobEvent) -> Any:
        from airflow_provider_rayjobs.functions.result import stored_at, value_of

        name = f"{event.address}: Ray job {event.submission_id}"
        if record.outcome == "error":
            raise RayJobResultError(f"{name} ended SUCCEEDED, but its function failed")
        if record.outcome == "value":
            return value_of(record, name)
        if self.result_path is None:
            raise RayJobResultError(
                f"{name}: its value was stored in the task's result_path, which is no longer set; set it again"
            )
        from airflow.providers.common.compat.sdk import ObjectStoragePath

        url = stored_at(self.result_path, event.submission_id)
        self.log.info("Reading the value, %s bytes, from %s", f"{record.size:,}", url)
        path: Any = ObjectStoragePath(url)
        with path.open("rb") as file:
            return value_of(record, name, file.read(record.size + 1))

    def _read(self, context: Context, job: JobDetails, submission_id: str) -> Record:
        """Read the result file that the driver wrote."""
        from airflow_provider_rayjobs.client.aiohttp_transport import AiohttpTransport
        from airflow_provider_rayjobs.compat import masking
        from airflow_provider_rayjobs.functions.result import read_record

        async def read() -> Record:
            transport = AiohttpTransport(self.hook.cluster)
            try:
                return await read_record(transport, submission_id, job.driver_node_id, self.log)
            finally:
                await transport.close()

        record = (self._guard or self._new_guard(context)).run(read())
        if record.progress is not None:
            public = masking.public_for(job)
            self._push_progress(context, {**record.progress, "message": public(record.progress["message"])})
        return record

    def _push_progress(self, context: Context, report: dict[str, Any]) -> None:
        from airflow_provider_rayjobs import progress
        from airflow_provider_rayjobs.tasks import context as task_context

        task_context.push_xcom(context, PROGRESS_XCOM, progress.stored(report))


def _has_short_integers(value: Any) -> bool:
    """Return whether a value's integers have at most 64 bits."""
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list | tuple | set | frozenset):
        return all(map(_has_short_integers, value))
    return not isinstance(value, int) or -(2**63) <= value < 2**64


def _plain(value: Any) -> Any:
    """Return the value behind a lazy proxy: Airflow computes some parts of the context only when they are used."""
    from lazy_object_proxy import Proxy  # type: ignore[import-untyped]

    return value.__wrapped__ if isinstance(value, Proxy) else value


def ray_job_task(
    python_callable: Callable[..., Any] | None = None, multiple_outputs: bool | None = None, **kwargs: Any
) -> TaskDecorator:
    """
    Make a task from a function whose body runs as the driver of a Ray job; used as ``@task.ray_job``.

    :param python_callable: the function.
    :param multiple_outputs: whether each key of the dict that it returns becomes an XCom.
    :param kwargs: other arguments of :class:`RayJobDecoratedOperator`.
    """
    return task_decorator_factory(
        python_callable=python_callable,
        multiple_outputs=multiple_outputs,
        decorated_operator_class=RayJobDecoratedOperator,
        **kwargs,
    )
