"""Indexes of large tables, made and dropped without stopping those who write to them.

PostgreSQL leaves an INVALID index behind when ``CREATE INDEX CONCURRENTLY`` fails
or is killed: it costs every write and serves no query, and its name is taken. So
what is there is looked at first.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from alembic import op
from alembic.runtime.migration import MigrationContext
from sqlalchemy.engine import Connection

from qapla_db.errors import MigrationError
from qapla_db.migrations.sqltext import as_written

__all__ = ["create_index_concurrently", "drop_index_concurrently"]

BUILD_WAIT = 60.0
"""Seconds to wait for somebody else who builds an index of the same name."""

_PAUSE = 0.2
_TRIAL = "qapla_db_index_trial"

_FIND = sa.text(
    "SELECT index.oid, pg_index.indisvalid AS is_valid, tables.relname AS table_name, "
    "pg_get_indexdef(index.oid) AS definition "
    "FROM pg_class AS index JOIN pg_index ON pg_index.indexrelid = index.oid "
    "JOIN pg_class AS tables ON tables.oid = pg_index.indrelid "
    "WHERE index.relname = :name AND index.relnamespace = "
    "(SELECT relnamespace FROM pg_class WHERE oid = to_regclass(:table))"
)
_BUILDER = sa.text("SELECT pid FROM pg_stat_progress_create_index WHERE index_relid = :oid")


def create_index_concurrently(
    name: str,
    table: str,
    columns: Sequence[str | sa.ColumnElement[Any]],
    *,
    schema: str | None = None,
    unique: bool = False,
    **options: Any,
) -> None:
    """Create an index while others write to its table; for use in a revision.

    On PostgreSQL it is ``CREATE INDEX CONCURRENTLY``, outside of the revision's
    transaction: **what the revision did before is committed**, so let it do nothing
    else. An INVALID index of the same name is dropped first; where a valid index of
    this name and definition is there already, nothing is done, so that a migration
    that was killed can be run again. In a transaction of the caller's, and on other
    kinds of database, it is a plain ``CREATE INDEX``. Its opposite is
    :func:`drop_index_concurrently`.

    :param name: the index's name.
    :param table: the table's name.
    :param columns: names of columns, or expressions such as ``sa.text("lower(name)")``.
    :param schema: the table's schema.
    :param unique: whether two rows with the same values are refused.
    :param options: more for ``op.create_index``, such as ``postgresql_where``.
    :raises MigrationError: an index of this name, but of another definition, is there,
        or somebody else has been building it for more than a minute.
    """
    wanted = _Wanted(name, table, tuple(columns), schema, unique, options)
    context = op.get_context()
    if context.dialect.name != "postgresql":
        if context.as_sql or not _has_plain(op.get_bind(), wanted):
            wanted.create()
        return
    with _outside(context) as is_outside:
        found = None if context.as_sql else _left_of(op.get_bind(), wanted, is_outside)
        if found is None:
            wanted.create(postgresql_concurrently=is_outside)
        else:
            _expect_same(op.get_bind(), wanted, found)


def drop_index_concurrently(name: str, table: str, *, schema: str | None = None) -> None:
    """Drop an index while others use its table; for use in a revision.

    On PostgreSQL it is ``DROP INDEX CONCURRENTLY``, outside of the revision's
    transaction: **what the revision did before is committed**. Where the index is
    not there, nothing is done. In a transaction of the caller's, and on other kinds
    of database, it is a plain ``DROP INDEX``.

    :param name: the index's name.
    :param table: the table's name.
    :param schema: the table's schema.
    """
    context = op.get_context()
    if context.dialect.name != "postgresql":
        if context.as_sql or name in _plain_indexes(op.get_bind(), table, schema):
            op.drop_index(name, table_name=table, schema=schema)
        return
    with _outside(context) as is_outside:
        op.drop_index(
            name,
            table_name=table,
            schema=schema,
            postgresql_concurrently=is_outside,
            if_exists=True,
        )


@dataclass(frozen=True)
class _Wanted:
    """The index that a revision asks for."""

    name: str
    table: str
    columns: tuple[Any, ...]
    schema: str | None
    unique: bool
    options: dict[str, Any]

    def create(self, **more: Any) -> None:
        op.create_index(
            self.name,
            self.table,
            list(self.columns),
            schema=self.schema,
            unique=self.unique,
            **{**self.options, **more},
        )


@dataclass(frozen=True)
class _Found:
    """An index that is there."""

    oid: int
    is_valid: bool
    table_name: str
    definition: str


@contextmanager
def _outside(context: MigrationContext) -> Iterator[bool]:
    """Leave the revision's transaction; yields False where it is the caller's, and stays."""
    connection = None if context.as_sql else context.connection
    # Alembic has no other sign of a transaction that is not its own
    if connection is not None and connection.in_transaction() and context._transaction is None:
        yield False
        return
    with context.autocommit_block():
        yield True


# --- PostgreSQL


def _left_of(connection: Connection, wanted: _Wanted, is_outside: bool) -> _Found | None:
    """Return the valid index of this name; drop an invalid one."""
    found = _settled(connection, wanted)
    if found is None or found.is_valid:
        return found
    op.drop_index(
        wanted.name,
        table_name=wanted.table,
        schema=wanted.schema,
        postgresql_concurrently=is_outside,
    )
    return None


def _settled(connection: Connection, wanted: _Wanted) -> _Found | None:
    """Return the index of this name when nobody builds it any more.

    The server goes on building for a client that was killed.
    """
    deadline = time.monotonic() + BUILD_WAIT
    while True:
        found = _find(connection, wanted)
        if found is None or found.is_valid:
            return found
        builder = connection.execute(_BUILDER, {"oid": found.oid}).scalar()
        if builder is None:
            return found
        if time.monotonic() > deadline:
            raise MigrationError(
                f"the index {wanted.name!r} is being built by another connection (process "
                f"{builder} of the server) for more than {BUILD_WAIT:g} s; migrate again when it "
                f"has finished, or end it: SELECT pg_terminate_backend({builder})"
            )
        time.sleep(_PAUSE)


def _find(connection: Connection, wanted: _Wanted) -> _Found | None:
    quote = connection.dialect.identifier_preparer.quote
    table = ".".join(quote(part) for part in (wanted.schema, wanted.table) if part)
    values = {"name": wanted.name, "table": as_written(connection.dialect, table)}
    row = connection.execute(_FIND, values).first()
    return None if row is None else _Found(*row)


def _expect_same(connection: Connection, wanted: _Wanted, found: _Found) -> None:
    """Refuse an index that only has the name of the wanted one."""
    definition = _definition(connection, wanted)
    if found.table_name != wanted.table or _essence(found.definition) != _essence(definition):
        raise MigrationError(
            f"an index {wanted.name!r} is there already, but it is another one: "
            f"{found.definition}. Drop it or give the new one another name"
        )


def _definition(connection: Connection, wanted: _Wanted) -> str:
    """Let the server write the wanted index down, made on an empty table like its own."""
    preparer = connection.dialect.identifier_preparer
    table = sa.Table(wanted.table, sa.MetaData(), schema=wanted.schema)
    like = f"CREATE TEMPORARY TABLE {_TRIAL} (LIKE {preparer.format_table(table)})"
    connection.exec_driver_sql(f"DROP TABLE IF EXISTS pg_temp.{_TRIAL}")
    connection.exec_driver_sql(like)
    try:
        trial = _Wanted(
            wanted.name, _TRIAL, wanted.columns, "pg_temp", wanted.unique, wanted.options
        )
        trial.create()
        found = _find(connection, trial)
    finally:
        connection.exec_driver_sql(f"DROP TABLE pg_temp.{_TRIAL}")
    assert found is not None
    return found.definition


def _essence(definition: str) -> tuple[bool, str]:
    """Reduce the server's text to what is the same on another table."""
    start, _, rest = definition.partition(" USING ")
    return start.startswith("CREATE UNIQUE"), rest


# --- other kinds of database


def _has_plain(connection: Connection, wanted: _Wanted) -> bool:
    """Tell whether an index of this name has these columns: a killed run has made it."""
    found = _plain_indexes(connection, wanted.table, wanted.schema).get(wanted.name)
    if found is None:
        return False
    same = list(wanted.columns) == found["column_names"] and wanted.unique == bool(found["unique"])
    if not same:
        raise MigrationError(
            f"an index {wanted.name!r} of {wanted.table!r} is there already, but it is another "
            f"one, of {', '.join(map(str, found['column_names']))}. Drop it or give the new one "
            "another name"
        )
    return True


def _plain_indexes(connection: Connection, table: str, schema: str | None) -> dict[str, Any]:
    indexes = sa.inspect(connection).get_indexes(table, schema=schema)
    return {str(index["name"]): index for index in indexes}
