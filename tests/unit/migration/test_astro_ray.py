"""DAG files of the old provider, by its documented API: what becomes of them, and what is left to a person."""

from __future__ import annotations

import runpy
import warnings
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_rayjobs.migration.astro_ray import Migration

if TYPE_CHECKING:
    from pathlib import Path

SETUP_AND_TEARDOWN = '''\
"""A cluster for two jobs."""

from datetime import datetime
from pathlib import Path

from airflow import DAG

from ray_provider.operators import DeleteRayCluster, SetupRayCluster, SubmitRayJob

SPEC = Path(__file__).parent / "ray.yaml"

with DAG("clustered", start_date=datetime(2024, 1, 1), schedule=None) as dag:
    up = SetupRayCluster(
        task_id="up",
        conn_id="ray_conn",  # has the kubeconfig
        ray_cluster_yaml=str(SPEC),
        kuberay_version="1.0.0",
        update_if_exists=False,
    )
    train = SubmitRayJob(
        task_id="train",
        conn_id="ray_conn",
        # what is run
        entrypoint="python train.py",
        runtime_env={
            "working_dir": "/opt/train",  # is uploaded
        },
        num_cpus=2,  # of the driver
        num_gpus=0,
        memory=0,
        resources={},
        fetch_logs=True,
        job_timeout_seconds=3600,
        poll_interval=5,
        xcom_task_key="up.dashboard",
        retries=2,
    )
    check = SubmitRayJob(task_id="check", conn_id="c", entrypoint="x", runtime_env={}, xcom_task_key="up.dashboard")
    down = DeleteRayCluster(task_id="down", conn_id="ray_conn", ray_cluster_yaml=str(SPEC))

    up.as_setup() >> train >> check >> down.as_teardown()
    up >> down
'''

SETUP_AND_TEARDOWN_AFTER = '''\
"""A cluster for two jobs."""

from datetime import datetime
from pathlib import Path

from airflow import DAG

from airflow_provider_rayjobs.kuberay import KubeRayCluster, RayClusterDownOperator, RayClusterUpOperator
from airflow_provider_rayjobs.operators import RaySubmitJobOperator

SPEC = Path(__file__).parent / "ray.yaml"

with DAG("clustered", start_date=datetime(2024, 1, 1), schedule=None) as dag:
    up = RayClusterUpOperator(
        task_id="up",
        cluster=KubeRayCluster(str(SPEC), kubernetes_conn_id="ray_conn"),  # has the kubeconfig
    )
    train = RaySubmitJobOperator(
        task_id="train",
        cluster=up.output,
        # what is run
        entrypoint="python train.py",
        runtime_env={
            "working_dir": "/opt/train",  # is uploaded
        },
        entrypoint_num_cpus=2,  # of the driver
        stream_logs=True,
        job_timeout=3600,
        poll_interval=5,
        retries=2,
        deferrable=True,
    )
    check = RaySubmitJobOperator(
        task_id="check",
        cluster=up.output,
        entrypoint="x",
        runtime_env={},
        job_timeout=600,
        deferrable=True,
    )
    down = RayClusterDownOperator(task_id="down", cluster=up.output)

    up.as_setup() >> train >> check >> down.as_teardown()
    up >> down
'''

#: An older version had its operators in another module, and another argument.
SINGLE = """\
from airflow import DAG
from ray_provider.operators.ray import SubmitRayJob as Job

CONN = "ray_conn"
dag = DAG("single", schedule=None)
alone = Job(
    task_id="alone",
    conn_id=CONN,
    entrypoint="python x.py",
    runtime_env={},
    xcom_task_key="alone.dashboard",
    ray_cluster_yaml="/opt/clusters/ray.yaml",
    use_gpu=False,
    job_timeout_seconds=0,
    wait_for_completion=False,
    dag=dag,
)
plain = Job(task_id="plain", conn_id=CONN, entrypoint="a", runtime_env={}, ray_cluster_yaml=None, dag=dag)
each = Job.partial(task_id="each", conn_id=CONN, runtime_env={}, num_cpus=1, dag=dag).expand(
    entrypoint=["a", "b"], memory=[1, 2]
)
"""

