"""The applications of one run of pytest: found, prepared once, isolated test by test."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from qapla_db.application import DatabaseApplication, instances_of
from qapla_db.errors import AlreadyPrepared, ConfigurationError, Misuse
from qapla_db.migrations.commands import recreate
from qapla_db.testing.leaks import Watch
from qapla_db.testing.sandbox import sandbox

__all__ = ["TestRun", "application_of", "web_client"]


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


class TestRun:
    """The applications of one run of pytest, each prepared once."""

    __test__ = False

    def __init__(self) -> None:
        self._prepared: dict[DatabaseApplication, Exception | None] = {}
        self._isolated: set[DatabaseApplication] = set()
        self._watch = Watch()

    def prepare(self, application: DatabaseApplication) -> DatabaseApplication:
        """Prepare an application for tests and make its databases anew, at the first call.

        :raises Exception: what went wrong at the first call.
        """
        if application not in self._prepared:
            self._prepared[application] = None
            try:
                _make_anew(application)
            except Exception as error:
                self._prepared[application] = error
        problem = self._prepared[application]
        if problem is not None:
            raise problem
        return application

    @contextmanager
    def isolated(
        self, application: DatabaseApplication, *, allowed_threads: Iterable[str] = ()
    ) -> Iterator[None]:
        """Isolate a test: nothing that it commits is left, and nothing else of it either.

        Inside of itself it does nothing: of several fixtures of a test the first one isolates.
        """
        if application in self._isolated:
            yield
            return
        databases = application.dbs.values()
        with ExitStack() as stack:
            self._isolated.add(application)
            stack.callback(self._isolated.discard, application)
            for database in databases:
                stack.enter_context(sandbox(database))
            # in the sandboxes, whose end cuts off the connections that are left
            stack.enter_context(
                self._watch.nothing_left(databases, allowed_threads=allowed_threads)
            )
            yield

    def close(self) -> None:
        """Close every application."""
        with ExitStack() as stack:
            stack.callback(self._watch.close)
            for application in self._prepared:
                stack.callback(application.close)


def _make_anew(application: DatabaseApplication) -> None:
    application.run_tests()
    for database in application.dbs.values():
        database.check_droppable()
    for database in application.dbs.values():
        recreate(database)
