"""What a run of migrations does, revision by revision: times, locks, tables written anew."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from alembic.runtime.migration import MigrationStep
from sqlalchemy import event
from sqlalchemy.engine import Connection

from qapla_db.migrations.rehearsal.names import TEMPORARY, Names
from qapla_db.migrations.sqltext import as_written

__all__ = ["Seen", "Watch"]

_STORAGE = sa.text(
    "SELECT c.oid, n.nspname, c.relname, pg_catalog.pg_relation_filenode(c.oid) AS storage "
    "FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
    "WHERE c.relkind IN ('r', 'm') AND n.nspname <> 'information_schema' "
    "AND n.nspname NOT LIKE 'pg\\_%'"
)
_LOCKS = sa.text(
    "SELECT relation, mode FROM pg_catalog.pg_locks "
    "WHERE pid = pg_catalog.pg_backend_pid() AND locktype = 'relation' AND granted"
)
_STRONG = ("ShareLock", "ShareRowExclusiveLock", "ExclusiveLock", "AccessExclusiveLock")
"""Those that let writers wait, the weakest first; the last one lets readers wait too."""


@dataclass
class Seen:
    """What was seen of one step."""

    step: MigrationStep
    seconds: float = 0.0
    locks: dict[str, str] = field(default_factory=dict)
    rewritten: list[str] = field(default_factory=list)
    statements: list[str] = field(default_factory=list)


class Watch:
    """Watches a connection on which migrations are run.

    :param connection: in no transaction.
    :param names: told of what is renamed.
    :param skip: tables that are none of the user's.
    """

    def __init__(self, connection: Connection, names: Names, skip: Collection[str]) -> None:
        self.seen: list[Seen] = []
        self.running: Seen | None = None
        """The step that has begun and not ended, or failed."""
        self._connection = connection
        self._names = names
        self._skip = skip
        self._is_postgresql = connection.dialect.name == "postgresql"
        self._default = connection.dialect.default_schema_name
        self._tables: dict[int, tuple[str, int]] = {}
        self._began = 0.0

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch what is executed."""
        listeners: list[tuple[str, Any]] = [
            ("before_execute", self._compiles),
            ("before_cursor_execute", self._executes),
            ("commit", self._commits),
        ]
        for name, listener in listeners:
            event.listen(self._connection, name, listener)
        try:
            yield
        finally:
            for name, listener in reversed(listeners):
                event.remove(self._connection, name, listener)

    def begin(self, step: MigrationStep) -> None:
        """A step begins."""
        if self._is_postgresql:
            self._tables = self._look()
        self.running = Seen(step)
        self._began = time.monotonic()

    def end(self) -> None:
        """The step is through."""
        seen = self.running
        if seen is None:
            return
        seen.seconds = time.monotonic() - self._began
        if self._is_postgresql:
            if self._connection.in_transaction():
                self._collect_locks(self._connection)  # one for the whole run
            now = self._look()
            for number, (name, storage) in self._tables.items():
                if number in now and now[number][1] != storage and name not in self._skip:
                    seen.rewritten.append(name)
        self.seen.append(seen)
        self.running = None

    # --- listeners

    def _compiles(self, connection: Connection, element: Any, *_: object) -> None:
        self._names.copied(element)

    def _executes(self, connection: Connection, cursor: object, statement: str, *_: object) -> None:
        if self.running is None:
            return
        statement = as_written(connection.dialect, statement)
        if re.match(r"\s*(COMMIT|END)\b", statement, re.I):
            self._commits(connection)  # past SQLAlchemy, and the locks with it
        self.running.statements.append(statement)
        self._names.executed(statement)
        made_anew = re.match(rf"\s*CREATE TABLE\s+[\"`]?{TEMPORARY}(\w+)", statement)
        if made_anew:
            self.running.rewritten.append(made_anew[1])

    def _commits(self, connection: Connection) -> None:
        if self.running is not None and self._is_postgresql:
            began = time.monotonic()
            self._collect_locks(connection)
            self._began += time.monotonic() - began  # ours is not the revision's time

    # --- PostgreSQL

    def _look(self) -> dict[int, tuple[str, int]]:
        """Return the tables by number: name, and where they are stored."""
        connection = self._connection
        was_in_transaction = connection.in_transaction()
        found = {
            row.oid: (self._named(row.nspname, row.relname), row.storage)
            for row in connection.execute(_STORAGE)
        }
        if not was_in_transaction:
            connection.rollback()  # Alembic would take ours for the caller's
        return found

    def _named(self, schema: str, name: str) -> str:
        return name if schema == self._default else f"{schema}.{name}"

    def _collect_locks(self, connection: Connection) -> None:
        assert self.running is not None
        locks = self.running.locks
        for number, mode in connection.execute(_LOCKS):
            name = self._tables.get(number, ("", 0))[0]
            if not name or name in self._skip or mode not in _STRONG:
                continue
            if name not in locks or _STRONG.index(mode) > _STRONG.index(locks[name]):
                locks[name] = mode
