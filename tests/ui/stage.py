"""The Airflow for users and browser tests, with a login."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.airflow_env import AirflowEnv
from tests.support.databases import SqliteDatabase

if TYPE_CHECKING:
    from collections.abc import Sequence

LOGIN = {"username": "admin", "password": "admin"}
HERE = Path(__file__).parent

#: The DAGs of the browser tests, and the examples.
DAGS, EXAMPLES = HERE / "dags", HERE.parents[1] / "example_dags"


def make_airflow(home: Path, dag_folders: Sequence[Path] = (DAGS,)) -> AirflowEnv:
    """
    Prepare an Airflow with a login, with connection tests, and with the view of a task's job.

    :param home: ``AIRFLOW_HOME``: an empty or missing directory.
    :param dag_folders: folders of DAG files, which are copied.
    """
    for folder in dag_folders:
        shutil.copytree(folder, home / "dags", ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    passwords = home / "passwords.json"
    passwords.write_text(json.dumps({LOGIN["username"]: LOGIN["password"]}))
    settings = {
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{LOGIN['username']}:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
        "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
        "AIRFLOW__RAY_JOBS__TASK_VIEW": "True",
        "AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
    }
    return AirflowEnv(home, home / "dags", SqliteDatabase(home / "airflow.db"), env=settings, login=LOGIN)
