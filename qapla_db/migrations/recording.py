"""Keeps the record of a database while the steps of a migration run go by."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import sqlalchemy as sa
from alembic.runtime.migration import MigrationContext, MigrationInfo, MigrationStep
from alembic.script import ScriptDirectory
from sqlalchemy.engine import Connection

from qapla_db.backends.base import log
from qapla_db.migrations.checksum import checksum_of
from qapla_db.migrations.steps import Plan
from qapla_db.record import Applied, Record, RecordTable
from qapla_db.record_table import signature
from qapla_db.settings import DatabaseSettings

__all__ = ["Recording"]


class Recording:
    """The record of one database during one run.

    What it writes of a revision stands in the revision's own transaction.

    :param table: the record.
    :param settings: what the database is, at the address that is migrated.
    :param application: who migrates.
    :param script: the revisions.
    """

    def __init__(
        self,
        table: RecordTable,
        settings: DatabaseSettings,
        application: object,
        script: ScriptDirectory,
    ) -> None:
        self.table = table
        self.settings = settings
        self.application = application
        self.script = script
        self._known: Record | None = None
        self._started = 0.0

    def check(self, connection: Connection) -> None:
        """Refuse a database that is recorded as another one.

        :raises RecordMismatch: it is.
        """
        with _as_it_was(connection):
            self._known = self.table.check(connection, self.settings)

    def opened(self, plan: Plan) -> Plan:
        """Wrap the function that plans the steps, so that there is a record at the first."""

        def steps(heads: tuple[str, ...], context: MigrationContext) -> Iterator[MigrationStep]:
            number = 0
            for number, step in enumerate(plan(heads, context), 1):
                if number == 1:
                    assert context.connection is not None
                    self._open(context.connection, heads)
                self._started = time.monotonic()
                yield step
            if context.purge and number == 0:
                self._purged(context.connection)

        return steps

    def ensure(self, connection: Connection, heads: Collection[str]) -> None:
        """Write the record of a database that was migrated before there was one.

        There was nothing else to do, so a database that cannot be written to is no error.
        """
        if self._known is not None or not heads:
            return
        try:
            with connection.begin():
                self._open(connection, heads)
        except sa.exc.DBAPIError as error:
            log.warning("the record of %r could not be written: %s", self.settings.name, error.orig)

    def _purged(self, connection: Connection | None) -> None:
        """Forget all revisions: where nothing is stamped there is no step that does it."""
        assert connection is not None
        if self._known is not None:
            with nullcontext() if connection.in_transaction() else connection.begin():
                self._stamped(connection, ())

    def _open(self, connection: Connection, heads: Collection[str]) -> None:
        if self._known is not None:
            return
        self.table.create(connection)
        self.table.introduce(connection, self.settings)
        # what was applied before is known from now on; when and by whom is not
        before = [Applied(one, checksum=found) for one, found in self._files(heads)]
        self.table.add(connection, self.settings, before)

    def applied(
        self, *, ctx: MigrationContext, step: MigrationInfo, heads: Collection[str], **_: Any
    ) -> None:
        """Alembic's hook ``on_version_apply``."""
        connection = ctx.connection
        assert connection is not None
        if step.is_stamp:
            self._stamped(connection, heads)
        elif step.is_upgrade:
            duration = round((time.monotonic() - self._started) * 1000)
            files = ((one, self._checksum(one)) for one in step.up_revision_ids)
            self._add(connection, files, duration_ms=duration)
        else:
            self.table.remove(connection, step.up_revision_ids)

    def _stamped(self, connection: Connection, heads: Collection[str]) -> None:
        record = self.table.read(connection)
        known = set(record.revisions) if record else set()
        files = dict(self._files(heads))
        gone = known - set(files)
        if gone:
            self.table.remove(connection, gone)
        self._add(connection, ((one, files[one]) for one in files if one not in known))

    def _add(
        self, connection: Connection, files: Iterable[tuple[str, str | None]], **more: Any
    ) -> None:
        who = signature(self.application)
        revisions = [Applied(one, checksum=found, **who, **more) for one, found in files]
        self.table.add(connection, self.settings, revisions)

    def _files(self, heads: Collection[str]) -> list[tuple[str, str | None]]:
        """Return what leads to these heads: revision and checksum of its file."""
        if not heads:
            return []
        found = self.script.iterate_revisions(tuple(heads), "base")
        return [(one.revision, checksum_of(one.path)) for one in found]

    def _checksum(self, revision: str) -> str | None:
        found = self.script.get_revision(revision)
        return checksum_of(found.path) if found is not None else None


@contextmanager
def _as_it_was(connection: Connection) -> Iterator[None]:
    """End the transaction that a question begins; Alembic commits none that it finds."""
    is_ours = not connection.in_transaction()
    try:
        yield
    finally:
        if is_ours:
            connection.rollback()
