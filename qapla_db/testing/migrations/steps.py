"""Revisions one by one: applied, taken back and applied again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from alembic.runtime.migration import MigrationStep
from alembic.script import Script, ScriptDirectory
from sqlalchemy.engine import Connection

from qapla_db.database import Database
from qapla_db.migrations.position import ancestors
from qapla_db.migrations.rehearsal.failure import reason_of
from qapla_db.migrations.rehearsal.migrator import Migrator
from qapla_db.migrations.rehearsal.schema import Schema, schema_differences
from qapla_db.migrations.shadow import shadow
from qapla_db.testing.migrations.states import Bookkeeping

__all__ = ["RoundTrip", "step_by_step"]


@dataclass
class RoundTrip:
    """What a way to head and back leaves behind.

    :ivar problems: a revision, if it is known which, and what is wrong with its way back.
    :ivar irreversible: revisions that say that there is no way back, and why.
    """

    problems: list[tuple[str | None, str]] = field(default_factory=list)
    irreversible: dict[str, str] = field(default_factory=dict)


def step_by_step(database: Database, bookkeeping: Bookkeeping) -> RoundTrip:
    """Apply each revision, take it back and apply it again, on a scratch database."""
    found = RoundTrip()
    with shadow(database, revision=None) as scratch, scratch.engine.connect() as connection:
        migrator = Migrator(database, scratch, None)
        walk = _Walk(connection, bookkeeping, found)
        while True:
            try:
                migrator.migrate(connection, walk.steps)
                return found
            except Exception as error:
                revision = walk.running
                if revision is None:
                    raise
                connection.rollback()
                if not walk.is_back or not _is_meant(error):
                    what = "is undone" if walk.is_back else "is applied after it was undone"
                    reason = reason_of(error, connection.dialect)
                    found.problems.append((revision, f"fails when it {what}: {reason}"))
                    return found
                found.irreversible[revision] = str(error)


def _is_meant(error: Exception) -> bool:
    """Tell whether a downgrade says itself that there is no way back, as in rehearsals."""
    return isinstance(error, NotImplementedError) and bool(str(error))


class _Walk:
    """The way through all revisions, which goes on after one that has no way back.

    :ivar running: the revision that is taken back, or applied again.
    :ivar is_back: it is taken back.
    """

    def __init__(self, connection: Connection, bookkeeping: Bookkeeping, found: RoundTrip) -> None:
        self.running: str | None = None
        self.is_back = False
        self._connection = connection
        self._bookkeeping = bookkeeping
        self._found = found
        self._seen: set[str] = set()

    def steps(self, script: ScriptDirectory, heads: Any) -> Iterator[MigrationStep]:
        """Yield the steps from where the scratch database is."""
        self.running = None
        applied = {one.revision for one in ancestors(script, heads)}
        for one in reversed([*script.walk_revisions()]):
            if one.revision in applied:
                continue
            up = MigrationStep.upgrade_from_script
            if one.revision in self._seen:  # SQLite has rolled it back, with what came after it
                yield up(script.revision_map, one)
                continue
            before = self._look()
            yield up(script.revision_map, one)
            self._seen.add(one.revision)
            yield from self._back_and_again(script, one, before)
            self.running = None

    def _back_and_again(
        self, script: ScriptDirectory, one: Script, before: Schema
    ) -> Iterator[MigrationStep]:
        after = self._look()
        self.running, self.is_back = one.revision, True
        yield MigrationStep.downgrade_from_script(script.revision_map, one)
        self._note(one, "when it is undone", before)
        self.is_back = False
        yield MigrationStep.upgrade_from_script(script.revision_map, one)
        self._note(one, "when it is applied again", after)

    def _note(self, one: Script, when: str, expected: Schema) -> None:
        for _, what in schema_differences(expected, self._look()):
            self._found.problems.append((one.revision, f"{when}, {what}"))

    def _look(self) -> Schema:
        was_in_transaction = self._connection.in_transaction()
        found = self._bookkeeping.schema(self._connection)
        if not was_in_transaction:
            self._connection.rollback()  # Alembic would take ours for the caller's
        return found
