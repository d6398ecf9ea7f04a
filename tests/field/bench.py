"""The bench: a PostgreSQL, a Redis, a Ray head behind a proxy, and a distributed Airflow, all in one folder."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.field.airflow import DistributedAirflow
from tests.field.case import MODES
from tests.support import environment, faults, guard
from tests.support.airflow_records import wait
from tests.support.databases import PostgresDatabase
from tests.support.faulty_proxy import FaultyProxy
from tests.support.postgres import Postgres
from tests.support.ray_head import RayHead
from tests.support.redis_server import Redis

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

DAGS = Path(__file__).with_name("dags")

#: The resource that jobs wait for, see ``dags/field.py``.
HELD = "held"

#: The retries of all tasks, unless a session edits the DAG file.
RETRIES = 3

_UPLOAD = "/api/packages/.*"


@contextmanager
def new_folder() -> Iterator[Path]:
    """Create a folder that is removed when this process ends, or use the one in $FIELD_FOLDER, which is kept."""
    if named := os.environ.get("FIELD_FOLDER"):
        Path(named).mkdir(parents=True, exist_ok=True)
        yield Path(named)
        return
    with tempfile.TemporaryDirectory(prefix="field-", dir=environment.SHORT_TMP) as folder:
        guard.remove(Path(folder))
        Path(folder).chmod(0o711)  # PostgreSQL runs as another user if the tests run as root
        yield Path(folder)


class Bench:
    """All servers and processes. The context manager starts them, and stops them at the end.

    :param folder: for all files; new or empty.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.postgres = Postgres(folder / "postgres")
        self.redis = Redis()
        self.ray = RayHead(num_cpus=4, extra_args=("--resources", f'{{"{HELD}": 1}}'))
        # The cluster in Airflow's connection.
        self.proxy = FaultyProxy(self.ray.host, self.ray.port)
        self.home = folder / "airflow"
        #: Uploads are forwarded while it is set.
        self.uploads_released = threading.Event()
        self.uploads_released.set()
        self._held = folder / "held"  # the job that holds the resource runs while this file exists
        #: Duration of the start.
        self.seconds = 0.0
        self._ends = ExitStack()

    def __enter__(self) -> Bench:
        with ExitStack() as ends:
            self._start(ends)
            self._ends = ends.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends.__exit__(kind, error, trace)

    def _start(self, ends: ExitStack) -> None:
        begun = time.monotonic()
        ends.callback(self.ray.stop)
        self.ray.start()
        ends.enter_context(self.postgres)
        ends.enter_context(self.redis)
        ends.enter_context(self.proxy)
        self.airflow = self._make_airflow()
        self.airflow.prepare()
        ends.callback(self.airflow.stop)
        self.airflow.start()
        self.ray.wait_ready()
        self.airflow.add_connection("ray_default", **self.ray.connection(self.proxy.url))
        for mode in MODES:
            self.airflow.wait_dag(f"field_plain_{mode}")
        self.seconds = time.monotonic() - begun

    def _make_airflow(self) -> DistributedAirflow:
        dags = self.home / "dags"
        shutil.copytree(DAGS, dags, ignore=shutil.ignore_patterns("__pycache__"))
        database = PostgresDatabase(self.postgres.url("airflow"))
        return DistributedAirflow(self.home, dags, database, self.redis.url)

    # Holding runs at their moments

    def hold_uploads(self) -> int:
        """Hold new uploads until :attr:`uploads_released` is set; return how many there were before."""
        before = self.uploads()
        self.uploads_released.clear()
        self.proxy.on(faults.call(lambda: self.uploads_released.wait(60), at="received"), "PUT", _UPLOAD)
        return before

    def uploads(self) -> int:
        """Return how many uploads have started."""
        return sum(request.method == "PUT" for request in self.proxy.requests)

    def hold_resource(self) -> None:
        """Make jobs that request :data:`HELD` wait."""
        self._held.touch()
        job = self.ray.submit(f"while [ -e {self._held} ]; do sleep 0.3; done", entrypoint_resources={HELD: 1})
        self.ray.wait_job(job, until={"RUNNING"})

    def release_resource(self) -> None:
        """Let these jobs run."""
        self._held.unlink(missing_ok=True)

    def set_retries(self, retries: int) -> None:
        """Edit the retries in the DAG file, and wait until Airflow has read it."""
        file = self.home / "dags" / "field.py"
        text = file.read_text()
        new = re.sub(r"(?m)^RETRIES = .*$", f"RETRIES = {retries}", text)
        if new == text:
            return
        (last,) = self.airflow.query("SELECT max(last_updated) AS at FROM serialized_dag")
        file.write_text(new)
        wait(
            lambda: self.airflow.query("SELECT max(last_updated) AS at FROM serialized_dag") != [last],
            60,
            lambda: "Airflow has not read the edited DAG file",
        )
        time.sleep(1)

    def heal(self) -> None:
        """Repair what a session has broken, like the operator of an Airflow."""
        self.proxy.clear()
        self.proxy.up()
        self.postgres.resume()
        self.redis.resume()
        self.airflow.heal()
        self.set_retries(RETRIES)