TASKFLOW = """\
from datetime import datetime

from airflow.decorators import dag, task
from ray_provider.decorators import ray

CONFIG = {
    "conn_id": "ray_conn",
    "runtime_env": {"pip": ["numpy"]},
    "num_gpus": 0,
    "poll_interval": 5,  # seconds
}


@dag(start_date=datetime(2023, 1, 1), schedule=None, catchup=False)
def flow():
    @task
    def numbers():
        return [1, 2, 3]

    @ray.task(config=CONFIG, retries=2)
    def mean(data):
        import ray

        @ray.remote
        def square(x):
            return x**2

        return sum(ray.get([square.remote(x) for x in data])) / len(data)

    @ray.task(config={"conn_id": "kube", "ray_cluster_yaml": "/opt/ray.yaml", "num_cpus": 2}, multiple_outputs=True)
    def both(value):
        return {"value": value}

    @ray.task()
    def last(value):
        print(value)

    last(both(mean(numbers())))


flow()
"""


def tasks_of(text: str, folder: Path) -> dict[str, Any]:
    """Import a DAG file, and return its tasks by their ids."""
    file = folder / "dag_file.py"
    file.write_text(text)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Airflow 3 still accepts the imports of Airflow 2
        names = runpy.run_path(str(file))
    dags = [value for value in names.values() if isinstance(value, DAG)]
    found = dags or [value for value in (names["flow"](),) if isinstance(value, DAG)]
    return {task.task_id: task for task in found[0].tasks}


def done(text: str) -> Migration:
    return Migration(text.encode())


def remarks(migration: Migration) -> list[tuple[int, str]]:
    return [(remark.line, remark.text) for remark in migration.remarks]


def test_setup_and_teardown(tmp_path: Path) -> None:
    migration = done(SETUP_AND_TEARDOWN)
    assert migration.text == SETUP_AND_TEARDOWN_AFTER
    assert not migration.left
    assert remarks(migration) == [
        (15, 'connection "ray_conn" must have the type kubernetes'),
        (17, "install KubeRay's operator 1.6 or later once in the Kubernetes cluster, not in a DAG"),
    ]
    tasks = tasks_of(migration.text, tmp_path)
    assert {name: type(task).__name__ for name, task in tasks.items()} == {
        "up": "RayClusterUpOperator",
        "train": "RaySubmitJobOperator",
        "check": "RaySubmitJobOperator",
        "down": "RayClusterDownOperator",
    }
    assert tasks["up"].is_setup
    assert tasks["down"].is_teardown
    assert tasks["train"].upstream_task_ids == {"up"}


def test_single_operators_an_alias_and_a_mapped_task(tmp_path: Path) -> None:
    migration = done(SINGLE)
    assert "ray_provider" not in migration.text
    assert not migration.left
    tasks = tasks_of(migration.text, tmp_path)
    alone = tasks["alone"]
    assert (alone.cluster.spec, alone.cluster.kubernetes_conn_id) == ("/opt/clusters/ray.yaml", "ray_conn")
    assert (alone.job_timeout, alone.wait_for_completion, alone.deferrable) == (None, False, False)
    plain = tasks["plain"]
    assert (plain.cluster, plain.ray_conn_id, plain.job_timeout, plain.deferrable) == (None, "ray_conn", 600, True)
    assert "entrypoint_memory=[1, 2]" in migration.text
    assert tasks["each"].partial_kwargs["entrypoint_num_cpus"] == 1


