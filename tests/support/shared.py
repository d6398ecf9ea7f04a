"""
A Ray head, a PostgreSQL and an Airflow, which are started once and shared by several pytest processes.

    python -m tests.support.shared FOLDER

starts them, and writes to the folder how to reach each one when it is ready. It stops them when its input is closed, so
they never outlive the test run. The fixtures of the same names use them if :data:`VARIABLE` has the path of the folder.
"""

from __future__ import annotations

import os
import pickle
import secrets
import shutil
import signal
import sys
import time
import traceback
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support import environment
from tests.support.airflow_env import AirflowEnv
from tests.support.databases import PostgresDatabase, SqliteDatabase, wants_sqlite
from tests.support.postgres import Postgres
from tests.support.ray_head import TOKEN_MODE_SINCE, RayHead, ray_version, require_ray

if TYPE_CHECKING:
    from tests.support.databases import Database

VARIABLE = "RAYJOBS_TEST_SHARED"

DAGS = Path(__file__).parents[1] / "airflow" / "dags"

#: The most seconds of a start on a busy machine: less than the timeout of a test, so that the reason is reported.
LONGEST_START = 290.0


def are_wanted() -> bool:
    """Return whether this run of pytest uses services that another process has started."""
    return VARIABLE in os.environ


def get(name: str) -> Any:
    """
    Return a shared service; wait for it if it is still starting.

    :param name: ``postgres``, ``ray_head`` or ``airflow_env``.
    :raises RuntimeError: if it could not be started.
    """
    folder = Path(os.environ[VARIABLE])
    deadline = time.monotonic() + LONGEST_START
    while not (folder / name).exists():
        if (folder / "failed").exists():
            raise RuntimeError((folder / "failed").read_text())
        if time.monotonic() > deadline:
            raise TimeoutError(f"no {name} in {folder} after {LONGEST_START:.0f} s")
        time.sleep(0.2)
    return pickle.loads((folder / name).read_bytes())


def airflow_of_the_tests(home: Path, database: Database) -> AirflowEnv:
    """Return the Airflow of `tests/airflow`, not started yet, with a copy of its DAGs."""
    shutil.copytree(DAGS, home / "dags", ignore=shutil.ignore_patterns("__pycache__"))
    return AirflowEnv(home, home / "dags", database)


def _serve(folder: Path) -> None:
    def share(name: str, what: object) -> None:
        new = folder / f"{name}.new"
        new.write_bytes(pickle.dumps(what))
        new.rename(folder / name)

    with ExitStack() as ends:
        try:
            postgres = ends.enter_context(Postgres())
            # The head requires a token, as Ray 2.61 and later do by default.
            ray_bin = require_ray()
            token = secrets.token_hex(32) if ray_version(ray_bin) >= TOKEN_MODE_SINCE else ""
            head = RayHead(num_cpus=4, ray_bin=ray_bin, token=token)
            ends.callback(head.stop)
            head.start()
            home = folder / "airflow"
            home.mkdir()
            database = (
                SqliteDatabase(home / "airflow.db") if wants_sqlite() else PostgresDatabase(postgres.url("airflow"))
            )
            airflow = airflow_of_the_tests(home, database)
            airflow.prepare()
            share("postgres", postgres)  # only now, so that others find a migrated database to copy
            head.wait_ready()
            share("ray_head", head)
            ends.callback(airflow.stop)
            airflow.start()
            airflow.add_connection("ray_default", **head.connection())
            share("airflow_env", airflow)
        except BaseException:  # noqa: BLE001 - waiting tests report it, including pytest's skip without Ray
            (folder / "failed").write_text(traceback.format_exc())
        sys.stdin.read()


if __name__ == "__main__":
    environment.clean()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # they end the tests, whose end closes our input
    _serve(Path(sys.argv[1]))
