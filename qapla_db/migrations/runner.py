"""One run of an Alembic command on a connection: lock, steps, retries, proof."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from alembic import context
from alembic.runtime.migration import MigrationContext
from sqlalchemy.engine import Connection

from qapla_db.backends import Backend
from qapla_db.errors import MigrationError, MigrationIncomplete, MigrationLockTimeout
from qapla_db.migrations.autogenerate.defaults import compare_defaults_safely
from qapla_db.migrations.connections import (
    foreign_key_violations,
    known_violations,
    limited_waits,
    pause,
    waited_too_long,
    without_foreign_keys,
)
from qapla_db.migrations.lock import LockRequest, migration_lock, protected
from qapla_db.migrations.recording import Recording
from qapla_db.migrations.steps import Steps, Undo, at

__all__ = ["Runner"]


@dataclass(frozen=True)
class Runner:
    """Runs the Alembic command that is under way.

    :param name: the database's name.
    :param address: its URL without password.
    :param backend: what knows its kind.
    :param connection: what to run on.
    :param owned: the connection is ours; a caller's one brings transaction and lock.
    :param sandboxed: the database is in the sandbox of a test.
    :param options: keywords of ``context.configure``.
    :param recording: keeps the record of the database.
    :param safe_defaults: compare server defaults in our way.
    :param lock_wait: seconds to wait for another run and for tables in use.
    :param lock_timeout: seconds that one statement waits for a table; None for no limit.
    :param say: gets lines for people.
    """

    name: str
    address: str
    backend: Backend
    connection: Connection
    owned: bool
    sandboxed: bool
    options: dict[str, Any]
    recording: Recording
    safe_defaults: bool
    lock_wait: float
    lock_timeout: float | None
    say: Callable[[str], object]

    def run(self) -> None:
        """Run the command.

        :raises MigrationError: a revision failed, or the lock was not to be had.
        """
        command = self._configure().opts
        if "destination_rev" in command:
            self._write(command["fn"])
        else:
            self._read(only="dont_mutate" in command)

    def _configure(self, **more: Any) -> MigrationContext:
        context.configure(connection=self.connection, **{**self.options, **more})
        found = context.get_context()
        if self.safe_defaults:
            compare_defaults_safely(found)
        return found

    # --- commands that look

    def _read(self, *, only: bool) -> None:
        if only and self.owned:
            # on SQLite a transaction that may write waits for the one that migrates
            self.connection.execution_options(**self.backend.read_only_options())
        self._configure(dont_mutate=True)
        with context.begin_transaction():
            context.run_migrations()
        if self.owned and self.connection.in_transaction():
            self.connection.commit()

    # --- commands that write: upgrade, downgrade, stamp

    def _write(self, plan: Any) -> None:
        steps = Steps(self.name, self.address, self._undo(), self.say)
        try:
            with self._prepared(), steps.watching(self.connection):
                self._attempts(steps, plan)
                self._verify(steps)
        except sa.exc.DBAPIError as error:
            raise steps.failure(error) from error
        if steps.count == 0:
            if self.owned:
                self.recording.ensure(self.connection, steps.heads)
            self.say(f"{self.name}: nothing to do, at {at(steps.heads)}")

    @contextmanager
    def _prepared(self) -> Iterator[None]:
        if self.owned and self.sandboxed:
            raise MigrationError(
                f"the database {self.name!r} is in the sandbox of a test, which a migration would "
                "break; migrate before the sandbox begins, or in a test with real commits"
            )
        with ExitStack() as stack:
            if self.connection.dialect.name == "sqlite":
                stack.enter_context(without_foreign_keys(self.connection, self.name))
            if self.owned:
                stack.enter_context(limited_waits(self.connection, self.lock_timeout))
                stack.enter_context(migration_lock(self.connection.engine, self._request()))
            yield

    def _undo(self) -> Undo:
        found = context.get_context()
        if not self.owned:
            return "caller"
        if not found.impl.transactional_ddl:
            return "nothing"
        return "revision" if self.options["transaction_per_migration"] else "run"

    def _request(self) -> LockRequest:
        table = protected(self.options["version_table"], self.options.get("version_table_schema"))
        return LockRequest(self.name, self.address, table, self.lock_wait, self.say)

    def _attempts(self, steps: Steps, plan: Any) -> None:
        """Run the steps, again where others held a table for too long."""
        deadline = time.monotonic() + self.lock_wait
        while True:
            try:
                self._attempt(steps, plan)
                return
            except sa.exc.DBAPIError as error:
                if not self.owned:
                    raise
                self.connection.rollback()
                self._give_up_unless_worthwhile(steps, error, deadline)
            self.say(f"{self.name}: others use what the revision needs; trying again")
            pause()

    def _give_up_unless_worthwhile(
        self, steps: Steps, error: sa.exc.DBAPIError, deadline: float
    ) -> None:
        if steps.running is None and self._is_busy_sqlite(error):
            raise self._request().timeout(
                "SQLite does not tell who writes to it", "End other runs and long transactions"
            ) from error
        if not waited_too_long(self.backend, error) or steps.committed:
            raise steps.failure(error) from error
        if time.monotonic() > deadline:
            failure = steps.failure(error)
            raise MigrationLockTimeout(
                f"{failure.message} It was tried for {self.lock_wait:g} s; look for transactions "
                "that stay open in pg_stat_activity"
            ) from error

    def _is_busy_sqlite(self, error: sa.exc.DBAPIError) -> bool:
        return self.connection.dialect.name == "sqlite" and self.backend.is_retryable(error)

    def _attempt(self, steps: Steps, plan: Any) -> None:
        theirs = self.options["on_version_apply"]
        applied = (steps.applied, self.recording.applied, *theirs)
        opened = self.recording.opened(plan)
        self._configure(fn=steps.announce(opened), on_version_apply=applied)
        try:
            with context.begin_transaction():
                self._run_checked(steps)
        except sa.exc.DBAPIError:
            raise
        except BaseException as error:
            if steps.running is not None:
                error.add_note(f"{self.name}: {steps.aftermath()}")
            raise

    def _run_checked(self, steps: Steps) -> None:
        self.recording.check(self.connection)
        if self.connection.dialect.name != "sqlite":
            context.run_migrations()
            return
        known = known_violations(self.connection)
        context.run_migrations()
        new = foreign_key_violations(self.connection) - known
        if new:
            what = ", ".join(
                f"{count} in {table!r} (of {parent!r})" for (table, parent), count in new.items()
            )
            raise MigrationError(
                f"the migration of the database {self.name!r} at {self.address} left rows that "
                f"refer to rows which do not exist: {what}. {steps.aftermath()}"
            )

    def _verify(self, steps: Steps) -> None:
        """Ask the version table, in a new transaction, whether it holds what was applied."""
        if self.owned:
            self.connection.rollback()
        options = {key: self.options.get(key) for key in ("version_table", "version_table_schema")}
        found = MigrationContext.configure(self.connection, opts=options).get_current_heads()
        if self.owned:
            self.connection.rollback()
        if set(found) != steps.heads:
            raise MigrationIncomplete(
                f"the migration of the database {self.name!r} at {self.address} ended without an "
                f"error, but its version table {self.options['version_table']!r} holds "
                f"{at(found)} and not {at(steps.heads)}: somebody else ended the transaction of a "
                "revision or wrote to the table. Compare the schema with the revisions, then "
                "stamp the right one"
            )
