"""Templates and the context, in ``airflow dags test`` with a real head."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.airflow.command_airflow import CommandAirflow
from tests.support.databases import wants_sqlite

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.databases import Database
    from tests.support.ray_head import RayHead

pytestmark = pytest.mark.xdist_group("templates")  # they share runs

HERE = Path(__file__).parent
DAGS = ("rj_texts", "rj_native")
SKIPPED = {"stop_template", "stop_xcom", "delete_xcom", "delete_mapped"}


@pytest.fixture(scope="module")
def runs(
    tmp_path_factory: pytest.TempPathFactory, new_database: Callable[[Path], Database], ray_head: RayHead
) -> CommandAirflow:
    """Run the DAGs to their ends."""
    home = tmp_path_factory.mktemp("templates")
    airflow = CommandAirflow(home, new_database(home), HERE / "dags" / "templates.py", ray_head)
    airflow.run("dags", "test", "rj_context")  # writes all DAGs of the file into the database
    # In parallel, if the database supports that: they wait most of the time.
    with ThreadPoolExecutor(1 if wants_sqlite() else 2) as pool:
        list(pool.map(lambda dag: airflow.run("dags", "test", dag), DAGS))
    return airflow


def jobs_of(head: RayHead, dag_id: str) -> dict[str, Any]:
    jobs = {}
    for job in head.jobs():
        meta = job["metadata"] or {}
        if meta.get("airflow_dag_id") == dag_id:
            own = {key: value for key, value in meta.items() if not key.startswith("airflow_")}
            env_vars = (job["runtime_env"] or {}).get("env_vars")
            name = f"{meta['airflow_task_id']}[{meta['airflow_map_index']}]"
            jobs[name] = {"entrypoint": job["entrypoint"], "metadata": own, "env_vars": env_vars, "was": job["status"]}
    return jobs


@pytest.mark.timeout(900)
def test_both_submit_the_same_jobs(runs: CommandAirflow, ray_head: RayHead) -> None:
    texts, native = (jobs_of(ray_head, dag) for dag in DAGS)
    assert native == texts
    assert {name: job["was"] for name, job in native.items()} == dict.fromkeys(native, "SUCCEEDED")
    assert set(native) == {"cluster[-1]", "job[-1]", "mapped[0]", "mapped[1]", "work[-1]", "ended[-1]"}
    given = {"PORT": "8080", "N": "3", "VERSION": "3.10", "JSON": '{"a": [1, 2]}'}
    assert native["job[-1]"]["env_vars"] == {**given, "PIN": "91827364"}
    assert native["job[-1]"]["metadata"] == {"ticket": "12345", "version": "3.10"}
    assert native["mapped[0]"]["entrypoint"] == "echo 3 10"
    assert native["mapped[1]"]["entrypoint"] == "echo 3.10"
    assert native["mapped[1]"]["env_vars"] == given


@pytest.mark.parametrize("dag", DAGS)
def test_clean_up_is_skipped_if_nothing_was_submitted(runs: CommandAirflow, dag: str) -> None:
    rows = runs.query("SELECT task_id, state FROM task_instance WHERE dag_id = ?", dag)
    unusual = {(row["task_id"], row["state"]) for row in rows if row["state"] != "success"}
    assert unusual == {("never", "failed"), *((task, "skipped") for task in SKIPPED)}


def test_a_function_gets_the_same_context_as_in_airflows_own_decorators(runs: CommandAirflow) -> None:
    returned = {}
    (run,) = runs.query("SELECT run_id FROM dag_run WHERE dag_id = 'rj_context'")
    for task_id in ("elsewhere", "on_ray"):
        value = runs.xcom("rj_context", run["run_id"], task_id)
        returned[task_id] = json.loads(value) if isinstance(value, str) else value
    theirs, ours = returned["elsewhere"], returned["on_ray"]
    theirs.pop("templates_dict", None)  # for an argument that ours does not have
    assert "ts_nodash_with_tz" in theirs
    same = {name: value for name, value in ours.items() if name in theirs}
    assert same == theirs | {name: same[name] for name in theirs if name.endswith("_key_str")}
    more = {name: kind for name, (kind, _) in ours.items() if name not in theirs}
    assert more.pop("params") == "dict"
    # Without Airflow, the external Python can't receive these dates.
    assert {"logical_date", "data_interval_start", "prev_start_date_success"} <= more.keys()
    assert set(more.values()) <= {"datetime", "NoneType"}
