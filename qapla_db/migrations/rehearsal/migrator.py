"""Migrations on the scratch database: watched, proved, and failures as findings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext, MigrationStep
from alembic.script import ScriptDirectory
from sqlalchemy import event
from sqlalchemy.engine import Connection

from qapla_db.database import Database
from qapla_db.errors import MigrationIncomplete, ServerError
from qapla_db.migrations.commands import Report, run_alembic
from qapla_db.migrations.rehearsal.authors import id_of
from qapla_db.migrations.rehearsal.failure import Failure, orphans, reason_of
from qapla_db.migrations.rehearsal.report import Finding
from qapla_db.migrations.rehearsal.watch import Watch
from qapla_db.migrations.rows import reflect
from qapla_db.migrations.shadow import Shadow
from qapla_db.record import RECORD_TABLE

__all__ = ["Migrator", "Plan"]

Plan = Callable[[ScriptDirectory, Any], Iterable[MigrationStep]]


class Migrator:
    """Runs the migrations of a database on a scratch database.

    :param database: whose migrations they are.
    :param scratch: where they are run.
    :param report: gets a line for each step.
    :ivar skip: the tables of ours and of Alembic.
    """

    def __init__(self, database: Database, scratch: Shadow, report: Report | None) -> None:
        self.skip = {RECORD_TABLE}
        self._database = database
        self._scratch = scratch
        self._report = report
        self._version: dict[str, Any] = {}
        self._orphans: tuple[str, ...] = ()
        self._heads: list[frozenset[str]] = []
        """Where the version table was after each step of a run."""

    def migrate(self, connection: Connection, plan: Plan, watch: Watch | None = None) -> None:
        """Run the steps of a plan.

        :raises MigrationIncomplete: the database is not where the steps lead to.
        """
        self._heads = []

        def run(config: Config) -> None:
            script = ScriptDirectory.from_config(config)

            def steps(heads: tuple[str, ...], context: MigrationContext) -> Iterator[MigrationStep]:
                schema, table = context.version_table_schema, context.version_table
                self._version = {"version_table": table, "version_table_schema": schema}
                self.skip.add(f"{schema}.{table}" if schema else table)
                for step in plan(script, heads):
                    if watch is not None:
                        watch.begin(step)
                    yield step
                    if watch is not None:
                        watch.end()
                    self._heads.append(self._look(connection))

            with EnvironmentContext(config, script, fn=steps, destination_rev="heads"):
                script.run_env()

        connection.rollback()
        run_alembic(
            self._database, run, report=self._report, url=self._scratch.url, connection=connection
        )
        connection.rollback()
        self._prove(self._look(connection))

    def watched(self, connection: Connection, watch: Watch, plan: Plan) -> Exception | None:
        """Run the steps of a plan; return the error of a revision."""
        try:
            with watch.watching(), self._keeping_orphans(connection):
                self.migrate(connection, plan, watch)
        except ServerError:
            raise
        except Exception as error:
            if watch.running is None and not watch.seen:
                raise
            connection.rollback()
            return error
        return None

    def heads(self, connection: Connection) -> tuple[str, ...]:
        """Return the revisions that the scratch database is at."""
        return tuple(sorted(self._look(connection)))

    def failure(
        self,
        connection: Connection,
        watch: Watch,
        error: Exception,
        kind: Literal["failed upgrade", "failed downgrade"],
    ) -> Finding:
        """Return the finding that a revision's error is."""
        failure = Failure(connection, reflect(connection))
        table = failure.table(error)
        examples = failure.examples(error) or self._orphans
        connection.rollback()
        return Finding(
            kind,
            reason_of(error, connection.dialect),
            table.key if table is not None else None,
            revision=self._failed(watch, error, self.heads(connection)),
            examples=examples,
        )

    def _failed(self, watch: Watch, error: Exception, heads: Iterable[str]) -> str | None:
        if watch.running is not None:
            return id_of(watch.running.step)
        at = frozenset(heads)
        if isinstance(error, MigrationIncomplete):  # the step after the last that is there
            last = [number for number, one in enumerate(self._heads, 1) if one == at]
            return id_of(watch.seen[last[-1] if last else 0].step)
        # SQLite checks references at the end of all
        return id_of(watch.seen[0].step) if len(watch.seen) == 1 else None

    # --- the version table

    def _look(self, connection: Connection) -> frozenset[str]:
        was_in_transaction = connection.in_transaction()
        context = MigrationContext.configure(connection, opts=self._version)
        found = frozenset(context.get_current_heads())
        if not was_in_transaction:
            connection.rollback()  # Alembic would take ours for the caller's
        return found

    def _prove(self, found: frozenset[str]) -> None:
        if self._heads and found != self._heads[-1]:
            wanted, there = (", ".join(sorted(one)) or "base" for one in (self._heads[-1], found))
            raise MigrationIncomplete(
                f"the migration of {self._database.name!r} ended without an error, but the "
                f"database is at {there} and not at {wanted}: the revision after that ended the "
                "transaction that it runs in, and what came later was rolled back. Let it do so "
                "in op.get_context().autocommit_block()"
            )

    @contextmanager
    def _keeping_orphans(self, connection: Connection) -> Iterator[None]:
        """SQLite checks references at the end, and then the rows are rolled back."""
        if connection.dialect.name != "sqlite":
            yield
            return

        def look(rolled_back: Connection) -> None:
            self._orphans = orphans(rolled_back)

        event.listen(connection, "rollback", look)
        try:
            yield
        finally:
            event.remove(connection, "rollback", look)
