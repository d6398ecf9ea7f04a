"""A StatsD server, an OTLP collector, and an Airflow that sends to both."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.observability.otlp import Collector
from tests.observability.statsd import StatsDServer
from tests.support.airflow_env import AirflowEnv
from tests.support.faulty_proxy import FaultyProxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.databases import Database
    from tests.support.ray_head import RayHead

HERE = Path(__file__).parent

DAGS = ("observed_sync", "observed_deferred", "observed_own", "observed_unreliable")

#: Only the environments of `make observability` have a StatsD client.
collect_ignore_glob = [] if importlib.util.find_spec("statsd") else ["test_*.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.observability)


@pytest.fixture(scope="session")
def statsd() -> Iterator[StatsDServer]:
    with StatsDServer() as server:
        yield server


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    with Collector() as server:
        yield server


@pytest.fixture(scope="session")
def unreliable_head(ray_head: RayHead) -> Iterator[FaultyProxy]:
    """The head, behind a proxy that can lose answers."""
    with FaultyProxy(ray_head.host, ray_head.port) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def airflow(
    statsd: StatsDServer,
    collector: Collector,
    ray_head: RayHead,
    unreliable_head: FaultyProxy,
    tmp_path_factory: pytest.TempPathFactory,
    new_database: Callable[[Path], Database],
) -> Iterator[AirflowEnv]:
    home = tmp_path_factory.mktemp("airflow")
    shutil.copytree(HERE / "dags", home / "dags")
    settings = {
        "AIRFLOW__METRICS__STATSD_ON": "True",
        "AIRFLOW__METRICS__STATSD_HOST": "127.0.0.1",
        "AIRFLOW__METRICS__STATSD_PORT": str(statsd.port),
        "AIRFLOW__METRICS__STATSD_INFLUXDB_ENABLED": "True",  # the plain protocol has no tags
        "AIRFLOW__TRACES__OTEL_ON": "True",
        "AIRFLOW__TRACES__OTEL_HOST": "127.0.0.1",
        "AIRFLOW__TRACES__OTEL_PORT": collector.url.rpartition(":")[2],
        "OTEL_TRACES_EXPORTER": "otlp_proto_http",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "500",  # milliseconds
    }
    env = AirflowEnv(home, home / "dags", new_database(home), env=settings)
    env.start()
    env.add_connection("ray_default", **ray_head.connection())
    env.add_connection("ray_unreliable", **ray_head.connection(unreliable_head.url))
    for dag_id in DAGS:
        env.wait_dag(dag_id)
    yield env
    env.stop()
