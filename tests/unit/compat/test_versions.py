"""What this Airflow can do and does wrong, by its version."""

from __future__ import annotations

import asyncio
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_rayjobs.compat import versions
from airflow_provider_rayjobs.operators import RaySubmitJobOperator

AIRFLOW = tuple(map(int, version("apache-airflow").split(".")[:3]))
only_3 = pytest.mark.skipif(AIRFLOW < (3, 0, 0), reason="Airflow 2 has no supervisor")


def test_what_differs_is_told_by_the_version() -> None:
    only_3_0, is_3 = AIRFLOW[:2] == (3, 0), AIRFLOW[0] == 3
    assert versions.ONLY_3_0 is only_3_0
    assert versions.DECORATORS_MISS_XCOM_PUSH is only_3_0
    assert versions.RESUMES_IN_RETRIES is (only_3_0 or AIRFLOW == (3, 1, 0))
    assert versions.INTEGERS_HAVE_64_BITS is is_3
    assert [kind.__name__ for kind in versions.TERMINATED] == (["AirflowTaskTerminated"] if not is_3 else [])


@only_3
def test_a_triggerer_ends_when_it_reads_no_answers_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk.execution_time import task_runner

    async def main() -> list[bool]:
        reader: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", SimpleNamespace(_reader_task=reader), raising=False)
        before = versions.triggerer_ends()
        reader.cancel()
        return [before, versions.triggerer_ends()]

    assert asyncio.run(main()) == [False, True]


@pytest.mark.parametrize("comms", [None, SimpleNamespace(), SimpleNamespace(_reader_task=None)])
def test_no_other_process_ends_as_a_triggerer(comms: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if AIRFLOW[0] == 3:
        from airflow.sdk.execution_time import task_runner

        monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", comms, raising=False)
    assert versions.triggerer_ends() is False


def test_a_mapped_task_is_told_from_one_of_the_dag_file() -> None:
    with DAG("mapped", schedule=None):
        mapped = RaySubmitJobOperator.partial(task_id="t").expand(entrypoint=["a", "b"])
    operator = mapped.unmap({**mapped.partial_kwargs, "task_id": "t", "entrypoint": "a"})
    assert versions.is_mapped(operator)
    assert not versions.is_mapped(RaySubmitJobOperator(task_id="t", entrypoint="a"))
