"""
What type checkers see of ``@ray_job``: `make types` has mypy and pyright check this file, and nothing runs it.

Lines that must be wrong are marked with "ignore"; both checkers report a mark on a line that is right.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, assert_type

from airflow.providers.common.compat.sdk import XComArg

from airflow_provider_rayjobs.decorators import ray_job

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


def told(context: Context) -> None: ...


@ray_job
def plain(limit: int, *, name: str = "a") -> list[int]:
    return [limit]


@ray_job(
    entrypoint_num_cpus=0.5,
    runtime_env={"pip": ["torch"], "working_dir": "."},
    job_timeout="{{ params.limit }}",
    deferrable=True,
    serializer="cloudpickle",
    multiple_outputs=True,
    retries=2,
    retry_delay=timedelta(minutes=1),
    pool="gpu",
    on_failure_callback=[told],
)
def with_arguments(limit: int) -> dict[str, float]:
    return {"loss": limit / 2}


# The function keeps its signature, and a call is an XCom, as with Airflow's own decorators.
assert_type(plain.function(1, name="b"), list[int])
assert_type(with_arguments.function(limit=1), dict[str, float])
assert_type(with_arguments.__wrapped__(1), dict[str, float])
assert_type(plain(1), XComArg)
assert_type(plain(limit=1, name="b"), XComArg)
assert_type(with_arguments(limit=1), XComArg)
plain("one")  # type: ignore[arg-type]
plain(1, nam="b")  # type: ignore[call-arg]
with_arguments()  # type: ignore[call-arg, misc]

# So do its variants.
changed = with_arguments.override(task_id="other", retries=0)
assert_type(changed(limit=1), XComArg)
assert_type(changed.function(1), dict[str, float])
assert_type(plain.partial(name="b").function(1), list[int])
assert_type(plain.partial(name="b").expand(limit=[1, 2]), XComArg)
assert_type(with_arguments.expand(limit=plain(1)), XComArg)
assert_type(with_arguments.expand_kwargs([{"limit": 1}]), XComArg)
changed("one")  # type: ignore[arg-type]

# Arguments of the decorator.
ray_job(entrypoint_num_cpu=1)  # type: ignore[call-overload]
ray_job(job_timeout=timedelta(hours=1))  # type: ignore[call-overload]
ray_job(serializer="pickle")  # type: ignore[call-overload]
ray_job(retries="two")  # type: ignore[call-overload]
ray_job(entrypoint="true")  # type: ignore[call-overload]
ray_job(wait_for_completion=False)  # type: ignore[call-overload]
ray_job(read_result=True)  # type: ignore[call-overload]
ray_job(1)  # type: ignore[call-overload]
