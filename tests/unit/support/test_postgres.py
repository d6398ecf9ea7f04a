"""The PostgreSQL of other tests, and the databases of their Airflows, do what those take for granted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg2
import pytest

from tests.support.databases import Database, PostgresDatabase, SqliteDatabase, database_of, wants_sqlite
from tests.support.postgres import Postgres
from tests.support.processes import wait_gone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REPO = Path(__file__).parents[3]

# Starts a server, says where it is, and waits.
PROGRAM = """
import sys
from tests.support.postgres import Postgres
with Postgres() as server:
    print(*[process.pid for process in server._family()], server.folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def own() -> Iterator[Postgres]:
    """A server that a test may break."""
    with Postgres() as server:
        yield server


@pytest.fixture(params=["postgresql", "sqlite"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    """A new database of each kind."""
    if request.param == "sqlite":
        return SqliteDatabase(tmp_path / "some.db")
    server: Postgres = request.getfixturevalue("postgres")
    return PostgresDatabase(server.url(f"of_{tmp_path.name}".lower()))


def alive(pid: int) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("end", [Postgres.stop, Postgres.kill])
def test_data_outlives_the_server(own: Postgres, end: Callable[[Postgres], None]) -> None:
    database = PostgresDatabase(own.url("kept"))
    database.create()
    database.query("CREATE TABLE t AS SELECT 1 AS x")
    pid = own.pid
    family = own._family()
    end(own)
    assert not wait_gone(family, 0)
    with pytest.raises(psycopg2.OperationalError):
        database.query("SELECT x FROM t")
    own.start()
    assert own.pid != pid
    assert database.query("SELECT x FROM t") == [{"x": 1}]


def test_open_connections_do_not_keep_it_alive(own: Postgres) -> None:
    database = PostgresDatabase(own.url())
    database.query("SELECT 1")
    begin = time.monotonic()
    own.stop()
    assert time.monotonic() - begin < 10


def test_a_frozen_server_goes_on(own: Postgres) -> None:
    own.pause()
    with pytest.raises(psycopg2.OperationalError, match="timeout"):
        psycopg2.connect(own.url(driver=""), connect_timeout=2)
    own.resume()
    psycopg2.connect(own.url(driver=""), connect_timeout=30).close()


def test_nobody_gets_in_without_the_password(own: Postgres) -> None:
    with pytest.raises(psycopg2.OperationalError, match="password"):
        psycopg2.connect(own.url(driver="").replace(own._password(), "wrong"))


def test_a_folder_of_the_caller_stays() -> None:
    with Postgres() as outer:  # its folder lets the server's user through
        folder = outer.folder / "inner"
        with Postgres(folder, {"max_connections": "7"}) as server:
            (row,) = PostgresDatabase(server.url()).query("SHOW max_connections")
            assert row == {"max_connections": "7"}
        assert (folder / "data" / "PG_VERSION").read_text() == "16\n"
    assert not folder.exists()


def test_nothing_is_left_when_the_run_is_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], cwd=REPO, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None
        *pids, folder = run.stdout.readline().split()
        assert len(pids) > 3
        assert all(alive(int(pid)) for pid in pids)
        run.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while any(alive(int(pid)) for pid in pids) or Path(folder).exists():
        assert time.monotonic() < deadline, f"left: {pids}, {folder}"
        time.sleep(0.1)


def test_it_runs_without_rights() -> None:
    with Postgres() as server:
        owner = Path(f"/proc/{server.pid}").stat().st_uid
    assert owner == (os.geteuid() or 65534)


def test_a_template_spares_the_migration(postgres: Postgres) -> None:
    calls = []

    def migrate(database: PostgresDatabase) -> None:
        database.migrate(lambda: calls.append(database), "some airflow 1.2.3")

    first, second = (PostgresDatabase(postgres.url(f"templates_{number}")) for number in (1, 2))
    first.migrate(lambda: first.query("CREATE TABLE t AS SELECT 7 AS x"), "some airflow 1.2.3")
    migrate(second)
    assert calls == []
    assert second.query("SELECT x FROM t") == [{"x": 7}]
    # What is there already is upgraded, if it has to be.
    migrate(second)
    assert calls == [second]


def test_queries_are_the_same_on_both(database: Database) -> None:
    database.create()
    change = database.execute if isinstance(database, SqliteDatabase) else database.query
    change("CREATE TABLE t (name VARCHAR(9), value JSON)")
    for name, value in (("number", "17"), ("object", '{"a": 1}'), ("100%", '"x"')):
        change("INSERT INTO t VALUES (?, ?)", name, value)
    sql = f"SELECT {database.json_text('value')} AS value FROM t WHERE name = ?"
    assert database.query(sql, "number") == [{"value": "17"}]
    assert database.query(sql, "object") == [{"value": '{"a": 1}'}]
    assert database.query("SELECT count(*) AS n FROM t WHERE name LIKE '%0%'") == [{"n": 1}]
    assert database.query("SELECT count(*) AS n FROM t WHERE name LIKE '%0%' AND name <> ?", "x") == [{"n": 1}]
    assert database.tables() == ["t"]
    assert any(b"100%" in file.read_bytes() for file in database.files())
    assert type(database_of(database.url)) is type(database)
    assert database_of(database.url).query("SELECT name FROM t") == database.query("SELECT name FROM t")


def test_the_variable_names_a_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAYJOBS_TEST_DATABASE", raising=False)
    assert not wants_sqlite()
    monkeypatch.setenv("RAYJOBS_TEST_DATABASE", "sqlite")
    assert wants_sqlite()
    monkeypatch.setenv("RAYJOBS_TEST_DATABASE", "mysql")
    with pytest.raises(ValueError, match="must be postgresql or sqlite, not 'mysql'"):
        wants_sqlite()
