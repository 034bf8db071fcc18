"""The rows of a PostgreSQL database, and how they come back after a test that committed.

Without the owner's triggers and foreign keys, as ``session_replication_role = replica`` has it
(https://www.postgresql.org/docs/current/runtime-config-client.html): that takes a superuser, which
one of a test database usually is. Tables that nobody changed are left alone.
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from qapla_db.backends import get_backend
from qapla_db.errors import QaplaError

__all__ = ["Snapshot"]

MOST_BYTES = 32_000_000
"""Of rows that are kept in memory; with more a copy of the whole database is better."""

LOCK_WAIT = "2s"
"""How long the server waits for transactions that a test has left open."""

END_WAIT = 2.0
"""Seconds until sessions that were ended must be gone."""

_SET = f"SET LOCAL lock_timeout = '{LOCK_WAIT}'; SET LOCAL max_parallel_workers_per_gather = 0"
# the server forgets the session's plans then, so that the one that looks does not say it
_WITHOUT_TRIGGERS = "SET LOCAL session_replication_role = replica"

_TABLES = """
SELECT format('%I.%I', nspname, relname) FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = relnamespace
WHERE relkind = 'r' AND relpersistence <> 't' AND nspname <> 'information_schema'
AND nspname NOT LIKE 'pg\\_%' ORDER BY 1
"""
_SEQUENCES = _TABLES.replace("'r'", "'S'")

# of whoever was not asked to end them, such as a process that a test has left running
_IN_THE_WAY = """
FROM pg_catalog.pg_stat_activity
WHERE datname = pg_catalog.current_database() AND pid <> pg_catalog.pg_backend_pid()
AND backend_type = 'client backend' AND (xact_start IS NOT NULL OR pid IN (
    SELECT l.pid FROM pg_catalog.pg_locks AS l WHERE locktype = 'advisory'))
"""
_END_OTHERS = f"SELECT pid, pg_catalog.pg_terminate_backend(pid) {_IN_THE_WAY}"
_FORGET_STATISTICS = "SELECT pg_catalog.pg_stat_clear_snapshot()"

# they outlive their sessions, keep their locks, and let nobody drop the database
_PREPARED = """
SELECT pg_catalog.quote_literal(gid) FROM pg_catalog.pg_prepared_xacts
WHERE database = pg_catalog.current_database()
"""
_MAY_PREPARE = "SELECT pg_catalog.current_setting('max_prepared_transactions') <> '0'"

# what rows alone do not restore: content of views, triggers that fire all the same
_BEYOND_ROWS = """
SELECT EXISTS (SELECT FROM pg_catalog.pg_class WHERE relkind = 'm')
OR EXISTS (SELECT FROM pg_catalog.pg_trigger WHERE tgenabled IN ('A', 'R'))
OR EXISTS (SELECT FROM pg_catalog.pg_rewrite WHERE ev_enabled IN ('A', 'R'))
OR EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata)
"""

# without those that statistics and every created or truncated table change
_CATALOGS = """
SELECT relname FROM pg_catalog.pg_class
WHERE relnamespace = 'pg_catalog'::pg_catalog.regnamespace AND relkind = 'r' AND NOT relisshared
AND relname NOT IN ('pg_depend', 'pg_largeobject', 'pg_statistic',
    'pg_statistic_ext_data')
ORDER BY 1
"""
_NEXT = "SELECT pg_catalog.txid_snapshot_xmax(pg_catalog.txid_current_snapshot())"
_TRANSACTIONS = 2**32

# a changed row is a new version of it, by a later transaction than that of any other row: how many
# transactions the newest one is older than one that stays the same
_CATALOG = """
SELECT {index}, pg_catalog.count(*), pg_catalog.age('{since}'::pg_catalog.xid)::bigint -
    NULLIF(pg_catalog.min(pg_catalog.age(xmin)), 2147483647), NULL
