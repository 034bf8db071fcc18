"""The isolation of one test database from what a test does to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

from qapla_db.application import DatabaseApplication
from qapla_db.database import Database
from qapla_db.errors import Closed, DatabaseNotNamed, SandboxBroken, SandboxConflict
from qapla_db.testing.databases import TestDatabase
from qapla_db.testing.forbidding import forbidden
from qapla_db.testing.reports import Reports
from qapla_db.testing.sandboxes.sandbox import Sandbox

__all__ = ["Filled", "Isolation", "Needs", "forbidden_but", "open_again", "restore"]


@dataclass(frozen=True)
class Needs:
    """What one test says that it needs.

    :ivar real_commit: its commits are real, and undone by restoring the database.
    :ivar databases: those that it may use, by name; None where that is all.
    :ivar allowed_threads: beginnings of the names of threads that it may leave running.
    :ivar test: its name, for messages.
    """

    real_commit: bool = False
    databases: tuple[str, ...] | None = None
    allowed_threads: tuple[str, ...] = ()
    test: str = "this test"

    def may_use(self, database: Database) -> bool:
        """Tell whether a database is one that the test may use."""
        return self.databases is None or database.name in self.databases


class Filled:
    """The rows that tests begin with instead of those of the migrations."""

    def __init__(
        self, databases: dict[TestDatabase, list[Database]], fill: Callable[[], object]
    ) -> None:
        self._databases = databases
        self._fill = fill
        self._at: list[int] = []

    def again(self) -> None:
        """Make the rows, if any of the databases was made what it was without them."""
        if self._at == self._restored:
            return
        if self._at:
            for one in self._databases:
                one.restore()
        with ExitStack() as stack:
            for one, names in self._databases.items():
                stack.enter_context(one.lifted(names))
            self._fill()
        self._at = self._restored

    @property
    def _restored(self) -> list[int]:
        return [one.restored for one in self._databases]


class Isolation:
    """The isolation of one database, under all the names that an application has for it."""

    def __init__(
        self, one: TestDatabase, names: list[Database], needs: Needs, reports: Reports
    ) -> None:
        self._one = one
        self._names = names
        self._needs = needs
        self._has_shown = partial(reports.has_shown, needs.test)
        self._may_use = list(needs.databases or ())
        self._named = [database for database in names if needs.may_use(database)]
        self._forbidden = {
            database: ExitStack() for database in names if database not in self._named
        }
        self._stack = ExitStack()
        self._boxes: list[Sandbox] = []
        self._is_real = False

    @contextmanager
    def on(self) -> Iterator[Isolation]:
        """Isolate it during a block."""
        with ExitStack() as stack:
            stack.enter_context(self._one.lifted(self._names))
            for database, until in self._forbidden.items():
                until.enter_context(
                    forbidden(
                        database,
                        self._needs.test,
                        self._may_use,
                        lambda: self._has_shown(DatabaseNotNamed),
                    )
                )
                stack.enter_context(until)
            if not self._needs.real_commit:
                stack.enter_context(self._repaired())
                self._one.will_be_used()
            self._stack = stack
            for database in self._named:
                self._use(database)
            yield self

    def permit(self, needs: Needs) -> None:
        """Let the test use the databases that it is given now."""
        self._may_use += sorted(set(needs.databases or ()) - set(self._may_use))
        for database in list(self._forbidden):
            if needs.may_use(database):
                self._forbidden.pop(database).close()
                self._use(database)

    def _use(self, database: Database) -> None:
        if not self._needs.real_commit:
            self._boxes.append(self._stack.enter_context(Sandbox(database, is_repaired=True)))
        elif not self._is_real:
            self._is_real = True
            self._one.prepare_restore()
            self._stack.callback(restore, self._one, self._names)

    @contextmanager
    def _repaired(self) -> Iterator[None]:
        """Make the database again what it was where a sandbox could not undo everything."""
        try:
            yield
        except (SandboxConflict, SandboxBroken) as error:
            self._repair(error)
            if not self._has_shown(type(error)):
                raise
        except BaseException as error:
            self._repair(error)
            raise

    def _repair(self, error: BaseException) -> None:
        # not all of them are errors of this sandbox, and another may hide its own
        problems = [box.problem for box in self._boxes]
        if not all(isinstance(one, SandboxConflict | None) for one in problems):
            self._one.make_again()
            error.add_note("the database has been made anew for the tests that follow")


@contextmanager
def forbidden_but(databases: Iterable[Database], needs: Needs) -> Iterator[None]:
    """Forbid the databases that are not named, during a block that no report tells of."""
    with ExitStack() as stack:
        for database in databases:
            if not needs.may_use(database):
                stack.enter_context(
                    forbidden(database, needs.test, needs.databases or (), lambda: False)
                )
        yield


def restore(one: TestDatabase, names: list[Database]) -> None:
    try:
        one.restore()
    except Closed:
        # closed by the test; the next application that has the database makes it anew
        if not all(_is_closed(database) for database in names):
            raise


def open_again(
    application: DatabaseApplication, databases: list[Database], closed: list[Database]
) -> None:
    """Prepare the databases that a test has closed for those after it, and list them."""
    if application.phase != "closed":
        closed.extend(database for database in databases if _is_closed(database))
        for database in closed:
            database.prepare_app(application)


def _is_closed(database: Database) -> bool:
    try:
        database.settings  # noqa: B018
    except Closed:
        return True
    return False
