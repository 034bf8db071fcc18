"""The parts of a rehearsal, one after the other, on a scratch database."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import sqlalchemy as sa
from alembic.runtime.migration import MigrationStep
from alembic.script import ScriptDirectory

from qapla_db.database import Database
from qapla_db.migrations.commands import Report
from qapla_db.migrations.drift import differences
from qapla_db.migrations.position import script_of
from qapla_db.migrations.rehearsal.authors import author_of, id_of
from qapla_db.migrations.rehearsal.declared import Declaration, apply, declarations_in
from qapla_db.migrations.rehearsal.losses import (
    Before,
    losses_after_downgrade,
    losses_after_upgrade,
    read_before,
)
from qapla_db.migrations.rehearsal.migrator import Migrator
from qapla_db.migrations.rehearsal.names import Names
from qapla_db.migrations.rehearsal.report import Finding, Rehearsal, RehearsedRevision
from qapla_db.migrations.rehearsal.schema import Schema, schema_differences, schema_of
from qapla_db.migrations.rehearsal.watch import Seen, Watch
from qapla_db.migrations.rows import Filled, fill, reflect
from qapla_db.migrations.shadow import Shadow

__all__ = ["Run"]


class Run:
    """One rehearsal.

    :param database: whose migrations are rehearsed.
    :param scratch: an empty database.
    :param start: the revisions to begin with.
    :param count: rows for each table.
    :param seed: of the random numbers.
    :param report: gets a line for each step.
    """

    def __init__(
        self,
        database: Database,
        scratch: Shadow,
        start: tuple[str, ...],
        count: int,
        seed: int,
        report: Report | None,
    ) -> None:
        self._database = database
        self._scratch = scratch
        self._start = start
        self._count = count
        self._seed = seed
        self._migrator = Migrator(database, scratch, report)
        self._skip = self._migrator.skip
        self._end: tuple[str, ...] = ()
        self._findings: list[Finding] = []
        self._declarations: list[Declaration] = []
        self._notes: list[str] = []
        self._seconds: dict[str, float] = {}
        self._back: dict[str, float] = {}

    def run(self) -> Rehearsal:
        """Go there and back."""
        with self._timed("old revision"):
            self._to_start()
        with self._timed("rows"):
            metadata, filled = self._fill()
        with self._timed("reading"), self._scratch.engine.connect() as connection:
            before = read_before(connection, metadata, self._skip)
            self._not_rehearsed(before, filled)
            schema = schema_of(connection, metadata, self._skip)
            names = Names(metadata, connection.dialect)
        seen, has_failed = self._upgrade(before, names)
        if not has_failed:
            self._look(before, names, seen)
            self._back_again(before, schema, seen)
        findings, unused = apply(
            self._findings,
            {*self._declarations, *self._skipped()},
            lambda one: names.all_of(one.table, one.column) if one.table else set(),
        )
        revisions = tuple(self._revision(one) for one in seen)
        return Rehearsal(
            self._database.name,
            self._start,
            self._end,
            len(filled.tables),
            filled.stored,
            self._seed,
            revisions,
            tuple(findings),
            (*self._notes, *(unused if filled.stored else ())),
            self._seconds,
        )

    # --- the parts

    def _to_start(self) -> None:
        with self._scratch.engine.connect() as connection:
            for one in self._start:

                def plan(
                    script: ScriptDirectory, at: Any, to: str = one
                ) -> Iterable[MigrationStep]:
                    return script._upgrade_revs(to, at)

                self._migrator.migrate(connection, plan)

    def _fill(self) -> tuple[sa.MetaData, Filled]:
        with self._scratch.engine.begin() as connection:
            metadata = reflect(connection)
            filled = fill(connection, metadata, self._count, seed=self._seed, skip=self._skip)
        for one in filled.tables:
            if one.refused and one.stored:
                self._notes.append(
                    f"{one.table} did not take {one.refused} of {one.stored + one.refused} rows: "
                    f"{one.reason}"
                )
        return metadata, filled

    def _not_rehearsed(self, before: Before, filled: Filled) -> None:
        """Find the tables and columns that hold nothing which could be lost."""
        by_key = {one.table: one for one in filled.tables}
        for key, cells in before.cells.items():
            rows = by_key[key]
            if not cells.raw:
                why = rows.reason or "no row fits its keys and references"
                self._findings.append(Finding("not rehearsed", f"{key} got no row: {why}", key))
                continue
            for column in rows.unknown:
                message = f"{key}.{column} holds only NULL: no values are known for its type"
                self._findings.append(Finding("not rehearsed", message, key, column))

    def _skipped(self) -> list[Declaration]:
        """Return what revisions declare that cannot be rehearsed, also the old ones."""
        if not any(one.kind == "not rehearsed" for one in self._findings):
            return []
        found = []
        for script in script_of(self._database).walk_revisions():
            found += declarations_in(script.path, script.revision)[0]
        return [one for one in found if one.verb == "skips"]

    def _upgrade(self, before: Before, names: Names) -> tuple[list[Seen], bool]:
        with self._timed("upgrade"), self._scratch.engine.connect() as connection:
            watch = Watch(connection, names, self._skip)
            failed = self._migrator.watched(
                connection, watch, lambda script, at: script._upgrade_revs("heads", at)
            )
            for one in [*watch.seen, *([watch.running] if watch.running else [])]:
                script: Any = one.step
                declared, wrong = declarations_in(script.revision.path, script.revision.revision)
                self._declarations += declared
                self._findings += wrong
            if failed is not None:
                finding = self._migrator.failure(connection, watch, failed, "failed upgrade")
                self._findings.append(finding)
            self._end = self._migrator.heads(connection)
        return watch.seen, failed is not None

    def _look(self, before: Before, names: Names, seen: list[Seen]) -> None:
        """Compare the data with what it was, and the models with the schema."""
        for one in self._declarations:
            if one.to is not None:
                names.declare(one.what, one.to)
        with self._timed("comparing"), self._scratch.engine.connect() as connection:
            after = reflect(connection)
            losses, notes = losses_after_upgrade(connection, before, after, names)
        self._findings += [replace(one, revision=author_of(one, seen, names)) for one in losses]
        self._notes += notes
        with self._timed("models"):
            for what in differences(self._database, url=self._scratch.url):
                message = f"the models want what no revision does: {what}"
                self._findings.append(Finding("models", message))

    def _back_again(self, before: Before, schema: Schema, seen: list[Seen]) -> None:
        def plan(script: ScriptDirectory, at: object) -> Iterator[MigrationStep]:
            # the same way back, also where branches make several ways
            for one in reversed(seen):
                revision = script.get_revision(id_of(one.step))
                yield MigrationStep.downgrade_from_script(script.revision_map, revision)

        if not seen:
            return
        with self._timed("downgrade"), self._scratch.engine.connect() as connection:
            watch = Watch(connection, Names(sa.MetaData(), connection.dialect), self._skip)
            failed = self._migrator.watched(connection, watch, plan)
            if failed is not None:
                finding = self._migrator.failure(connection, watch, failed, "failed downgrade")
                if isinstance(failed, NotImplementedError) and str(failed):
                    finding = replace(finding, declared="it says itself that there is no way back")
                self._findings.append(finding)
        self._back = {id_of(one.step): one.seconds for one in watch.seen}
        if failed is not None:
            return
        with self._timed("comparing again"), self._scratch.engine.connect() as connection:
            after = reflect(connection)
            now = schema_of(connection, after, self._skip)
            for table, what in schema_differences(schema, now):
                self._findings.append(Finding("schema after downgrade", what, table))
            known = list(self._findings)
            self._findings += losses_after_downgrade(connection, before, after, known)

    # --- the report

    def _revision(self, seen: Seen) -> RehearsedRevision:
        revision = id_of(seen.step)
        return RehearsedRevision(
            revision,
            " ".join((seen.step.doc or "").split()),
            seen.seconds,
            dict(sorted(seen.locks.items())),
            tuple(sorted(set(seen.rewritten))),
            self._back.get(revision),
        )

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self._seconds[part] = time.monotonic() - began