def test_decorated_functions(tmp_path: Path) -> None:
    migration = done(TASKFLOW)
    assert not migration.left
    assert '    "poll_interval": 5,  # seconds\n' in migration.text
    assert (
        "from airflow.decorators import dag, task\nfrom airflow_provider_rayjobs.kuberay import KubeRay"
        in migration.text
    )
    tasks = tasks_of(migration.text, tmp_path)
    mean, both, last = (tasks[name] for name in ("mean", "both", "last"))
    assert {type(task).__name__ for task in (mean, both, last)} == {"RayJobDecoratedOperator"}
    assert (mean.ray_conn_id, mean.runtime_env, mean.poll_interval, mean.retries) == (
        "ray_conn",
        {"pip": ["numpy"]},
        5,
        2,
    )
    assert (mean.entrypoint_num_cpus, mean.entrypoint_num_gpus, mean.job_timeout, mean.deferrable) == (
        1,
        None,
        600,
        True,
    )
    assert (both.cluster.spec, both.entrypoint_num_cpus, both.multiple_outputs) == ("/opt/ray.yaml", 2, True)
    assert last.entrypoint_num_cpus == 1


def test_the_result_is_not_changed_again() -> None:
    for text in (SETUP_AND_TEARDOWN, SINGLE, TASKFLOW):
        again = done(done(text).text)
        assert (again.text, again.remarks) == (done(text).text, [])


OPERATORS = "from ray_provider.operators import DeleteRayCluster, SetupRayCluster, SubmitRayJob\n"
DECORATOR = "from ray_provider.decorators import ray\n"


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("import ray_provider.operators as r\nr.SubmitRayJob()\n", 1, "write this as `from ray_provider.… import …`"),
        ("from ray_provider.hooks import RayHook\n", 1, "RayHook becomes RayJobHook"),
        (OPERATORS + "class Mine(SubmitRayJob): ...\n", 2, "rewrite this use of SubmitRayJob by hand"),
        (OPERATORS + "SubmitRayJob('a', conn_id='c')\n", 2, "write its arguments with their names"),
        (
            OPERATORS + "SubmitRayJob(conn_id='c', xcom_task_key='far.dashboard')\n",
            2,
            "no SetupRayCluster of this file",
        ),
        (OPERATORS + "SubmitRayJob(conn_id='c', xcom_task_key=KEY)\n", 2, "xcom_task_key=KEY"),
        (
            OPERATORS
            + "SetupRayCluster(task_id='up', conn_id='c', ray_cluster_yaml='/a')\nSubmitRayJob(xcom_task_key='up.d')\n",
            3,
            "assign the SetupRayCluster to a variable",
        ),
        (
            OPERATORS
            + "SubmitRayJob(xcom_task_key='up.d')\n"
            + "x = SetupRayCluster(task_id='up', conn_id='c', ray_cluster_yaml='/a')\n",
            2,
            "move the SetupRayCluster before this",
        ),
        (OPERATORS + "SetupRayCluster(task_id='up', conn_id='c')\n", 2, "it has no ray_cluster_yaml"),
        (OPERATORS + "SetupRayCluster(ray_cluster_yaml='/a', **more)\n", 2, "write the arguments that come with **"),
        (OPERATORS + "SetupRayCluster.partial(task_id='a')\n", 2, "a mapped cluster can't be rewritten"),
        (OPERATORS + "DeleteRayCluster(conn_id='c', ray_cluster_yaml='/a')\n", 2, "no single SetupRayCluster near it"),
        (
            OPERATORS + "SubmitRayJob.partial(conn_id='c').expand_kwargs(x)\n",
            2,
            "rename the arguments of its expansion",
        ),
        (OPERATORS + "SubmitRayJob.partial(a=1).expand(conn_id=x)\n", 2, "rewrite the mapped conn_id by hand"),
        (DECORATOR + "@ray.task(config=make)\ndef f(): ...\n", 2, "config=make: write its values as arguments"),
        (DECORATOR + "C = {}\nC['a'] = 1\n@ray.task(config=C)\ndef f(): ...\n", 4, "config=C: write its values"),
        (
            DECORATOR + "@ray.task(config={'entrypoint': 'x'})\ndef f(): ...\n",
            2,
            "write a RaySubmitJobOperator instead",
        ),
        (DECORATOR + "@ray.task(config={**BASE})\ndef f(): ...\n", 2, "a dict whose keys are written out and known"),
        (DECORATOR + "task = 1\n@ray.task()\ndef f(): ...\n", 3, "this file uses the name for something else"),
    ],
)
def test_what_can_not_be_rewritten_stays_and_is_named(text: str, line: int, said: str) -> None:
    migration = done(text)
    assert migration.left
    left = [remark for remark in migration.remarks if remark.is_left]
    assert [remark.line for remark in left] == [line]
    assert said in left[0].text
    old, new = text.splitlines()[line - 1], migration.text.splitlines()
    assert old in new or ".expand" in old


