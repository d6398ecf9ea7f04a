"""``@task.ray_job``: a Python function runs as the driver of a Ray job, and its value comes back."""

from __future__ import annotations

import contextlib
import inspect
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import DecoratedOperator, task_decorator_factory

from airflow_provider_rayjobs.compat import versions
from airflow_provider_rayjobs.operators.submit import RaySubmitJobOperator

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from airflow.providers.common.compat.sdk import Context, TaskDecorator

    from airflow_provider_rayjobs.exceptions import RayJobResultError
    from airflow_provider_rayjobs.functions.package import Task

__all__ = ["RayJobDecoratedOperator", "ray_job_task"]

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
        serializer: str = "json",
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

    def _described(self, context: Context) -> Task:
        from airflow_provider_rayjobs.functions import package as function_package

        return function_package.describe_task(
            self.python_callable,
            tuple(self.op_args),
            self._keywords(context),
            serializer=self.serializer,
            result_path=self.result_path,
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
