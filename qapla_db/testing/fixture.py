"""Tests in classes: the application, its databases and a session, isolated test by test."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from qapla_db.application import DatabaseApplication
from qapla_db.errors import Misuse
from qapla_db.registry import Databases
from qapla_db.session import Session
from qapla_db.testing.applications import (
    application_of,
    database_of,
    rehearsing,
    web_client,
)
from qapla_db.testing.class_data import fill
from qapla_db.testing.current import offered
from qapla_db.testing.marks import needs_of, reported_by
from qapla_db.testing.run import TestRun

if TYPE_CHECKING:
    from qapla_db.testing.migrations.rehearsal import Rehearse

__all__ = ["BaseApplicationFixture"]


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

    def __init_subclass__(cls, **options: Any) -> None:
        """Refuse bases that would not do what they seem to.

        :raises Misuse: one of them is ``unittest.TestCase``, or is written behind this class
            and hidden by it.
        """
        super().__init_subclass__(**options)
        _check_bases(cls)

    @classmethod
    def make_application(cls) -> DatabaseApplication:
        """Return the application to test.

        It is the one object of ``APP_CLASS`` that the imported modules made, so
        that tasks and views use what the test uses; where there is none, a new one.
        """
        return application_of(getattr(cls, "APP_CLASS", None), cls.__name__, "APP_CLASS")

    @pytest.fixture(scope="class")
    @classmethod
    def application(cls, qapla_db_run: TestRun) -> DatabaseApplication:
        """The application, prepared for tests, its databases made anew once a run."""
        return qapla_db_run.prepare(cls.make_application())

    @classmethod
    def set_up_data(cls, dbsession: Session) -> None:
        """Make the rows that all tests of the class begin with; nothing by default.

        It runs once for the class, and what it commits, or leaves to be committed, is gone
        after the class. Attributes that it sets on ``cls`` are there in each test, instances
        of models as copies of its own in its ``dbsession``.

        :param dbsession: a session of the database ``DATABASE_KEY``.
        """

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _qapla_db_data(
        cls,
        application: DatabaseApplication,
        qapla_db_run: TestRun,
        request: pytest.FixtureRequest,
    ) -> Iterator[None]:
        if "set_up_data" not in _own_names(cls):
            yield
            return
        database = database_of(application.dbs, cls.DATABASE_KEY, _key_of(cls))
        needs = needs_of(request.node, cls.DATABASE_KEY, strict=qapla_db_run.strict)
        with qapla_db_run.filled(application, needs, lambda: fill(cls, database, cls.set_up_data)):
            yield

    @pytest.fixture(autouse=True)
    def _qapla_db_isolation(
        self,
        application: DatabaseApplication,
        qapla_db_run: TestRun,
        request: pytest.FixtureRequest,
    ) -> Iterator[None]:
        self._qapla_db_request = request
        needs = needs_of(
            request.node,
            self.DATABASE_KEY,
            strict=qapla_db_run.strict,
            allowed_threads=self.ALLOWED_THREADS,
        )
        with (
            reported_by(qapla_db_run, request.config).isolated(application, needs),
            offered(self.DATABASE_KEY, lambda: request.getfixturevalue("dbsession")),
        ):
            yield

    @pytest.fixture
    def dbplugin(self, application: DatabaseApplication) -> Databases:
        """Every database of the application, by name."""
        return application.dbs

    @pytest.fixture
    def dbsession(self, dbplugin: Databases) -> Iterator[Session]:
        """A session of the database ``DATABASE_KEY``, closed at the end of the test."""
        with database_of(dbplugin, self.DATABASE_KEY, _key_of(type(self))).session() as session:
            yield session

    @pytest.fixture
    def settings(self, application: DatabaseApplication) -> Any:
        """The settings of the application."""
        return application.settings

    @pytest.fixture
    def paths(self, application: DatabaseApplication) -> Any:
        """The paths of the application."""
        return application.paths

    @pytest.fixture
    def rehearse(self, application: DatabaseApplication) -> Rehearse:
        """Rehearses an upgrade: ``rehearse("main", rows=1000)``; see :class:`Rehearse`."""
        return rehearsing(application)

    @pytest.fixture
    def testapp(self, application: DatabaseApplication) -> Any:
        """A ``webtest.TestApp`` of the application, with cookies of its own."""
        return web_client(application)


_MEANT = ("set_up_data", "make_application", "DATABASE_KEY", "ALLOWED_THREADS")
"""What this class has only for its subclasses to define anew."""


def _check_bases(cls: type[BaseApplicationFixture]) -> None:
    unittest = sys.modules.get("unittest")  # who derives from its class has imported it
    if unittest is not None and issubclass(cls, unittest.TestCase):
        raise Misuse(
            f"{cls.__name__} derives from unittest.TestCase and from BaseApplicationFixture, and "
            "pytest gives the tests of a TestCase no fixtures; drop TestCase, or keep it alone and "
            "assign fixtures_for(...).isolation in a conftest.py, which isolates its tests"
        )
    own = _own_names(cls)
    for base in cls.__mro__[cls.__mro__.index(BaseApplicationFixture) + 1 :]:
        for name in _MEANT:
            if name in vars(base) and name not in own:
                raise Misuse(
                    f"{cls.__name__} would not have {base.__name__}.{name}, for "
                    f"BaseApplicationFixture comes before {base.__name__} and has one, too; write "
                    f"the mixin first: class {cls.__name__}({base.__name__}, ...)"
                )


def _own_names(cls: type[BaseApplicationFixture]) -> set[str]:
    """Return the names that are defined below this class."""
    own = cls.__mro__[: cls.__mro__.index(BaseApplicationFixture)]
    return {name for one in own for name in vars(one)}


def _key_of(cls: type[BaseApplicationFixture]) -> str:
    return f"DATABASE_KEY of {cls.__name__}"