TWO_DAGS = """\
from ray_provider.operators import DeleteRayCluster, SetupRayCluster, SubmitRayJob

with DAG("first"):
    a = SetupRayCluster(task_id="up", conn_id="c", ray_cluster_yaml="/a.yaml")
    SubmitRayJob(task_id="job", conn_id="c", entrypoint="x", runtime_env={}, xcom_task_key="up.dashboard")
with DAG("second"):
    b = SetupRayCluster(task_id="up", conn_id="c", ray_cluster_yaml="/b.yaml")
    SubmitRayJob(task_id="job", conn_id="c", entrypoint="x", runtime_env={}, xcom_task_key="up.dashboard")
"""


@pytest.mark.parametrize("task_id", ['task_id="up"', "task_id=UP", "**more"])
def test_of_two_dags_in_a_file_no_job_gets_the_cluster_of_the_other(task_id: str) -> None:
    migration = done(TWO_DAGS.replace('b = SetupRayCluster(task_id="up"', f"b = SetupRayCluster({task_id}"))
    said = [(remark.line, remark.text) for remark in migration.remarks if remark.is_left and "several" in remark.text]
    assert [line for line, _ in said] == [5, 8]
    assert "several SetupRayCluster here may have the task_id of xcom_task_key=" in said[0][1]
    assert ".output" not in migration.text


def test_two_dags_in_functions_have_a_cluster_each() -> None:
    text = TWO_DAGS.replace('with DAG("first")', "def first()").replace('with DAG("second")', "def second()")
    migration = done(text)
    assert not migration.left
    assert [line.partition("cluster=")[2][:8] for line in migration.text.splitlines() if ".output" in line] == [
        "a.output",
        "b.output",
    ]


@pytest.mark.parametrize(
    "again",
    [
        "up = SetupRayCluster(task_id='b', conn_id='c', ray_cluster_yaml='/b')",
        "up = None",
        "for up in (1, 2): ...",
        "def f():\n    global up",
    ],
)
def test_a_job_gets_no_cluster_by_a_variable_that_changes(again: str) -> None:
    setup = "up = SetupRayCluster(task_id='a', conn_id='c', ray_cluster_yaml='/a')"
    job = "SubmitRayJob(conn_id='c', xcom_task_key='a.dashboard')"
    down = "DeleteRayCluster(conn_id='c', ray_cluster_yaml='/a')"
    text = f"{OPERATORS}{setup}\n{job}\n{down}\n{again}\n"
    migration = done(text)
    said = [(remark.line, remark.text) for remark in migration.remarks if remark.is_left]
    assert [line for line, _ in said] == [3, 4]
    assert "variable up of the SetupRayCluster is assigned more than once" in said[0][1]
    assert job in migration.text
    assert down in migration.text


