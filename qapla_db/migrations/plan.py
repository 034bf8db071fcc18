"""What a migration would do to a database: its revisions, their SQL and its locks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from alembic.script import Script, ScriptDirectory

from qapla_db.database import Database
from qapla_db.migrations.commands import current
from qapla_db.migrations.offline import Emitted, SeenRevision, see
from qapla_db.migrations.sqltext import created_in
from qapla_db.migrations.statement_locks import Lock, locks_of

__all__ = ["PlannedStatement", "PlannedStep", "plan"]


@dataclass(frozen=True)
class PlannedStatement:
    """A statement that a revision would send.

    :param sql: its text, without the semicolon.
    :param line: the line of the revision's file that asks for it, if it is known.
    :param locks: the tables that it locks, where others can be using them; the last is
        :data:`~qapla_db.migrations.statement_locks.UNKNOWN` where there may be others.
        None on other databases than PostgreSQL, of which nothing is told.
    """

    sql: str
    line: int | None
    locks: tuple[Lock, ...] | None


@dataclass(frozen=True)
class PlannedStep:
    """A revision that would be applied.

    :param revision: its id.
    :param doc: the first line of its docstring.
    :param path: its file.
    :param statements: what it would send, in order.
    :param hidden: what cannot be shown offline, in words.
    """

    revision: str
    doc: str
    path: str
    statements: tuple[PlannedStatement, ...]
    hidden: tuple[str, ...]

    @property
    def sql(self) -> str:
        """Its statements as one text; what cannot be shown stands in comments."""
        notes = [f"-- {note}" for note in self.hidden]
        return "\n\n".join([*(f"{one.sql};" for one in self.statements), *notes])

    @property
    def locks(self) -> tuple[Lock, ...]:
        """Every lock that it takes, once."""
        locks = (lock for one in self.statements for lock in one.locks or ())
        return tuple(dict.fromkeys(locks))

    def as_json(self) -> dict[str, object]:
        """Return the fields by name."""
        return asdict(self)


def plan(database: Database, target: str = "head") -> list[PlannedStep]:
    """Tell what an upgrade would do to a database, as it is now. Nothing is executed.

    The database is asked where it is, and the revisions from there are run without a
    database. So the SQL is what they would send on any database: what depends on its
    rows, or on what is reflected from it, cannot be shown offline and is told as that.

    :param database: a prepared database; one that does not exist is planned from nothing.
    :param target: as for ``alembic upgrade``: ``head``, ``heads``, an id, ``+1``.
    :returns: the steps in order; none where the database is at the target.
    :raises MigrationError: the target, or the revision that the database is at, is unknown.
    :raises ServerError: the server cannot be reached.
    """
    heads = current(database) if database.exists() else ()

    def choose(scripts: ScriptDirectory) -> list[Script]:
        # as for the command upgrade: relative targets, branches, dependencies
        upgrade: Any = scripts._upgrade_revs
        return [step.revision for step in upgrade(target, heads)]

    return [_step(seen) for seen in see(database, choose)]


def _step(seen: SeenRevision) -> PlannedStep:
    script = seen.script
    return PlannedStep(
        script.revision,
        script.doc or "",
        script.path,
        tuple(_statements(seen)),
        tuple(_hidden(seen)),
    )


def _statements(seen: SeenRevision) -> Iterator[PlannedStatement]:
    new: set[str] = set()
    for one in seen.emitted:
        new |= created_in(one.sql)
        locks = _locks(one, new) if seen.dialect.name == "postgresql" else None
        yield PlannedStatement(one.sql, one.line, locks)


def _locks(emitted: Emitted, new: set[str]) -> tuple[Lock, ...]:
    """Return the locks of tables that others can be using: not of those just made."""
    return tuple(lock for lock in locks_of(emitted.sql) if lock.table not in new)


def _hidden(seen: SeenRevision) -> Iterator[str]:
    for line, reason in seen.hidden:
        where = f"line {line}: " if line else ""
        yield f"{where}cannot be shown offline: {reason}"