FROM pg_catalog.{name} {condition}
"""
# TRUNCATE and VACUUM write to other columns
_CLASS = """
SELECT -1, pg_catalog.count(*), NULL, pg_catalog.sum(pg_catalog.hashtextextended(ROW(
    oid, relname, relnamespace, relowner, relam, reltablespace, relpersistence, relkind, relnatts,
    relchecks, relhasrules, relhastriggers, relrowsecurity, relforcerowsecurity, relreplident,
    relacl, reloptions)::text, 0))::text
FROM pg_catalog.pg_class WHERE relpersistence <> 't' AND oid >= 16384
"""
# see access/transam.h
_OF_THE_SERVER = "WHERE oid < 16384"
# what the server keeps about a database beside it; VACUUM writes to other columns
_DATABASE = """
SELECT -2, 1, NULL, ROW(
    datdba, datistemplate, datallowconn, datconnlimit, dattablespace, datacl,
    pg_catalog.shobj_description(d.oid, 'pg_database'),
    ARRAY(SELECT ROW(setrole, setconfig)::text FROM pg_catalog.pg_db_role_setting
        WHERE setdatabase = d.oid ORDER BY setrole),
    ARRAY(SELECT ROW(provider, label)::text FROM pg_catalog.pg_shseclabel
        WHERE objoid = d.oid AND classoid = 'pg_catalog.pg_database'::pg_catalog.regclass
        ORDER BY provider),
    ARRAY(SELECT ROW(subname, subenabled)::text FROM pg_catalog.pg_subscription
        WHERE subdbid = d.oid ORDER BY subname))::text
FROM pg_catalog.pg_database AS d WHERE datname = pg_catalog.current_database()
"""

Rows = list[tuple[Any, ...]]


@dataclass(frozen=True)
class Snapshot:
    """The rows and sequences of a database.

    :ivar looking: the session that looks what is to be restored.
    :ivar writing: the one that does.
    :ivar question: what to ask the catalogs.
    :ivar schema: what they answer; it differs after every change of the schema.
    :ivar rows: of each table that had some, as COPY has them.
    :ivar marks: which versions of which rows each table had.
    :ivar sequences: where each sequence was.
    """

    looking: _Session
    writing: _Session
    question: str
    schema: dict[int, Any]
    rows: dict[str, bytes]
    marks: dict[str, Any]
    sequences: dict[str, tuple[Any, ...]]

    @classmethod
    def of(cls, engine: Engine) -> Snapshot | None:
        """Take one; None where it could not be restored exactly."""
        if engine.dialect.driver != "psycopg":
            return None
        try:
            looking, writing = _Session(engine), _Session(engine)
            with writing.transaction() as cursor:
                cursor.execute(_WITHOUT_TRIGGERS)  # or the user may not say so
            with looking.transaction() as cursor:
                return cls._by(looking, writing, cursor)
        except _errors(engine):
            return None

    @classmethod
    def _by(cls, looking: _Session, writing: _Session, cursor: Any) -> Snapshot | None:
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
        question = _question(cursor)
        schema = _answers(cursor, question)
        positions = _positions(cursor, sequences)
        return cls(looking, writing, question, schema, found, marks, positions)

    def restore(self, engine: Engine) -> bool:
        """Make rows and sequences what they were; False when the schema is another one.

        Where others keep tables locked it is False, too. The sessions of the pool end: what a test
        has set in one, prepared, locked or listened to would be there in the next test.
        """
        engine.dispose()
        try:
            self.looking.roll_back_prepared()
            with self.looking.transaction() as cursor:
                # whose locks are in the way for LOCK_WAIT at most, until they have ended
                if not _have_ended(cursor) or _answers(cursor, self.question) != self.schema:
                    return False
                marks = _marks(cursor, list(self.marks))
                positions = _positions(cursor, list(self.sequences))
            tables = [one for one, mark in self.marks.items() if mark != marks[one]]
            sequences = [one for one, at in self.sequences.items() if at != positions[one]]
            if tables or sequences:
                with self.writing.transaction() as cursor:
                    self._write(cursor, tables, sequences)
            return True
        except _errors(engine):
            return False

    def _write(self, cursor: Any, tables: list[str], sequences: list[str]) -> None:
        if tables:
            deletions = map("DELETE FROM ONLY {}".format, tables)
            cursor.execute("; ".join([_WITHOUT_TRIGGERS, *deletions]))
        for table in tables:
            if table in self.rows:
                with cursor.copy(f"COPY {table} FROM STDIN (FORMAT binary)") as copy:
                    copy.write(self.rows[table])
        for name in sequences:
            cursor.execute("SELECT setval(%s::regclass, %s, %s)", (name, *self.sequences[name]))
        # rows that were put back are other versions of them
        self.marks.update(_marks(cursor, tables))


class _Session:
    """A session that no test reaches, whose server process knows the catalogs already."""

    def __init__(self, engine: Engine) -> None:
        self._backend = get_backend(engine.url)
        # not one of the pool, whose connections end; made in the same way
        connection = engine.pool.recreate().connect()
        # the driver's own: a listener of the application sees no statement that is not its own
        raw: Any = connection.dbapi_connection
        self._raw = raw
        # what a listener of the application has begun
        self._raw.rollback()
        self._raw.autocommit = True
        with self._cursor() as cursor:
            self._may_prepare = _fetch(cursor, _MAY_PREPARE)[0][0]
        weakref.finalize(self, connection.invalidate)
        _open.add(self)

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        with self._cursor() as cursor, self._raw.transaction():
            cursor.execute(_SET)
            yield cursor

    def roll_back_prepared(self) -> None:
        if not self._may_prepare:
            return
        with self._cursor() as cursor:
            for (identifier,) in _fetch(cursor, _PREPARED):
                cursor.execute(f"ROLLBACK PREPARED {identifier}")

    def _cursor(self) -> Any:
        from psycopg.rows import tuple_row

        return self._raw.cursor(row_factory=tuple_row)

    def forget(self) -> None:
        """In a forked child: leave the parent's connection alone."""
        if self._backend is not None:
            self._backend.orphan(self._raw)


