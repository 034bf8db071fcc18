"""What can be seen of a live database: nothing is written, and no file of SQLite created."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import pool
from sqlalchemy.engine import Connection

from qapla_db.database import Database
from qapla_db.errors import RecordMismatch, ServerError
from qapla_db.migrations.commands import run_alembic
from qapla_db.migrations.environment import OPTIONS
from qapla_db.migrations.lock import lock_holder, protected
from qapla_db.record import Record, RecordTable
from qapla_db.record_reader import has_answered

__all__ = [
    "Look",
    "command_for",
    "expect_answer",
    "expect_present",
    "look_at",
    "probe",
    "record_table",
    "version_table_of",
]

_SILENCE = 3
"""Seconds for which a server that has accepted a connection may say nothing."""

_PATIENCE = {
    "pymysql": {"read_timeout": _SILENCE, "write_timeout": _SILENCE},
    "mysqldb": {"read_timeout": _SILENCE, "write_timeout": _SILENCE},
}
"""Driver -> arguments of its ``connect()``; libpq's ``connect_timeout`` ends with the greeting."""


@dataclass
class Look:
    """What was seen of a database while it was connected."""

    current: tuple[str, ...] = ()
    server: str | None = None
    migrating: str | None = None
    record: Record | None = None
    mismatch: str | None = None


def command_for(database: Database, command: str, *more: str) -> str:
    """Return the command line that does something to this database.

    Without ``--tests`` it would do it to another one of the same name.
    """
    of_tests = ["--tests"] if getattr(database.host, "endpoint", None) == "tests" else []
    return " ".join(["qapla-db", command, database.name, *more, *of_tests])


def expect_present(database: Database) -> None:
    """Raise where connecting would create the database, as it does a file of SQLite.

    :raises ServerError: there is no such file.
    """
    settings = database.settings
    settings.backend.check_present(settings.url, settings.access)


def expect_answer(database: Database) -> None:
    """Raise where a server accepts connections and says nothing, before anybody waits for it.

    Only drivers that would do so for minutes are asked.

    :raises ServerError: it says nothing.
    """
    if database.settings.url.drivername.partition("+")[2] not in _PATIENCE:
        return
    try:
        probe(database)
    except ServerError as error:
        if not has_answered(database.settings, error.__cause__):
            raise


def probe(database: Database) -> None:
    """See whether a database answers within a few seconds, on a connection of its own.

    :raises ServerError: it does not.
    """
    settings, backend = database.settings, database.settings.backend
    expect_present(database)
    driver = settings.url.drivername.partition("+")[2]
    connect_args = {**settings.connect_args, **_PATIENCE.get(driver, {})}
    options = {"poolclass": pool.NullPool, "connect_args": connect_args}
    engine = backend.create_engine(settings.url, options, label=database.name, key=settings.source)
    try:
        with engine.connect() as connection:
            connection.execution_options(**backend.read_only_options())
            connection.execute(sa.text("SELECT 1"))
    except sa.exc.DBAPIError as error:
        raise ServerError(
            f"the database {database.name!r} at {settings.address} does not answer: "
            f"{str(error.orig).strip()}. {backend.advice(settings.source)}"
        ) from error


def look_at(database: Database) -> Look:
    """Return what a database that answers says; nothing is written.

    :raises MigrationError: its migrations directory is not right.
    :raises ServerError: it cannot be reached.
    """
    found = Look()

    def look(heads: tuple[str, ...], context: MigrationContext) -> list[Any]:
        connection = context.connection
        assert connection is not None
        options = context.opts
        names = options["version_table"], options.get("version_table_schema")
        found.current = tuple(heads)
        found.server = _server(connection)
        holder = lock_holder(connection, protected(*names))
        found.migrating = None if holder is None else holder.who
        try:
            found.record = RecordTable(*names).read(connection)
            RecordTable(*names).check(connection, database.settings)
        except RecordMismatch as error:
            found.mismatch = error.message
        return []

    _run(database, fn=look, dont_mutate=True)
    return found


def record_table(database: Database) -> RecordTable:
    """Return the record of the version table that ``env.py`` says; nothing is connected."""
    return RecordTable(*version_table_of(database))


def version_table_of(database: Database) -> tuple[str, str | None]:
    """Return the name and the schema of the version table that ``env.py`` says."""
    options: dict[str, Any] = {}
    _run(database, {OPTIONS: options})
    return options["version_table"], options.get("version_table_schema")


def _run(database: Database, attributes: dict[str, Any] | None = None, **options: Any) -> None:
    def run(config: Config) -> None:
        script = ScriptDirectory.from_config(config)
        with EnvironmentContext(config, script, **options):
            script.run_env()

    run_alembic(database, run, **(attributes or {}))


_KINDS = {"postgresql": "PostgreSQL", "mysql": "MySQL", "mariadb": "MariaDB", "sqlite": "SQLite"}


def _server(connection: Connection) -> str:
    dialect = connection.dialect
    kind = "mariadb" if getattr(dialect, "is_mariadb", False) else dialect.name
    version = [str(part) for part in dialect.server_version_info or () if isinstance(part, int)]
    return f"{_KINDS.get(kind, kind)} {'.'.join(version)}".rstrip()
