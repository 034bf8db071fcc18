"""The applications of one run of pytest: found, prepared once, isolated test by test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any

from qapla_db.application import DatabaseApplication, instances_of
from qapla_db.database import Database
from qapla_db.errors import (
    AlreadyPrepared,
    Closed,
    ConfigurationError,
    DatabaseNotNamed,
    Misuse,
    SandboxConflict,
    SandboxError,
    UnknownDatabase,
)
from qapla_db.testing.databases import TestDatabase, physical
from qapla_db.testing.forbidding import forbidden
from qapla_db.testing.leaks import Watch
from qapla_db.testing.reports import Reports
from qapla_db.testing.sandbox import sandbox

__all__ = ["Needs", "TestRun", "application_of", "web_client"]


def application_of(app_class: object, asked_by: str) -> DatabaseApplication:
    """Return the one application of a class that is to be tested.

    It is the one that the imported modules made; where there is none, a new one.

    :param asked_by: what was given the class, for messages.
    :raises Misuse: it is no class of applications, or there are several.
    :raises AlreadyPrepared: one is prepared for something else than tests.
    """
    if not (isinstance(app_class, type) and issubclass(app_class, DatabaseApplication)):
        raise Misuse(
            f"{asked_by} needs APP_CLASS, a subclass of DatabaseApplication such as "
            f"RotarranApplication, and not {app_class!r}"
        )
    living = [one for one in instances_of(app_class) if one.phase != "closed"]
    for one in living:
        if one.endpoint not in (None, "tests"):
            raise AlreadyPrepared(
                f"this process has {one!r}, so tasks and views could reach what is no test "
                "database; import nothing in the tests that prepares it (such as a module "
                "that calls run_wsgi())"
            )
    if len(living) > 1:
        raise Misuse(
            f"there are {len(living)} objects of {app_class.__name__} and only one can be tested "
            f"by {asked_by}; say which in make_application"
        )
    return living[0] if living else app_class()


def web_client(application: DatabaseApplication) -> Any:
    """Return a ``webtest.TestApp`` of an application, with cookies of its own.

    :raises ConfigurationError: WebTest is not installed.
    """
    try:
        from webtest import TestApp
    except ImportError as error:
        raise ConfigurationError(
            "the fixture testapp needs WebTest; install it with: pip install WebTest"
        ) from error
    return TestApp(application.make_wsgi_app())


@dataclass(frozen=True)
class Needs:
    """What one test says that it needs.

    :ivar real_commit: its commits are real, and undone by restoring the database.
    :ivar databases: those that it uses, by name; None where it may use all.
    :ivar allowed_threads: beginnings of the names of threads that it may leave running.
    :ivar test: its name, for messages.
    """

    real_commit: bool = False
    databases: frozenset[str] | None = None
    allowed_threads: tuple[str, ...] = ()
    test: str = "this test"

    def may_use(self, database: Database) -> bool:
        """Tell whether a database is one that the test may use."""
        return self.databases is None or database.name in self.databases


_OWN = (
    "a test that closes an application makes one of its own, as make_application() can for a class"
)


class TestRun:
    """The applications of one run of pytest, each prepared once.

    :param rebuild: make templates anew.
    :ivar reports: what pytest reports, where it is a plugin of it.
    """

    __test__ = False

    def __init__(self, *, rebuild: bool = False) -> None:
        self._rebuild = rebuild
        self._prepared: dict[DatabaseApplication, Exception | None] = {}
        self._first_seen: dict[DatabaseApplication, TracebackType | None] = {}
        self._databases: dict[DatabaseApplication, dict[TestDatabase, list[Database]]] = {}
        self._isolated: dict[DatabaseApplication, list[_Isolation]] = {}
        self._filled: dict[DatabaseApplication, _Filled] = {}
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
    def isolated(self, application: DatabaseApplication, needs: Needs = Needs()) -> Iterator[None]:
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
        if _is_only(application):
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
                isolation = _Isolation(one, names, needs, self.reports)
                isolations.append(stack.enter_context(isolation.on()))
            self._fill_again(application)
            # before it is restored
            stack.callback(_open_again, application, databases, closed)
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
        self, application: DatabaseApplication, fill: Callable[[], object]
    ) -> Iterator[None]:
        """Let a block begin with other rows, and undo them at its end.

        :param fill: commits the rows; it is called again after a test that commits for real.
        :raises Leak: it leaves connections or threads.
        """
        for one in self.databases_of(application):
            one.prepare_restore()
        with ExitStack() as stack:
            for one, names in self._databases[application].items():
                stack.callback(_restore, one, names)

            def fill_and_look() -> None:
                with self._watch.nothing_left(application.dbs.values()):
                    fill()

            filled = _Filled(self._databases[application], fill_and_look)
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
        for name in sorted((needs.databases or frozenset()) - set(known)):
            raise UnknownDatabase(name, known)

    def close(self) -> None:
        """Close every application."""
        with ExitStack() as stack:
            stack.callback(self._watch.close)
            for application in self._prepared:
                stack.callback(application.close)
            for one in {one for own in self._databases.values() for one in own}:
                stack.callback(one.close)


class _Filled:
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


class _Isolation:
    """The isolation of one database, under all the names that an application has for it."""

    def __init__(
        self, one: TestDatabase, names: list[Database], needs: Needs, reports: Reports
    ) -> None:
        self._one = one
        self._names = names
        self._needs = needs
        self._is_shown = partial(reports.has_shown, needs.test, DatabaseNotNamed)
        self._named = [database for database in names if needs.may_use(database)]
        self._forbidden = {
            database: ExitStack() for database in names if database not in self._named
        }
        self._stack = ExitStack()
        self._is_real = False

    @contextmanager
    def on(self) -> Iterator[_Isolation]:
        """Isolate it during a block."""
        with ExitStack() as stack:
            stack.enter_context(self._one.lifted(self._names))
            for database, until in self._forbidden.items():
                until.enter_context(forbidden(database, self._needs.test, self._is_shown))
                stack.enter_context(until)
            if not self._needs.real_commit:
                stack.enter_context(_repaired(self._one))
                self._one.will_be_used()
            self._stack = stack
            for database in self._named:
                self._use(database)
            yield self

    def permit(self, needs: Needs) -> None:
        """Let the test use the databases that it is given now."""
        for database in list(self._forbidden):
            if needs.may_use(database):
                self._forbidden.pop(database).close()
                self._use(database)

    def _use(self, database: Database) -> None:
        if not self._needs.real_commit:
            self._stack.enter_context(sandbox(database))
        elif not self._is_real:
            self._is_real = True
            self._one.prepare_restore()
            self._stack.callback(_restore, self._one, self._names)


def _restore(one: TestDatabase, names: list[Database]) -> None:
    try:
        one.restore()
    except Closed:
        # closed by the test; the next application that has the database makes it anew
        if not all(_is_closed(database) for database in names):
            raise


def _is_only(application: DatabaseApplication) -> bool:
    """Tell whether no test can use another application, too."""
    others = [one for one in instances_of(DatabaseApplication) if one is not application]
    return not others and not _leaves(DatabaseApplication) - {type(application)}


def _leaves(cls: type[DatabaseApplication]) -> set[type[DatabaseApplication]]:
    below = cls.__subclasses__()
    return {leaf for one in below for leaf in _leaves(one)} if below else {cls}


def _open_again(
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


@contextmanager
def _repaired(one: TestDatabase) -> Iterator[None]:
    """Make a database again what it was where a sandbox could not undo everything."""
    try:
        yield
    except SandboxConflict:
        raise
    except SandboxError as error:
        one.make_again()
        error.add_note("the database has been made anew for the tests that follow")
        raise
