"""The table ``qapla_db_record``, which a database has of ours.

For each version table of a database it has a row without a revision (the name
and the environment of the settings at the first migration) and a row for each
applied revision. So a copy of production is told from the database that it was
restored into, and a database is not dropped that somebody lives on.
"""

from __future__ import annotations

import getpass
import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.schema import CreateTable

from qapla_db.errors import RecordMismatch
from qapla_db.settings import DatabaseSettings

__all__ = [
    "PRODUCTION",
    "RECORD_TABLE",
    "VERSION_TABLE",
    "Applied",
    "Record",
    "RecordTable",
    "mismatch",
    "plain",
    "records_in",
    "signature",
    "table_in",
]

RECORD_TABLE = "qapla_db_record"
VERSION_TABLE = "alembic_version"
PRODUCTION = "production"

_DATABASE = ""
"""Stands in the column ``revision`` of the row that is about the database itself."""


@dataclass(frozen=True)
class Applied:
    """A revision that was applied to a database.

    :ivar revision: its id.
    :ivar applied_at: when, in UTC; None when that was before there was a record.
    :ivar applied_by: ``user@host`` of the operating system; None as above.
    :ivar application: the class of the application.
    :ivar duration_ms: how long it took; None when it was stamped, or as above.
    :ivar checksum: SHA-256 of what the file did then, see :mod:`qapla_db.migrations.checksum`;
        None when there was no source.
    """

    revision: str
    applied_at: datetime | None = None
    applied_by: str | None = None
    application: str | None = None
    duration_ms: int | None = None
    checksum: str | None = None


@dataclass(frozen=True)
class Record:
    """What a database says about itself.

    :ivar name: the database's name in the application that migrated it first.
    :ivar environment: ``db:<name>:environment`` of that application.
    :ivar version_table: which version table it is about, with its schema.
    :ivar revisions: the applied revisions by id.
    """

    name: str
    environment: str
    version_table: str
    revisions: Mapping[str, Applied] = field(default_factory=dict)

    @property
    def identity(self) -> str:
        """``name@environment``, as errors show it and ``rewrite_record()`` wants it."""
        return f"{self.name}@{self.environment}"

    @property
    def is_production(self) -> bool:
        """Whether nobody may drop it."""
        return plain(self.environment) == PRODUCTION

    def remedy(self, settings: DatabaseSettings) -> str:
        """Return what to do about a copy that is recorded as what it was copied from."""
        # of several names on one database each has a record and a version table of its own
        is_others = self.version_table == f"{VERSION_TABLE}_{self.name}"
        name = self.name if is_others else settings.name
        usual = is_others or self.version_table == VERSION_TABLE
        more = "" if usual else f", version_table={self.version_table!r}"
        return (
            "If this is a copy that was restored on purpose, make its record right with "
            f"'qapla-db rewrite-record {name}', or with "
            f"rewrite_record(app.dbs[{name!r}], confirm={self.identity!r}{more})"
        )


@cache
def table_in(schema: str | None) -> sa.Table:
    return sa.Table(
        RECORD_TABLE,
        sa.MetaData(),
        sa.Column("version_table", sa.String(130), primary_key=True),
        sa.Column("revision", sa.String(130), primary_key=True),
        sa.Column("name", sa.String(130), nullable=False),
        sa.Column("environment", sa.String(130), nullable=False),
        sa.Column("applied_at", sa.DateTime),  # UTC
        sa.Column("applied_by", sa.String(255)),
        sa.Column("application", sa.String(255)),
        sa.Column("duration_ms", sa.BigInteger),
        sa.Column("checksum", sa.String(64)),
        schema=schema,
    )


