"""The SQL that migrations are written down as, and what it makes of an empty database."""

from __future__ import annotations

from typing import TextIO, cast

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from sqlalchemy.engine import Connection

from qapla_db.database import Database
from qapla_db.errors import MigrationError
from qapla_db.migrations.commands import run_alembic
from qapla_db.migrations.confinement import confined
from qapla_db.migrations.offline import see

__all__ = ["execute", "sql_of", "unwritable"]

_WIDTH = 300


class _Written:
    """A file that Alembic writes SQL to, a statement each time."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def write(self, text: str) -> None:
        self.texts.append(text.strip())

    def flush(self) -> None:
        """Do nothing: there is nothing between."""


def sql_of(database: Database) -> list[str]:
    """Return the SQL of all revisions, from nothing, as ``qapla-db sql`` prints it.

    :returns: the statements and, in front of those of a revision, a comment that names it.
    :raises MigrationError: a revision cannot be written down.
    """
    written = _Written()

    def run(config: Config) -> None:
        config.output_buffer = cast(TextIO, written)
        command.upgrade(config, "base:heads", sql=True)

    run_alembic(database, run)
    return written.texts


def unwritable(database: Database) -> list[str]:
    """Return what cannot be written down, and why: a line each, with revision and file."""
    seen = see(database, lambda script: reversed([*script.walk_revisions()]))
    return [
        f"{one.script.revision} ({one.script.path}{f', line {line}' if line else ''}): {reason}"
        for one in seen
        for line, reason in one.hidden
    ]


def execute(database: Database, connection: Connection, url: sa.URL, sql: list[str]) -> None:
    """Execute SQL on an empty database, as a client does that is given the file.

    :param connection: of the database, in autocommit: the SQL has its BEGIN and COMMIT.
    :param url: where the database is.
    :raises MigrationError: a statement fails.
    """
    plain = connection.execution_options(no_parameters=True)  # a percent sign is one
    revision = "the version table"
    with confined(database, url):
        if connection.dialect.name == "sqlite":
            plain.exec_driver_sql("PRAGMA foreign_keys = OFF")
        for text in sql:
            if _is_comment(text):
                revision = text.removeprefix("-- Running upgrade").strip(" -")
                continue
            try:
                plain.exec_driver_sql(text)
            except sa.exc.DBAPIError as error:
                reason = " ".join(str(error.orig).split())
                statement = " ".join(text.split())[:_WIDTH]
                raise MigrationError(f"of {revision} fails: {reason}, in: {statement}") from error


def _is_comment(text: str) -> bool:
    lines = (line.strip() for line in text.splitlines())
    return all(not line or line.startswith("--") for line in lines)
