"""An Airflow without running components, for commands that run one at a time."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.support import airflow_processes
from tests.support.airflow_records import AirflowRecords
from tests.support.ports import free_port

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.databases import Database
    from tests.support.ray_head import RayHead


class CommandAirflow(AirflowRecords):
    """
    An Airflow with one DAG file, a migrated database and the connection ``ray_default``.

    :param home: an empty folder.
    :param dag_file: the DAG file, which is copied.
    """

    def __init__(self, home: Path, database: Database, dag_file: Path, head: RayHead) -> None:
        super().__init__(home, database)
        (home / "dags").mkdir()
        shutil.copy(dag_file, home / "dags")
        airflow_processes.write_home(home)
        self.environment = {
            **airflow_processes.clean_environment(),
            **airflow_processes.settings(home, home / "dags", database, free_port(), parallelism=2),
            "AIRFLOW_CONN_RAY_DEFAULT": json.dumps(head.connection()),
        }
        database.migrate(lambda: self.run("db", "migrate"), airflow_processes.migrated_as())

    def run(self, *arguments: str, **environment: str) -> str:
        """Run a command to its end; return its output.

        :param environment: additional environment variables.
        """
        done = subprocess.run(
            [sys.executable, "-m", "airflow", *arguments],
            cwd=self.home,
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-8000:]
        return done.stdout
