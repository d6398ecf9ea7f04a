"""``@task.ray_job``: a Python function runs as the driver of a Ray job, and its value comes back."""

from __future__ import annotations

import contextlib
import inspect
from typing import TYPE_CHECKING, Any, ClassVar, overload

from airflow.providers.common.compat.sdk import DecoratedOperator, task_decorator_factory

from airflow_provider_rayjobs.cluster.fields import DEFAULT_CONN_ID
from airflow_provider_rayjobs.compat import versions
from airflow_provider_rayjobs.operators.submit import RaySubmitJobOperator

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, MutableMapping, Sequence
    from datetime import datetime, timedelta
    from typing import Generic, Literal, ParamSpec, Protocol, TypeVar

    from airflow.providers.common.compat.sdk import DAG, Context, TaskGroup, XComArg
    from airflow.sdk.bases.operator import TaskPostExecuteHook, TaskPreExecuteHook
    from airflow.sdk.definitions._internal.abstractoperator import TaskStateChangeCallback
    from airflow.sdk.definitions.retry_policy import RetryPolicy
    from airflow.sdk.types import WeightRuleParam

    from airflow_provider_rayjobs.exceptions import RayJobResultError
    from airflow_provider_rayjobs.functions.package import Task as ShippedTask

    FParams = ParamSpec("FParams")
    FReturn = TypeVar("FReturn")

    class Task(Protocol, Generic[FParams, FReturn]):
        """
        What the decorator makes of a function, for type checkers.

        Airflow's own has a name that depends on Airflow's version. Where a checker does not find it, it takes the
        function's parameters for wrong.
        """

        __call__: Callable[FParams, XComArg]
        function: Callable[FParams, FReturn]

        @property
        def __wrapped__(self) -> Callable[FParams, FReturn]: ...
        def partial(self, **kwargs: Any) -> Task[FParams, FReturn]: ...
        def expand(self, **kwargs: Any) -> XComArg: ...
        def expand_kwargs(self, kwargs: Any, *, strict: bool = True) -> XComArg: ...
        def override(self, **kwargs: Any) -> Task[FParams, FReturn]: ...


__all__ = ["RayJobDecoratedOperator", "ray_job"]

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
    :class:`~airflow_provider_rayjobs.operators.RaySubmitJobOperator`, except ``entrypoint``, ``wait_for_completion``
    and ``read_result``, and those below.

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
    :raises TypeError: if an argument has a wrong type, or the function is not a plain ``def``.
    :raises ValueError: if an argument is wrong, or the function uses variables of an enclosing function.
    """

    custom_operator_name = "@task.ray_job"
    _result_of = "@task.ray_job"
    template_fields: Sequence[str] = ("op_args", "op_kwargs", *RaySubmitJobOperator.template_fields)
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
        serializer: Literal["json", "cloudpickle"] = "json",
        **kwargs: Any,
    ) -> None:
        from airflow_provider_rayjobs.functions import package as function_package

        for name in ("entrypoint", "wait_for_completion", "read_result"):
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
            read_result=True,
            **kwargs,
        )
        self.serializer = serializer

    def _described(self, context: Context) -> ShippedTask:
        from airflow_provider_rayjobs.functions import package as function_package

        return function_package.describe_task(
            self.python_callable,
            tuple(self.op_args),
            self._keywords(context),
            serializer=self.serializer,
            result_path=self._result_folder,
        )

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

    def _without_result(self, error: RayJobResultError) -> None:
        raise error  # a function always has a value


def _plain(value: Any) -> Any:
    """Return the value behind a lazy proxy: Airflow computes some parts of the context only when they are used."""
    from lazy_object_proxy import Proxy  # type: ignore[import-untyped]

    return value.__wrapped__ if isinstance(value, Proxy) else value


@overload
def ray_job(python_callable: Callable[FParams, FReturn], /) -> Task[FParams, FReturn]: ...
@overload
def ray_job(
    *,
    multiple_outputs: bool | None = None,
    serializer: Literal["json", "cloudpickle"] = "json",
    # Those of the operator, in its order.
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
    result_path: str | None = None,
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
    # Those of every operator of the newest Airflow; their defaults depend on Airflow's version and configuration.
    task_id: str = ...,
    owner: str = ...,
    email: str | Sequence[str] | None = ...,
    email_on_retry: bool = ...,
    email_on_failure: bool = ...,
    retries: int | None = ...,
    retry_delay: timedelta | float = ...,
    retry_exponential_backoff: float = ...,
    max_retry_delay: timedelta | float | None = ...,
    retry_policy: RetryPolicy | None = ...,
    start_date: datetime | None = ...,
    end_date: datetime | None = ...,
    depends_on_past: bool = ...,
    ignore_first_depends_on_past: bool = ...,
    wait_for_past_depends_before_skipping: bool = ...,
    wait_for_downstream: bool = ...,
    dag: DAG | None = ...,
    params: MutableMapping[str, Any] | None = ...,
    default_args: dict[str, Any] | None = ...,
    priority_weight: int = ...,
    weight_rule: WeightRuleParam = ...,
    queue: str = ...,
    pool: str | None = ...,
    pool_slots: int = ...,
    execution_timeout: timedelta | None = ...,
    on_execute_callback: TaskStateChangeCallback | Collection[TaskStateChangeCallback] | None = ...,
    on_failure_callback: TaskStateChangeCallback | list[TaskStateChangeCallback] | None = ...,
    on_success_callback: TaskStateChangeCallback | Collection[TaskStateChangeCallback] | None = ...,
    on_retry_callback: TaskStateChangeCallback | list[TaskStateChangeCallback] | None = ...,
    on_skipped_callback: TaskStateChangeCallback | Collection[TaskStateChangeCallback] | None = ...,
    pre_execute: TaskPreExecuteHook | None = ...,
    post_execute: TaskPostExecuteHook | None = ...,
    trigger_rule: str = ...,
    resources: dict[str, Any] | None = ...,
    run_as_user: str | None = ...,
    map_index_template: str | None = ...,
    max_active_tis_per_dag: int | None = ...,
    max_active_tis_per_dagrun: int | None = ...,
    executor: str | None = ...,
    executor_config: dict[str, Any] | None = ...,
    do_xcom_push: bool = ...,
    inlets: Any | None = ...,
    outlets: Any | None = ...,
    task_group: TaskGroup | None = ...,
    doc: str | None = ...,
    doc_md: str | None = ...,
    doc_json: str | None = ...,
    doc_yaml: str | None = ...,
    doc_rst: str | None = ...,
    task_display_name: str | None = ...,
    logger_name: str | None = ...,
    allow_nested_operators: bool = ...,
    render_template_as_native_obj: bool | None = ...,
) -> Callable[[Callable[FParams, FReturn]], Task[FParams, FReturn]]: ...
def ray_job(
    python_callable: Callable[..., Any] | None = None, multiple_outputs: bool | None = None, **kwargs: Any
) -> Any:
    """
    Make a task from a function whose body runs as the driver of a Ray job: ``@ray_job``, or ``@ray_job(…)``.

    It is the same as ``@task.ray_job``, which Airflow's types let take any argument; editors and type checkers know the
    arguments of this one. Example::

        from airflow_provider_rayjobs.decorators import ray_job

        @ray_job(entrypoint_num_gpus=1, deferrable=True)
        def train(epochs: int) -> dict[str, float]: ...

        train(10)

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
