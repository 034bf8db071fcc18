"""The rows of a PostgreSQL database, and how they come back after a test that committed.

Without the owner's triggers and foreign keys, as ``session_replication_role = replica`` has it
(https://www.postgresql.org/docs/current/runtime-config-client.html): that takes a superuser, which
one of a test database usually is. Tables that nobody changed are left alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from qapla_db.errors import QaplaError

__all__ = ["Snapshot"]

MOST_BYTES = 32_000_000
"""Of rows that are kept in memory; with more a copy of the whole database is better."""

LOCK_WAIT = "2s"
"""How long the server waits for transactions that a test has left open."""

_WAIT = f"SET LOCAL lock_timeout = '{LOCK_WAIT}'"
# the server forgets its plans then, so that it is said only where rows are written
_WITHOUT_TRIGGERS = "SET LOCAL session_replication_role = replica"

_TABLES = """
SELECT format('%I.%I', nspname, relname) FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = relnamespace
WHERE relkind = 'r' AND relpersistence <> 't' AND nspname <> 'information_schema'
AND nspname NOT LIKE 'pg\\_%' ORDER BY 1
"""
_SEQUENCES = _TABLES.replace("'r'", "'S'")

# of whoever was not asked to end them, such as a process that a test has left running
_END_OTHERS = """
SELECT pid, pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity
WHERE datname = pg_catalog.current_database() AND pid <> pg_catalog.pg_backend_pid()
AND backend_type = 'client backend' AND xact_start IS NOT NULL
"""

# what rows alone do not restore: content of views, triggers that fire all the same
_BEYOND_ROWS = """
SELECT EXISTS (SELECT FROM pg_catalog.pg_class WHERE relkind = 'm')
OR EXISTS (SELECT FROM pg_catalog.pg_trigger WHERE tgenabled IN ('A', 'R'))
OR EXISTS (SELECT FROM pg_catalog.pg_rewrite WHERE ev_enabled IN ('A', 'R'))
OR EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata)
"""

# a row of a catalog that is changed has another xmin; that of pg_class changes with TRUNCATE too
_CATALOGS = {
    "oid": "pg_type pg_enum pg_proc pg_constraint pg_trigger pg_rewrite pg_attrdef pg_namespace "
    "pg_extension pg_policy pg_collation pg_operator pg_opclass pg_opfamily pg_cast pg_conversion "
    "pg_event_trigger pg_statistic_ext pg_publication pg_publication_rel pg_default_acl "
    "pg_largeobject_metadata pg_ts_config pg_ts_dict pg_foreign_server",
    "attrelid": "pg_attribute",
    "indexrelid": "pg_index",
    "inhrelid": "pg_inherits",
    "seqrelid": "pg_sequence",
    "objoid": "pg_description",
}
_CLASS = (
    "oid, relname, relnamespace, relowner, reltablespace, relpersistence, relkind, relnatts, "
    "relchecks, relhasrules, relhastriggers, relrowsecurity, relforcerowsecurity, "
    "relreplident, relacl, reloptions"
)
_SUM = "SELECT sum(hashtextextended({what}, 0)) FROM pg_catalog.{catalog} WHERE {key} >= 16384"
"""From 16384 on are the objects of users, see access/transam.h."""

_SCHEMA = " UNION ALL ".join(
    [
        *(
            _SUM.format(what=f"{key}::text || ' ' || xmin::text", catalog=catalog, key=key)
            for key, catalogs in _CATALOGS.items()
            for catalog in catalogs.split()
        ),
        _SUM.format(what=f"ROW({_CLASS})::text", catalog="pg_class", key="oid")
        + " AND relpersistence <> 't'",
    ]
)

Rows = list[tuple[Any, ...]]


@dataclass(frozen=True)
class Snapshot:
    """The rows and sequences of a database.

    :ivar schema: of the catalogs; it differs after every change of the schema.
    :ivar rows: of each table that had some, as COPY has them.
    :ivar marks: which versions of which rows each table had.
    :ivar sequences: where each sequence was.
    """

    schema: Rows
    rows: dict[str, bytes]
    marks: dict[str, Any]
    sequences: dict[str, tuple[Any, ...]]

    @classmethod
    def of(cls, engine: Engine) -> Snapshot | None:
        """Take one; None where it could not be restored exactly."""
        if engine.dialect.driver != "psycopg":
            return None
        try:
            with _cursor(engine) as cursor:
                cursor.execute(_WITHOUT_TRIGGERS)  # or the user may not say so
                if _fetch(cursor, _BEYOND_ROWS)[0][0]:
                    return None
                tables = [name for (name,) in _fetch(cursor, _TABLES)]
                sequences = [name for (name,) in _fetch(cursor, _SEQUENCES)]
                marks = _marks(cursor, tables)
                found: dict[str, bytes] = {}
                for table in (one for one in tables if marks[one][0]):
                    with cursor.copy(f"COPY {table} TO STDOUT (FORMAT binary)") as copy:
                        found[table] = b"".join(copy)
                    if sum(map(len, found.values())) > MOST_BYTES:
                        return None
                return cls(_fetch(cursor, _SCHEMA), found, marks, _positions(cursor, sequences))
        except _errors(engine):
            return None

    def restore(self, engine: Engine) -> bool:
        """Make rows and sequences what they were; False when the schema is another one.

        Where others keep tables locked it is False, too.
        """
        try:
            with _cursor(engine) as cursor:
                # whose locks are in the way for LOCK_WAIT at most, until they have ended
                _fetch(cursor, _END_OTHERS)
                if _fetch(cursor, _SCHEMA) != self.schema:
                    return False
                now = _marks(cursor, list(self.marks))
                changed = [table for table, mark in self.marks.items() if mark != now[table]]
                if changed:
                    deletions = map("DELETE FROM ONLY {}".format, changed)
                    cursor.execute("; ".join([_WITHOUT_TRIGGERS, *deletions]))
                for table in changed:
                    if table in self.rows:
                        with cursor.copy(f"COPY {table} FROM STDIN (FORMAT binary)") as copy:
                            copy.write(self.rows[table])
                self._reset_sequences(cursor)
                # rows that were put back are other versions of them
                self.marks.update(_marks(cursor, changed))
                return True
        except _errors(engine):
            return False

    def _reset_sequences(self, cursor: Any) -> None:
        now = _positions(cursor, list(self.sequences))
        for name, position in self.sequences.items():
            if now[name] != position:
                cursor.execute("SELECT setval(%s::regclass, %s, %s)", (name, *position))


def _errors(engine: Engine) -> tuple[type[Exception], ...]:
    return (QaplaError, sa.exc.DBAPIError, engine.dialect.loaded_dbapi.Error)


@contextmanager
def _cursor(engine: Engine) -> Iterator[Any]:
    # the driver's own: a listener of the application sees no statement that is not its own
    from psycopg.rows import tuple_row

    with engine.connect() as connection:
        connection.rollback()  # of what a listener of the application has begun
        raw: Any = connection.connection.dbapi_connection
        with raw.transaction(), raw.cursor(row_factory=tuple_row) as cursor:
            cursor.execute(_WAIT)
            yield cursor


def _fetch(cursor: Any, query: str) -> Rows:
    found: Rows = cursor.execute(query).fetchall()
    return found


def _marks(cursor: Any, tables: list[str]) -> dict[str, Any]:
    return _of_each(
        cursor,
        tables,
        "SELECT count(*), sum(hashtextextended(ctid::text || ' ' || xmin::text, 0)) FROM ONLY {}",
    )


def _positions(cursor: Any, sequences: list[str]) -> dict[str, Any]:
    return _of_each(cursor, sequences, "SELECT last_value, is_called FROM {}")


def _of_each(cursor: Any, names: list[str], query: str) -> dict[str, Any]:
    if not names:
        return {}
    rows = _fetch(cursor, " UNION ALL ".join(query.format(name) for name in names))
    return dict(zip(names, rows, strict=True))
