"""Tests in classes: the application, its databases and a session, isolated test by test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, ClassVar

import pytest

from qapla_db.application import DatabaseApplication, instances_of
from qapla_db.errors import AlreadyPrepared, Misuse
from qapla_db.migrations.commands import recreate
from qapla_db.registry import Databases
from qapla_db.session import Session
from qapla_db.testing.leaks import Watch
from qapla_db.testing.sandbox import sandbox

__all__ = ["BaseApplicationFixture", "TestRun"]


class BaseApplicationFixture:
    """Base of test classes that use an application and its databases.

    ::

        class ApplicationFixture(BaseApplicationFixture):
            APP_CLASS = RotarranApplication
            DATABASE_KEY = "main"

        class TestAirports(ApplicationFixture):
            def test_session(self, dbsession): ...

    Once a run every database of the application is dropped, created and
    migrated. Each test runs in a sandbox, whether it names a fixture or not:
    what it commits, by whatever session or connection of the application, is
    gone at its end.
    """

    APP_CLASS: ClassVar[type[DatabaseApplication]]
    """The application."""

    DATABASE_KEY: ClassVar[str] = "main"
    """Name of the database of ``dbsession``."""

    ALLOWED_THREADS: ClassVar[tuple[str, ...]] = ()
    """Beginnings of the names of threads that a test may leave running."""

    @classmethod
    def make_application(cls) -> DatabaseApplication:
        """Return the application to test.

        It is the one object of ``APP_CLASS`` that the imported modules made, so
        that tasks and views use what the test uses; where there is none, a new one.
        """
        app_class = getattr(cls, "APP_CLASS", None)
        if not (isinstance(app_class, type) and issubclass(app_class, DatabaseApplication)):
            raise Misuse(
                f"{cls.__name__} needs APP_CLASS, a subclass of DatabaseApplication: "
                "APP_CLASS = RotarranApplication"
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
                f"there are {len(living)} objects of {app_class.__name__} and only one can be "
                f"tested by {cls.__name__}; say which in its classmethod make_application()"
            )
        return living[0] if living else app_class()

    @pytest.fixture(scope="class")
    @classmethod
    def application(cls, qapla_db_run: TestRun) -> DatabaseApplication:
        """The application, prepared for tests, its databases made anew once a run."""
        return qapla_db_run.prepare(cls.make_application())

    @pytest.fixture(autouse=True)
    def _qapla_db_sandbox(
        self, application: DatabaseApplication, qapla_db_run: TestRun
    ) -> Iterator[None]:
        databases = application.dbs.values()
        with ExitStack() as stack:
            for database in databases:
                stack.enter_context(sandbox(database))
            # in the sandboxes, whose end cuts off the connections that are left
            stack.enter_context(
                qapla_db_run.watch.nothing_left(databases, allowed_threads=self.ALLOWED_THREADS)
            )
            yield

    @pytest.fixture
    def dbplugin(self, application: DatabaseApplication) -> Databases:
        """Every database of the application, by name."""
        return application.dbs

    @pytest.fixture
    def dbsession(self, dbplugin: Databases) -> Iterator[Session]:
        """A session of the database ``DATABASE_KEY``, closed at the end of the test."""
        with dbplugin[self.DATABASE_KEY].session() as session:
            yield session

    @pytest.fixture
    def settings(self, application: DatabaseApplication) -> Any:
        """The settings of the application."""
        return application.settings

    @pytest.fixture
    def paths(self, application: DatabaseApplication) -> Any:
        """The paths of the application."""
        return application.paths


class TestRun:
    """The applications of one run of pytest, each prepared once."""

    __test__ = False

    def __init__(self) -> None:
        self._prepared: dict[DatabaseApplication, Exception | None] = {}
        self.watch = Watch()

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

    def close(self) -> None:
        """Close every application."""
        with ExitStack() as stack:
            stack.callback(self.watch.close)
            for application in self._prepared:
                stack.callback(application.close)


def _make_anew(application: DatabaseApplication) -> None:
    application.run_tests()
    for database in application.dbs.values():
        database.check_droppable()
    for database in application.dbs.values():
        recreate(database)
