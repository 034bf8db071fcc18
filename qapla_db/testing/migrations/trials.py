"""What the migrations of a database do to scratch databases, each tried once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

from alembic import command

from qapla_db.database import Database
from qapla_db.migrations.commands import run_alembic
from qapla_db.migrations.drift import differences
from qapla_db.migrations.position import script_of
from qapla_db.migrations.rehearsal.schema import Schema, schema_differences
from qapla_db.migrations.shadow import Shadow, shadow
from qapla_db.testing.migrations.offline import execute
from qapla_db.testing.migrations.states import Bookkeeping, State, row_differences
from qapla_db.testing.migrations.steps import RoundTrip, step_by_step

__all__ = ["Trials"]

T = TypeVar("T")


class Trials:
    """Tries the migrations of a database on scratch databases.

    What was tried is known and not tried again, how it failed too. The scratch database that
    was upgraded from nothing stays for what is tried next, until :meth:`close`.

    :param database: a prepared database; it need not exist.
    :ivar told: the errors that tests have failed with, and which test was the first.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self.told: dict[str, str] = {}
        self._known: dict[str, Any] = {}
        self._open = ExitStack()
        self._at_head: Shadow | None = None

    def close(self) -> None:
        """Drop the scratch database that stayed."""
        self._at_head = None
        self._open.close()

    def online(self) -> State:
        """Return what an upgrade from nothing makes.

        :raises MigrationError: it fails.
        """
        return self._once("online", self._go_online)

    def differences(self) -> list[str]:
        """Return what the models want otherwise, a line each."""
        self.online()
        return self._once("differences", self._compare_models)

    def round_trip(self) -> RoundTrip:
        """Return what a way to head, to base and to head again leaves behind."""
        self.online()
        return self._once("round trip", self._go_there_and_back)

    def offline(self, sql: list[str]) -> list[str]:
        """Return in what the database that SQL makes differs from what an upgrade makes.

        :param sql: of all revisions.
        """
        online = self.online()
        if not script_of(self.database).get_heads():
            return []  # online there is the version table nevertheless
        with shadow(self.database, revision=None) as scratch:
            with scratch.engine.connect() as connection:
                connection = connection.execution_options(isolation_level="AUTOCOMMIT")
                execute(self.database, connection, scratch.url, sql)
            offline = self._state(scratch)
        found = [what for _, what in schema_differences(online.schema, offline.schema)]
        return found or [*row_differences(online.rows, offline.rows, self._rows_again)]

    def _once(self, what: str, find: Callable[[], T]) -> T:
        if what not in self._known:
            try:
                self._known[what] = find()
            except Exception as error:
                self._known[what] = error
        found: Any = self._known[what]
        if isinstance(found, Exception):
            raise found
        return found  # type: ignore[no-any-return]

    # --- what is tried

    def _go_online(self) -> State:
        with ExitStack() as stack:
            scratch = stack.enter_context(shadow(self.database, revision=None))
            self._known["empty"] = self._schema(scratch)
            self._upgrade(scratch)
            state = self._state(scratch)
            self._open, self._at_head = stack.pop_all(), scratch
        return state

    def _compare_models(self) -> list[str]:
        with self._upgraded() as scratch:
            return differences(self.database, url=scratch.url)

    def _go_there_and_back(self) -> RoundTrip:
        """Go the whole way, and revision by revision only where something is wrong."""
        try:
            with self._upgraded() as scratch:
                found = self._back_and_there(scratch)
        except Exception:
            steps = step_by_step(self.database, self._bookkeeping)
            if steps.problems or steps.irreversible:
                return steps
            raise
        finally:
            self.close()  # it is no longer as the upgrade made it
        if not found:
            return RoundTrip()
        steps = step_by_step(self.database, self._bookkeeping)
        return steps if steps.problems else RoundTrip([(None, what) for what in found])

    def _back_and_there(self, scratch: Shadow) -> list[str]:
        run_alembic(self.database, lambda c: command.downgrade(c, "base"), url=scratch.url)
        left = schema_differences(self._known["empty"], self._schema(scratch))
        if not left:
            self._upgrade(scratch)
            first = self._bookkeeping.left_out(self.online().schema)
            left = schema_differences(first, self._schema(scratch))
        return [what for _, what in left]

    def _rows_again(self) -> Any:
        with shadow(self.database, revision="heads") as scratch:
            return self._state(scratch).rows

    # --- scratch databases

    @contextmanager
    def _upgraded(self) -> Iterator[Shadow]:
        if self._at_head is not None:
            yield self._at_head
            return
        with shadow(self.database, revision="heads") as scratch:
            yield scratch

    def _upgrade(self, scratch: Shadow) -> None:
        run_alembic(self.database, lambda c: command.upgrade(c, "heads"), url=scratch.url)

    @property
    def _bookkeeping(self) -> Bookkeeping:
        return self._once("bookkeeping", lambda: Bookkeeping.of(self.database))

    def _schema(self, scratch: Shadow) -> Schema:
        with scratch.engine.connect() as connection:
            return self._bookkeeping.schema(connection)

    def _state(self, scratch: Shadow) -> State:
        with scratch.engine.connect() as connection:
            return self._bookkeeping.state(connection)
