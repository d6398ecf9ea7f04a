"""A real run whose jobs print all their secrets: no file and no row of Airflow contains any of them."""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING

import pytest

from tests.airflow.drivers import jobs_of
from tests.support.reverse_proxy import ReverseProxy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.airflow_env import AirflowEnv
    from tests.support.ray_head import RayHead

pytestmark = pytest.mark.xdist_group("secrets")  # one test searches for what the other one writes

DAGS = [f"rj_secrets_{deferrable}_{size}" for deferrable in (False, True) for size in (1, 6000)]

SECRETS = {
    "token": secrets.token_hex(32),
    "cookie": "cookie-" + secrets.token_hex(12),
    "header": "header-" + secrets.token_hex(12),
    "sensitive name": "first-" + secrets.token_hex(12),
    "listed": "second-" + secrets.token_hex(12),
    "listed, in a URL": f"postgres://me:{secrets.token_hex(8)}@db/x?y=z&w='",
}


@pytest.fixture(scope="module")
def guarded(ray_head: RayHead) -> Iterator[ReverseProxy]:
    """A proxy in front of the head that requires a token, a cookie and a key."""
    SECRETS["token"] = ray_head.token or SECRETS["token"]
    demanded = {
        "authorization": f"Bearer {SECRETS['token']}",
        "cookie": f"session={SECRETS['cookie']}",
        "x-api-key": SECRETS["header"],
    }
    with ReverseProxy(ray_head.host, ray_head.port, "/ray", headers=demanded) as proxy:
        yield proxy


def leaks(airflow: AirflowEnv) -> list[str]:
    """Return where a secret is found: in a file of Airflow or of its database, or in a cell of the database."""
    needles = {name: secret.encode() for name, secret in SECRETS.items()}
    found = []

    def named(file: Path) -> Path:
        return file.relative_to(airflow.home) if file.is_relative_to(airflow.home) else file

    for file in {*airflow.home.rglob("*"), *airflow.database.files()}:
        if file.is_file() and not file.is_symlink():
            try:
                content = file.read_bytes()
            except FileNotFoundError:
                continue  # removed by a test that runs at the same time
            if airflow.version == (3, 0) and file.name == "scheduler.out":
                # Its LocalExecutor prints rendered fields before they are masked, and a provider can't prevent that.
                content = b"\n".join(line for line in content.splitlines() if b"msg=SetRenderedFields(" not in line)
            found += [f"{name} in {named(file)}" for name, text in needles.items() if text in content]
    # Also search with SQL: in a file, a cell may be compressed or spread over several pages.
    for table in airflow.database.tables():
        for row in airflow.query(f'SELECT * FROM "{table}"'):
            cells = b"\0".join(cell if isinstance(cell, bytes) else str(cell).encode() for cell in row.values())
            found += [f"{name} in table {table}" for name, text in needles.items() if text in cells]
    return sorted(set(found))


@pytest.mark.integration
@pytest.mark.timeout(900)
def test_no_secret_is_in_any_log_row_or_rendered_field(
    airflow_env: AirflowEnv, ray_head: RayHead, guarded: ReverseProxy, tmp_path: Path
) -> None:
    airflow = airflow_env
    # Import from files, because Airflow 2 writes requests of its REST API unmasked to its audit log.
    connection = {
        **ray_head.connection(guarded.url, password=SECRETS["token"]),
        "extra": {"cookies": {"session": SECRETS["cookie"]}, "headers": {"X-Api-Key": SECRETS["header"]}},
    }
    names = {"first": "sensitive name", "second": "listed", "third": "listed, in a URL"}
    variables = {key: SECRETS[name] for key, name in names.items()}
    for kind, content in (("connections", {"ray_secret": connection}), ("variables", variables)):
        file = tmp_path / f"{kind}.json"
        file.write_text(json.dumps(content))
        airflow.cli(kind, "import", str(file))

    for dag_id in [*DAGS, "rj_secrets_mapped", "rj_secrets_sensor"]:
        airflow.wait_dag(dag_id)
    for dag_id in [*DAGS, "rj_secrets_mapped"]:
        airflow.trigger(dag_id, f"run-{dag_id}")
    for dag_id in DAGS:
        airflow.wait_task(dag_id, f"run-{dag_id}", "job", "failed", timeout=300)
    airflow.wait_task("rj_secrets_mapped", "run-rj_secrets_mapped", "job", "failed", map_index=0, timeout=300)

    # The job received and printed them; otherwise there would be nothing to find.
    (job,) = jobs_of(ray_head, f"run-{DAGS[0]}")
    printed = ray_head.logs(job["submission_id"])
    for name in names.values():
        assert SECRETS[name] in printed
    airflow.trigger("rj_secrets_sensor", "sensed", {"job": job["submission_id"]})
    for task_id in ("sensor_False", "sensor_True"):
        airflow.wait_task("rj_secrets_sensor", "sensed", task_id, "failed", timeout=200)

    for dag_id in DAGS:
        log = airflow.task_log(dag_id, f"run-{dag_id}", "job")
        assert "dsn=***" in log, "the job's line is not in the log"
        assert "ValueError" in log, "the job's error is not in the log"
        rendered = airflow.rendered_fields(dag_id, f"run-{dag_id}", "job")
        assert "***" in str(rendered["secret_env_vars"])
    assert leaks(airflow) == []


def test_the_search_finds_a_secret(airflow_env: AirflowEnv) -> None:
    """Without this, an empty result in the other test would prove nothing."""
    file = airflow_env.home / "logs" / "planted.log"
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"x{SECRETS['cookie']}y")
    try:
        assert leaks(airflow_env) == ["cookie in logs/planted.log"]
    finally:
        file.unlink()
