"""A distributed Airflow on one machine: two schedulers, two Celery workers, two triggerers, one API server."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from tests.field.broker import DEFAULT, Broker
from tests.support import airflow_processes, debian
from tests.support.airflow_env import AirflowEnv
from tests.support.airflow_processes import BIN, JOB_TYPES, Component

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.databases import Database

SCHEDULERS = ("scheduler-1", "scheduler-2")
WORKERS = ("worker-1", "worker-2")
TRIGGERERS = ("triggerer-1", "triggerer-2")

#: How many tasks one worker runs in parallel.
CONCURRENCY = 12

_HOSTNAME = """
import os


def name():
    return os.environ["FIELD_NAME"]
"""


class DistributedAirflow(AirflowEnv):
    """An Airflow with the CeleryExecutor. The host name of each process is the name of its component.

    :param home: ``AIRFLOW_HOME``.
    :param dags_folder: the folder of the DAG files.
    :param database: its database.
    :param broker: URL of the Redis.
    """

    def __init__(self, home: Path, dags_folder: Path, database: Database, broker: str) -> None:
        options = {
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__HOSTNAME_CALLABLE": "field_hostname.name",
            "AIRFLOW__CORE__MAX_ACTIVE_RUNS_PER_DAG": "128",
            "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": "128",
            "AIRFLOW__CELERY__BROKER_URL": broker,
            "AIRFLOW__CELERY__RESULT_BACKEND": f"db+{database.url}",
            # Seconds; the machine has two cores.
            "AIRFLOW__CELERY__OPERATION_TIMEOUT": "10",
            "AIRFLOW__CELERY__SYNC_PARALLELISM": "1",
            "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT": "600",
            "FIELD_NAME": "field",
        }
        super().__init__(home, dags_folder, database, env=options, parallelism=64)
        self.broker = Broker(broker)

    def prepare(self) -> None:
        super().prepare()
        (self.home / "site" / "field_hostname.py").write_text(_HOSTNAME)

    def heal(self, timeout: float = 120.0) -> None:
        """Start ended components, resume paused ones, and reset the clocks and the workers' queues.

        :param timeout: seconds for each component.
        """
        for name, component in self.components.items():
            if "FAKETIME" in component.environment:
                self.set_clock(name, "")
        (last,) = self.query("SELECT coalesce(max(id), 0) AS id FROM job")
        for component in self.components.values():
            component.signal(signal.SIGCONT)
        ended = [name for name, component in self.components.items() if component.main() is None]
        for name in ended:
            self.components[name].end()  # kill its remaining processes
            self.components[name].start()
        for name in ended:
            self._wait_up(name, last["id"], timeout)
        for name in WORKERS:
            queues = self.broker.queues(name)
            if not queues:  # it runs, but has lost the broker
                self.kill_process(name)
                self.start_process(name)
            elif DEFAULT not in queues:
                self.broker.consume(DEFAULT, [name])

    def set_clock(self, name: str, offset: str) -> None:
        """Restart a component with another clock.

        :param offset: the offset for libfaketime, such as ``+10m``; an empty string for the machine's clock.
        """
        component = self.components[name]
        for variable in ("LD_PRELOAD", "FAKETIME", "FAKETIME_DONT_FAKE_MONOTONIC"):
            component.environment.pop(variable, None)
        if offset:
            (library,) = debian.unpacked(("libfaketime",)).glob("usr/lib/*/faketime/libfaketime.so.1")
            component.environment |= {
                "LD_PRELOAD": str(library),
                "FAKETIME": offset,
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            }
        self.kill_process(name)
        self.start_process(name)

    def stop(self, grace: float = 5.0) -> None:
        super().stop(grace)
        self.broker.close()

    def _make_components(self, port: int) -> dict[str, Component]:
        commands = airflow_processes.commands(port)
        named = {"api-server": commands["api-server"]}
        named |= dict.fromkeys(SCHEDULERS, commands["scheduler"])
        named |= dict.fromkeys(TRIGGERERS, commands["triggerer"])
        named |= {name: command for name, command in commands.items() if name == "dag-processor"}
        named |= {name: self._worker(name) for name in WORKERS}
        return {
            name: Component(name, command, self.environment | {"FIELD_NAME": name}, self.home / f"{name}.out")
            for name, command in named.items()
        }

    def _worker(self, name: str) -> tuple[str, ...]:
        return (
            *(f"{BIN}/airflow", "celery", "worker", "--celery-hostname", name, "--concurrency", str(CONCURRENCY)),
            *("--skip-serve-logs", "--without-gossip", "--without-mingle", "--pid", f"{self.home}/{name}.pid"),
        )

    def _task_owners(self) -> list[Component]:
        return [self.components[name] for name in WORKERS]

    def _is_up(self, name: str, after_job: int) -> bool:
        if name in WORKERS:
            return bool(self.broker.queues(name))
        kind = name.rstrip("-12")
        if kind not in JOB_TYPES:
            return self._api_answers()
        return bool(
            self.query(
                "SELECT 1 FROM job WHERE job_type = ? AND id > ? AND state = 'running' AND hostname = ?",
                *(JOB_TYPES[kind], after_job, name),
            )
        )