class RecordTable:
    """The record of one version table.

    :param version_table: its name.
    :param schema: its schema, in which the record is too (PostgreSQL); None for the usual one.
    """

    def __init__(self, version_table: str = VERSION_TABLE, schema: str | None = None) -> None:
        self.version_table = f"{schema}.{version_table}" if schema else version_table
        self._schema = schema

    def table(self, connection: Connection) -> sa.Table:
        # elsewhere a schema is a database of its own, which is dropped by itself
        return table_in(self._schema if connection.dialect.name == "postgresql" else None)

    def exists(self, connection: Connection) -> bool:
        table = self.table(connection)
        return sa.inspect(connection).has_table(table.name, schema=table.schema)

    def read(self, connection: Connection) -> Record | None:
        """Return what is recorded; None when nothing is."""
        if not self.exists(connection):
            return None
        mine = [one for one in records_in(connection, self.table(connection)) if self._is_mine(one)]
        return mine[0] if mine else None

    def check(self, connection: Connection, settings: DatabaseSettings) -> Record | None:
        """Return what is recorded, if it is of the database that the settings mean.

        :raises RecordMismatch: it is of another name, or of another environment.
        """
        if not self.exists(connection):
            return None
        records = records_in(connection, self.table(connection))
        for one in records:
            is_other = self._is_mine(one) and one.name != settings.name
            if is_other or plain(one.environment) != plain(settings.environment):
                raise mismatch(one, settings)
        return next((one for one in records if self._is_mine(one)), None)

    def _is_mine(self, record: Record) -> bool:
        return record.version_table == self.version_table

    # --- writing; the caller has the transaction

    def create(self, connection: Connection) -> None:
        """Create the table, if it is not there."""
        if self.exists(connection):
            return
        create = CreateTable(self.table(connection), if_not_exists=True)
        if connection.dialect.name != "postgresql":
            connection.execute(create)
            return
        try:
            with connection.begin_nested():
                connection.execute(create)
        except (sa.exc.IntegrityError, sa.exc.ProgrammingError):
            # IF NOT EXISTS does not see one that another transaction is about to commit
            if not self.exists(connection):
                raise

    def introduce(self, connection: Connection, settings: DatabaseSettings) -> None:
        """Record name and environment."""
        row = self._row(settings, Applied(_DATABASE, **signature()))
        connection.execute(sa.insert(self.table(connection)), row)

    def add(
        self, connection: Connection, settings: DatabaseSettings, revisions: Iterable[Applied]
    ) -> None:
        """Record revisions; what was recorded of them before is replaced."""
        rows = [self._row(settings, one) for one in revisions]
        if rows:
            self.remove(connection, [row["revision"] for row in rows])
            connection.execute(sa.insert(self.table(connection)), rows)

    def remove(self, connection: Connection, revisions: Iterable[str]) -> None:
        """Forget revisions."""
        table = self.table(connection)
        delete = sa.delete(table).where(
            table.c.version_table == self.version_table, table.c.revision.in_(list(revisions))
        )
        connection.execute(delete)

    def _row(self, settings: DatabaseSettings, one: Applied) -> dict[str, Any]:
        return {
            "version_table": self.version_table,
            "name": settings.name,
            "environment": settings.environment.strip(),
            **vars(one),
            "applied_at": one.applied_at and one.applied_at.astimezone(UTC).replace(tzinfo=None),
        }


def records_in(connection: Connection, table: sa.Table) -> list[Record]:
    rows = connection.execute(sa.select(table).order_by(*table.primary_key)).all()
    return [
        Record(
            row.name,
            row.environment,
            row.version_table,
            {
                one.revision: _applied(one)
                for one in rows
                if one.version_table == row.version_table and one.revision != _DATABASE
            },
        )
        for row in rows
        if row.revision == _DATABASE
    ]


def _applied(row: Any) -> Applied:
    when = row.applied_at
    return Applied(
        row.revision,
        when and when.replace(tzinfo=UTC),
        row.applied_by,
        row.application,
        row.duration_ms,
        row.checksum,
    )


def signature(application: object = None) -> dict[str, Any]:
    """Return when it is and who we are, as fields of :class:`Applied`."""
    try:
        user = getpass.getuser()
    except (ImportError, KeyError, OSError):  # a container's user without a name
        user = str(os.getuid()) if hasattr(os, "getuid") else "unknown"
    return {
        "applied_at": datetime.now(UTC).replace(microsecond=0),
        "applied_by": f"{user}@{platform.node() or 'unknown'}"[:255],
        "application": None if application is None else type(application).__qualname__[:255],
    }


def mismatch(record: Record, settings: DatabaseSettings) -> RecordMismatch:
    wanted = f"{settings.name}@{settings.environment.strip()}"
    return RecordMismatch(
        f"the database {settings.name!r} at {settings.address} is not the one that the settings "
        f"mean, and nothing was done: it is recorded as {record.identity} (table {RECORD_TABLE}), "
        f"the settings say {wanted}. If {settings.source!r} or 'db:{settings.name}:environment' "
        f"is wrong, correct it. {record.remedy(settings)}"
    )


def plain(environment: str) -> str:
    """Return the name of an environment in a form in which two spellings are equal."""
    return environment.strip().lower()
