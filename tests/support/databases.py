"""The database of an Airflow for tests, on PostgreSQL or SQLite. This module does not import Airflow."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import threading
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg2
from psycopg2.extras import RealDictCursor, register_default_json, register_default_jsonb

if TYPE_CHECKING:
    from collections.abc import Callable

#: Selects the database of the tests' Airflows: ``postgresql`` (default) or ``sqlite``.
VARIABLE = "RAYJOBS_TEST_DATABASE"


def wants_sqlite() -> bool:
    """Return whether the environment asks for SQLite."""
    name = os.environ.get(VARIABLE) or "postgresql"
    if name not in ("postgresql", "sqlite"):
        raise ValueError(f"{VARIABLE} must be postgresql or sqlite, not {name!r}")
    return name == "sqlite"


class Database(ABC):
    """The database of one Airflow.

    :param url: its URL for SQLAlchemy.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    def environment(self) -> dict[str, str]:
        """Return the environment variables of an Airflow that uses it."""
        return {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": self.url}

    @abstractmethod
    def create(self) -> None:
        """Create it without tables."""

    @abstractmethod
    def query(self, sql: str, *parameters: object) -> list[dict[str, Any]]:
        """Run a query.

        :param sql: with a ``?`` for each parameter.
        """

    @abstractmethod
    def execute(self, sql: str, *parameters: object) -> None:
        """Run a statement that changes something."""

    @abstractmethod
    def migrate(self, command: Callable[[], object], template: str) -> None:
        """Create the tables, or upgrade those of an older Airflow.

        :param command: runs ``airflow db migrate``.
        :param template: name of the result for an empty database. If the command has already run for this name, its
            result may be copied instead.
        """

    @abstractmethod
    def tables(self) -> list[str]:
        """Return the names of all tables."""

    @abstractmethod
    def files(self) -> list[Path]:
        """Return its files."""

    @abstractmethod
    def json_text(self, column: str) -> str:
        """Return SQL that reads a column with JSON as text or bytes, whatever its type."""


class SqliteDatabase(Database):
    """A file of SQLite, which has only one writer at a time.

    :param path: the path of the file.
    """

    def __init__(self, path: Path) -> None:
        # Several processes write to the file; with a timeout they wait for each other instead of failing.
        super().__init__(f"sqlite:///{path}?timeout=30")
        self._path = path

    def environment(self) -> dict[str, str]:
        # 2.11 rejects SQLite with an executor that runs tasks in parallel, although it works with a write-ahead log.
        return super().environment() | {"_AIRFLOW__SKIP_DATABASE_EXECUTOR_COMPATIBILITY_CHECK": "1"}

    def create(self) -> None:
        """Do nothing: the first connection creates the file."""

    def query(self, sql: str, *parameters: object) -> list[dict[str, Any]]:
        with contextlib.closing(sqlite3.connect(f"{self._path.as_uri()}?mode=ro", uri=True, timeout=30)) as database:
            database.row_factory = sqlite3.Row
            return [dict(row) for row in database.execute(sql, parameters)]

    def execute(self, sql: str, *parameters: object) -> None:
        with contextlib.closing(sqlite3.connect(self._path, timeout=30)) as database, database:
            database.execute(sql, parameters)

    def migrate(self, command: Callable[[], object], template: str) -> None:
        upgraded = self._path.exists()
        command()
        if not upgraded:
            self._behave_like_postgres()

    def tables(self) -> list[str]:
        return [row["name"] for row in self.query("SELECT name FROM sqlite_master WHERE type = 'table'")]

    def files(self) -> list[Path]:
        return sorted(self._path.parent.glob(f"{self._path.name}*"))

    def json_text(self, column: str) -> str:
        # In a column of type JSON, SQLite converts text that looks like a number.
        return f"CAST({column} AS TEXT)"

    def _behave_like_postgres(self) -> None:
        """Remove differences from PostgreSQL in a migrated database that is empty and not in use."""
        with contextlib.closing(sqlite3.connect(self._path)) as database:
            # With this mode, readers and the writer don't block each other. The file keeps it; Airflow 3 sets it too.
            database.execute("PRAGMA journal_mode=WAL")
            # Without AUTOINCREMENT, SQLite would reuse the id of the newest trigger after its deletion. A triggerer
            # that still runs the old trigger would then mistake the new one for it.
            ((sql,),) = database.execute("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = 'trigger'")
            sql, changes = re.subn(
                r"\bid INTEGER NOT NULL(.*),\s*CONSTRAINT \w+ PRIMARY KEY \(id\)",
                r"id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL\1",
                sql,
                flags=re.DOTALL,
            )
            assert changes == 1, sql
            indices = database.execute(
                "SELECT sql FROM sqlite_master WHERE type = 'index' AND tbl_name = 'trigger' AND sql IS NOT NULL"
            ).fetchall()
            database.execute("DROP TABLE trigger")
            for statement in (sql, *(index for (index,) in indices)):
                database.execute(statement)
            database.commit()


class PostgresDatabase(Database):
    """A database of a running :class:`~tests.support.postgres.Postgres`, which need not exist yet.

    :param url: URL for the server's superuser; the name consists of letters, digits and underscores.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url)
        # In the form for libpq.
        self._server, _, self._name = re.sub(r"^postgresql\+\w+:", "postgresql:", url).rpartition("/")
        self._connection: Any = None
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[PostgresDatabase], tuple[str]]:
        return PostgresDatabase, (self.url,)  # another process opens its own connection

    def disconnect(self) -> None:
        """Close the connection that queries share; the next query opens a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def create(self, template: str = "template1") -> None:
        """Create it as a copy of a database without connections."""
        self._administer(f"CREATE DATABASE {self._name} TEMPLATE {template}")

    def exists(self, name: str | None = None) -> bool:
        """Return whether it, or another database of the server, exists."""
        return bool(self._administer("SELECT 1 FROM pg_database WHERE datname = %s", name or self._name))

    def query(self, sql: str, *parameters: object) -> list[dict[str, Any]]:
        statement = sql.replace("%", "%%").replace("?", "%s") if parameters else sql
        with self._lock:
            if self._connection is not None:
                # The connection is broken if the server has been restarted.
                with contextlib.suppress(psycopg2.OperationalError, psycopg2.InterfaceError):
                    return _execute(self._connection, statement, parameters)
                self.disconnect()
            self._connection = _connect(f"{self._server}/{self._name}")
            return _execute(self._connection, statement, parameters)

    def execute(self, sql: str, *parameters: object) -> None:
        self.query(sql, *parameters)

    def migrate(self, command: Callable[[], object], template: str) -> None:
        if self.exists():
            command()
            return
        copied = "template_" + re.sub(r"\W", "_", template)
        if not self.exists(copied):
            self.create()
            command()
            self.disconnect()
            self._administer(f"CREATE DATABASE {copied} TEMPLATE {self._name}")
        else:
            self.create(copied)

    def tables(self) -> list[str]:
        rows = self.query("SELECT table_name AS name FROM information_schema.tables WHERE table_schema = 'public'")
        return [row["name"] for row in rows]

    def files(self) -> list[Path]:
        """Return its files, written by a checkpoint, and the files of the write-ahead log."""
        self.query("CHECKPOINT")
        (row,) = self.query(
            "SELECT current_setting('data_directory') AS data, oid FROM pg_database WHERE datname = ?", self._name
        )
        folders = (Path(row["data"]) / "base" / str(row["oid"]), Path(row["data"]) / "pg_wal")
        return [file for folder in folders for file in sorted(folder.rglob("*")) if file.is_file()]

    def json_text(self, column: str) -> str:
        return column

    def _administer(self, statement: str, *parameters: object) -> list[dict[str, Any]]:
        with contextlib.closing(_connect(f"{self._server}/postgres")) as connection:
            return _execute(connection, statement, parameters)


def database_of(url: str) -> Database:
    """Return the database for a URL that another process created."""
    if url.startswith("sqlite:///"):
        return SqliteDatabase(Path(url.removeprefix("sqlite:///").partition("?")[0]))
    return PostgresDatabase(url)


def _connect(url: str) -> Any:
    connection = psycopg2.connect(url, connect_timeout=30, cursor_factory=RealDictCursor)
    connection.autocommit = True
    # Keep JSON as text, as on SQLite: it preserves more.
    register_default_json(connection, loads=lambda text: text)
    register_default_jsonb(connection, loads=lambda text: text)
    return connection


def _execute(connection: Any, statement: str, parameters: tuple[object, ...]) -> list[dict[str, Any]]:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters or None)
        rows = cursor.fetchall() if cursor.description else []
    return [{name: bytes(cell) if isinstance(cell, memoryview) else cell for name, cell in row.items()} for row in rows]
