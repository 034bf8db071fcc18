"""The fixtures of an application for test functions, named by who uses them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest

from qapla_db.application import DatabaseApplication
from qapla_db.errors import Misuse
from qapla_db.session import Session
from qapla_db.testing.applications import (
    application_of,
    check_class,
    database_of,
    rehearsing,
    web_client,
)
from qapla_db.testing.current import offered
from qapla_db.testing.marks import needs_of, reported_by
from qapla_db.testing.run import TestRun

__all__ = ["Fixtures", "fixtures_for"]


class Fixtures(NamedTuple):
    """Fixtures that get their names where they are assigned; each isolates its test.

    :ivar isolation: used by itself by every test beside and below where it is assigned.
    :ivar application: the application, prepared for tests.
    :ivar dbplugin: its databases, by name.
    :ivar dbsession: a session, closed at the end of the test.
    :ivar settings: the settings of the application.
    :ivar paths: the paths of the application.
    :ivar rehearse: rehearses an upgrade on a scratch database.
    :ivar testapp: a ``webtest.TestApp`` with cookies of its own.
    """

    isolation: Any
    application: Any
    dbplugin: Any
    dbsession: Any
    settings: Any
    paths: Any
    rehearse: Any
    testapp: Any


def fixtures_for(
    app_class: type[DatabaseApplication],
    database_key: str = "main",
    *,
    make_application: Callable[[], DatabaseApplication] | None = None,
    allowed_threads: tuple[str, ...] = (),
) -> Fixtures:
    """Make the fixtures of an application, for a ``conftest.py``.

    ::

        ships = fixtures_for(ShipApplication, "main")
        isolation, dbsession, testapp = ships.isolation, ships.dbsession, ships.testapp

    Nothing has a name before you give it one, and a test that uses one of them is
    isolated, as in a class of :class:`~qapla_db.testing.BaseApplicationFixture`; with
    ``isolation`` assigned every test is.

    :param app_class: the application's class.
    :param database_key: the name of the database of ``dbsession``.
    :param make_application: returns the application, where several objects of the class exist.
    :param allowed_threads: beginnings of the names of threads that a test may leave running.
    :raises Misuse: the first is no class of applications, or the second no name.
    """
    check_class(app_class, "fixtures_for()")
    if not isinstance(database_key, str):
        raise Misuse(
            "fixtures_for() needs the name of a database as database_key, such as 'main', "
            f"and not {database_key!r}"
        )

    asked_by = f"fixtures_for({app_class.__name__}, {database_key!r})"

    @contextmanager
    def tested(request: pytest.FixtureRequest, run: TestRun) -> Iterator[DatabaseApplication]:
        run = reported_by(run, request.config)
        if make_application is None:
            found = application_of(app_class, "fixtures_for()")
        else:
            found = make_application()
        run.prepare(found)
        needs = needs_of(
            request.node, database_key, strict=run.strict, allowed_threads=allowed_threads
        )
        with run.isolated(found, needs):
            yield found

    def fixture(value: Callable[[DatabaseApplication], Any], *, autouse: bool = False) -> Any:
        @pytest.fixture(autouse=autouse)
        def of_the_application(
            request: pytest.FixtureRequest, qapla_db_run: TestRun
        ) -> Iterator[Any]:
            with tested(request, qapla_db_run) as app:
                yield value(app)

        return of_the_application

    @pytest.fixture
    def dbsession(request: pytest.FixtureRequest, qapla_db_run: TestRun) -> Iterator[Session]:
        with (
            tested(request, qapla_db_run) as app,
            database_of(app.dbs, database_key, asked_by).session() as session,
            offered(database_key, lambda: session),
        ):
            yield session

    return Fixtures(
        isolation=fixture(lambda app: None, autouse=True),
        application=fixture(lambda app: app),
        dbplugin=fixture(lambda app: app.dbs),
        dbsession=dbsession,
        settings=fixture(lambda app: app.settings),
        paths=fixture(lambda app: app.paths),
        rehearse=fixture(rehearsing),
        testapp=fixture(web_client),
    )