@pytest.mark.parametrize(
    ("defaults", "call", "names"),
    [
        ("{'conn_id': 'prod'}", "SubmitRayJob(entrypoint='x')", "conn_id"),
        ("{'conn_id': 'prod'}", "SubmitRayJob(entrypoint='x', ray_cluster_yaml='/a')", "conn_id"),
        ("{'conn_id': 'prod'}", "SubmitRayJob(entrypoint='x', **more)", "conn_id"),
        ("{'conn_id': 'prod'}", "SubmitRayJob.partial(a=1).expand(entrypoint=['x'])", "conn_id"),
        ("{'conn_id': 'prod'}", "SetupRayCluster(task_id='up', ray_cluster_yaml='/a')", "conn_id"),
        ("imported", "SubmitRayJob(entrypoint='x')", "conn_id"),
        ("dict(num_cpus=2, retries=1)", "SubmitRayJob(conn_id='c', entrypoint='x')", "num_cpus"),
        ("{'ray_cluster_yaml': '/a', 'fetch_logs': False}", "SubmitRayJob()", "conn_id, fetch_logs, ray_cluster_yaml"),
    ],
)
def test_arguments_from_default_args_are_not_lost(defaults: str, call: str, names: str) -> None:
    for text in (
        f"{OPERATORS}with DAG('d', default_args={defaults}):\n    {call}\n",
        f"{OPERATORS}D = {defaults}\nwith DAG('d', default_args=D): {call}\n",
    ):
        migration = done(text)
        (left,) = (remark for remark in migration.remarks if remark.is_left)
        assert left.line == 3
        assert left.text.startswith(f"from default_args it takes {names}: write that here, with its value")
        assert call in migration.text


@pytest.mark.parametrize(
    "text",
    [
        f"{DECORATOR}with DAG('d', default_args={{'conn_id': 'c', 'num_cpus': 2}}):\n    @ray.task\n    def f(): ...\n",
        f"{OPERATORS}with DAG('d', default_args={{'conn_id': 'c', 'retries': 2}}):\n    SubmitRayJob(conn_id='mine')\n",
    ],
)
def test_default_args_that_had_no_effect_are_no_matter(text: str) -> None:
    assert not done(text).left


def test_what_is_left_keeps_its_import() -> None:
    text = OPERATORS + "SubmitRayJob(conn_id='c')\nDeleteRayCluster(conn_id='c', ray_cluster_yaml='/a')\n"
    assert done(text).text.splitlines()[:2] == [
        "from airflow_provider_rayjobs.operators import RaySubmitJobOperator",
        "from ray_provider.operators import DeleteRayCluster",
    ]
    text = DECORATOR + "@ray.task()\ndef f(): ...\n@ray.task(config=make)\ndef g(): ...\n"
    assert done(text).text.splitlines()[:2] == [
        "from airflow.providers.common.compat.sdk import task",
        "from ray_provider.decorators import ray",
    ]


def test_an_import_within_a_function() -> None:
    text = "def f():\n    from ray_provider.operators import SubmitRayJob\n    SubmitRayJob(conn_id='c')\n"
    migration = done(text)
    assert remarks(migration)[0] == (2, "add `from airflow_provider_rayjobs.operators import RaySubmitJobOperator`")
    assert migration.left


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("ray_cluster_yaml='ray.yaml'", "'ray.yaml' is now searched like templates"),
        ("ray_cluster_yaml='/a', gpu_device_plugin_yaml='https://x'", "install the GPU device plugin once"),
        ("job_timeout_seconds=LIMIT", "job_timeout must not be 0"),
        ("**more", "rename the arguments that come with **"),
    ],
)
def test_what_to_check_is_named(argument: str, said: str) -> None:
    migration = done(OPERATORS + f"SubmitRayJob(conn_id='c', {argument})\n")
    assert not migration.left
    assert any(said in remark.text for remark in migration.remarks)


def test_a_cluster_without_a_teardown_is_told() -> None:
    migration = done(SETUP_AND_TEARDOWN.replace(".as_teardown()", ""))
    assert any("this is skipped, and the cluster stays for its lifetime" in text for _, text in remarks(migration))


def test_a_file_of_another_kind_stays_as_it_is() -> None:
    text = "import ray\nfrom airflow import DAG\n\nray.task = 1\n"
    assert (done(text).text, done(text).remarks) == (text, [])