_open: weakref.WeakSet[_Session] = weakref.WeakSet()


def _after_fork() -> None:
    for one in list(_open):
        one.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _errors(engine: Engine) -> tuple[type[Exception], ...]:
    return (QaplaError, sa.exc.DBAPIError, engine.dialect.loaded_dbapi.Error)


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
    # the server need not answer the parts in their order
    parts = (
        query.replace("SELECT", f"SELECT {index},", 1).format(name)
        for index, name in enumerate(names)
    )
    return {names[index]: row for index, *row in _fetch(cursor, " UNION ALL ".join(parts))}


def _question(cursor: Any) -> str:
    since = _fetch(cursor, _NEXT)[0][0] % _TRANSACTIONS
    catalogs = (
        _CATALOG.format(
            index=index,
            since=since,
            name=name,
            condition=_OF_THE_SERVER if name == "pg_class" else "",
        )
        for index, (name,) in enumerate(_fetch(cursor, _CATALOGS))
    )
    return " UNION ALL ".join([*catalogs, _CLASS, _DATABASE])


def _answers(cursor: Any, question: str) -> dict[int, Any]:
    return {index: row for index, *row in _fetch(cursor, question)}


def _have_ended(cursor: Any) -> bool:
    """End the sessions whose transactions and locks are in the way, and wait until they are."""
    if not _fetch(cursor, _END_OTHERS):
        return True
    deadline = time.monotonic() + END_WAIT
    while time.monotonic() < deadline:
        time.sleep(0.001)
        _fetch(cursor, _FORGET_STATISTICS)
        if not _fetch(cursor, f"SELECT pid {_IN_THE_WAY}"):
            return True
    return False
