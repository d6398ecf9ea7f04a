"""Templates and the context, by ``airflow dags test`` on a real head."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import airflow_processes
from tests.support.airflow_records import AirflowRecords
from tests.support.ports import free_port

if TYPE_CHECKING:
    from tests.support.ray_head import RayHead

HERE = Path(__file__).parent
DAGS = ("rj_texts", "rj_native")
SKIPPED = {"stop_template", "stop_xcom", "delete_xcom", "delete_mapped"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, ray_head: RayHead) -> AirflowRecords:
    """Run both DAGs to their ends."""
    home = tmp_path_factory.mktemp("templates")
    (home / "dags").mkdir()
    shutil.copy(HERE / "dags" / "templates.py", home / "dags")
    airflow_processes.write_home(home)
    connection = {"conn_type": "ray_jobs", "host": ray_head.host, "port": ray_head.port}
    environment = {
        **airflow_processes.clean_environment(),
        **airflow_processes.settings(home, home / "dags", free_port(), parallelism=2),
        "AIRFLOW_CONN_RAY_DEFAULT": json.dumps(connection),
    }
    for arguments in (("db", "migrate"), *(("dags", "test", dag) for dag in (*DAGS, "rj_context"))):
        command = [sys.executable, "-m", "airflow", *arguments]
        done = subprocess.run(
            command, cwd=home, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        (home / f"{arguments[-1]}.log").write_text(done.stdout)
        assert done.returncode == 0, done.stdout[-4000:]
    return AirflowRecords(home)


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
def test_both_submit_the_same_jobs(runs: AirflowRecords, ray_head: RayHead) -> None:
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
def test_what_was_never_submitted_needs_no_cleaning_up(runs: AirflowRecords, dag: str) -> None:
    rows = runs.query("SELECT task_id, state FROM task_instance WHERE dag_id = ?", dag)
    unusual = {(row["task_id"], row["state"]) for row in rows if row["state"] != "success"}
    assert unusual == {("never", "failed"), *((task, "skipped") for task in SKIPPED)}


def test_a_function_gets_the_context_that_airflows_own_get(runs: AirflowRecords) -> None:
    returned = {}
    for row in runs.query("SELECT task_id, value FROM xcom WHERE dag_id = 'rj_context' AND key = 'return_value'"):
        value = json.loads(row["value"])
        returned[row["task_id"]] = json.loads(value) if isinstance(value, str) else value
    theirs, ours = returned["elsewhere"], returned["on_ray"]
    theirs.pop("templates_dict", None)  # of an argument that theirs has
    assert "ts_nodash_with_tz" in theirs
    same = {name: value for name, value in ours.items() if name in theirs}
    assert same == theirs | {name: same[name] for name in theirs if name.endswith("_key_str")}
    more = {name: kind for name, (kind, _) in ours.items() if name not in theirs}
    assert more.pop("params") == "dict"
    # An Airflow that is not there can't bring its dates to the other one.
    assert {"logical_date", "data_interval_start", "prev_start_date_success"} <= more.keys()
    assert set(more.values()) <= {"datetime", "NoneType"}
