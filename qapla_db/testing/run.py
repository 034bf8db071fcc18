"""The applications of one run of pytest: found, prepared once, isolated test by test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType

from qapla_db.application import DatabaseApplication
from qapla_db.database import Database
from qapla_db.errors import (
    Closed,
    DatabaseNotNamed,
    UnknownDatabase,
)
from qapla_db.testing.applications import is_only
from qapla_db.testing.databases import TestDatabase, physical
from qapla_db.testing.isolation import (
    Filled,
    Isolation,
    Needs,
    forbidden_but,
    open_again,
    restore,
)
from qapla_db.testing.leaks import Watch
from qapla_db.testing.reports import Reports

__all__ = ["TestRun"]


_OWN = (
    "a test that closes an application makes one of its own, as make_application() can for a class"
)


class TestRun:
    """The applications of one run of pytest, each prepared once.

    :param rebuild: make templates anew.
    :param strict: a test may use no database that it has not named.
    :ivar reports: what pytest reports, where it is a plugin of it.
    """

    __test__ = False

    def __init__(self, *, rebuild: bool = False, strict: bool = False) -> None:
        self.strict = strict
        self._rebuild = rebuild
        self._prepared: dict[DatabaseApplication, Exception | None] = {}
        self._first_seen: dict[DatabaseApplication, TracebackType | None] = {}
        self._databases: dict[DatabaseApplication, dict[TestDatabase, list[Database]]] = {}
        self._isolated: dict[DatabaseApplication, list[Isolation]] = {}
        self._filled: dict[DatabaseApplication, Filled] = {}
        self._watch = Watch()
        self.reports = Reports()

    def prepare(self, application: DatabaseApplication) -> DatabaseApplication:
        """Prepare an application for tests and make its databases anew, at the first call.

        :raises Exception: what went wrong at the first call.
        """
        if application not in self._prepared:
            self._prepared[application] = None
            try:
                self._make(application)
            except Exception as error:
                self._prepared[application] = error
                self._first_seen[application] = error.__traceback__
        problem = self._prepared[application]
        if problem is not None:
            # not with the frames of every test that was told so before
            raise problem.with_traceback(self._first_seen[application])
        return application

    def _make(self, application: DatabaseApplication) -> None:
        application.run_tests()
        for database in application.dbs.values():
            database.check_droppable()
        own = self._databases[application] = {}
        made = []
        for names in physical(application.dbs.values()):
            one = self._that_serves(names)
            if one is None:
                one = TestDatabase(names, rebuild=self._rebuild)
                own[one] = names
                one.place()
                made.append(one)
            else:
                own[one] = names
                one.join(names)
        for one in made:
            one.make()
        for one in made:
            one.guard()

    def databases_of(self, application: DatabaseApplication) -> list[TestDatabase]:
        """Return the test databases of an application that was prepared."""
        return list(self._databases[application])

    def _that_serves(self, names: list[Database]) -> TestDatabase | None:
        """Return the database that another application with the same databases has been given."""
        known = [one for databases in self._databases.values() for one in databases]
        return next((one for one in known if one.serves(names)), None)

    @contextmanager
    def isolated(self, application: DatabaseApplication, needs: Needs) -> Iterator[None]:
        """Isolate a test: nothing that it commits is left, and nothing else of it either.

        Inside of itself it adds the databases that a test may use: of several fixtures of a
        test the first one isolates, and each has its own ``dbsession``.

        :raises Leak: connections or threads are left.
        :raises SandboxError: something in it was not as it is in earnest.
        :raises DatabaseNotNamed: it used a database that it did not name.
        :raises UnknownDatabase: it named one that no application has.
        :raises Closed: it closed a database, or uses an application that a test has closed.
        """
        if application in self._isolated:
            for isolation in self._isolated[application]:
                isolation.permit(needs)
            self._fill_again(application)
            yield
            return
        self._check_open(application, needs)
        if is_only(application):
            self._check_names(needs)
        databases = list(application.dbs.values())
        with ExitStack() as stack:
            isolations = self._isolated[application] = []
            stack.callback(self._isolated.pop, application)
            stack.callback(self._fill_again, application)
            closed: list[Database] = []
            stack.callback(self._check_closed, application, closed, needs)
            if needs.real_commit and application in self._filled:
                # while the rows may still be made in databases that the test may not use
                for one in self._databases[application]:
                    one.prepare_restore()
                self._fill_again(application)
            for one, names in self._databases[application].items():
                isolation = Isolation(one, names, needs, self.reports)
                isolations.append(stack.enter_context(isolation.on()))
            self._fill_again(application)
            # before it is restored
            stack.callback(open_again, application, databases, closed)
            # in the sandboxes, whose end cuts off the connections that are left
            stack.enter_context(
                self._watch.nothing_left(databases, allowed_threads=needs.allowed_threads)
            )
            yield
        if not self.reports.has_shown(needs.test, DatabaseNotNamed):
            self._check_names(needs)

    def _fill_again(self, application: DatabaseApplication) -> None:
        if application in self._filled and application.phase != "closed":
            self._filled[application].again()

    def _check_open(self, application: DatabaseApplication, needs: Needs) -> None:
        if application.phase == "closed":
            name, test = type(application).__name__, self.reports.closed(application, "")
            raise Closed(
                f"{needs.test} uses the application {name}, which was closed by "
                f"{test or 'code between the tests'}; {_OWN}"
            )

    def _check_closed(
        self, application: DatabaseApplication, closed: list[Database], needs: Needs
    ) -> None:
        if application.phase == "closed":  # a fault only where another test uses it
            self.reports.closed(application, needs.test)
            return
        for one, names in self._databases[application].items():
            unguarded = [database for database in names if database in closed]
            if unguarded:
                one.make_again()  # one in memory is gone with its pool
                one.guard(unguarded)
        if closed and not self.reports.has_shown(needs.test, Closed):
            said = " and ".join(repr(database.name) for database in closed)
            raise Closed(
                f"{needs.test} has closed the database {said} of the application "
                f"{type(application).__name__}, which other tests use; {_OWN}"
            )

    @contextmanager
    def filled(
        self, application: DatabaseApplication, needs: Needs, fill: Callable[[], object]
    ) -> Iterator[None]:
        """Let a block begin with other rows, and undo them at its end.

        :param needs: what ``fill`` needs; of them the databases count.
        :param fill: commits the rows; it is called again after a test that commits for real.
        :raises Leak: it leaves connections or threads.
        :raises DatabaseNotNamed: it used a database that is not named.
        :raises UnknownDatabase: one is named that no application has.
        """
        if is_only(application):
            self._check_names(needs)
        for one in self.databases_of(application):
            one.prepare_restore()
        with ExitStack() as stack:
            for one, names in self._databases[application].items():
                stack.callback(restore, one, names)

            def fill_and_look() -> None:
                databases = application.dbs.values()
                with self._watch.nothing_left(databases), forbidden_but(databases, needs):
                    fill()

            filled = Filled(self._databases[application], fill_and_look)
            self._filled[application] = filled
            try:
                filled.again()
                yield
            finally:
                del self._filled[application]

    def _check_names(self, needs: Needs) -> None:
        # at the end too: a test may use several applications, the next of which comes later
        names = [names for own in self._databases.values() for names in own.values()]
        known = [database.name for group in names for database in group]
        for name in sorted(set(needs.databases or ()) - set(known)):
            error = UnknownDatabase(name, known)
            error.add_note(
                f"{needs.test} names it, in a mark 'database' or, with qapla_db_strict, as the "
                "database of its dbsession"
            )
            raise error

    def close(self) -> None:
        """Close every application."""
        with ExitStack() as stack:
            stack.callback(self._watch.close)
            for application in self._prepared:
                stack.callback(application.close)
            for one in {one for own in self._databases.values() for one in own}:
                stack.callback(one.close)
