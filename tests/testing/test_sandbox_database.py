"""The sandbox around the databases of a real application."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa

from qapla_db import Database
from qapla_db.errors import ReadOnlyError
from qapla_db.testing import sandbox
from tests.support import make_application
from tests.testing.world import SLOW, Base, Item, in_thread, make_world, wait_until_it_runs

NAMES = sa.select(Item.name).order_by(Item.name)


@pytest.fixture
def database(each_url: sa.URL) -> Iterator[Database]:
    """A database of an application, with a table in it."""
    app = make_application({"main": each_url})
    Base.metadata.create_all(app.dbs["main"].engine)
    yield app.dbs["main"]
    app.close()


def test_sessions_of_a_database(database: Database) -> None:
    """Sessions, transactions and read-only sessions of a database share one view."""
    with sandbox(database):
        with database.transaction() as session:
            session.add(Item(name="committed"))
        with database.session() as open_session, database.session(read_only=True) as reader:
            open_session.add(Item(name="discarded"))
            open_session.flush()
            assert ["committed", "discarded"] == reader.scalars(NAMES).all()
        with database.session() as session:
            assert ["committed"] == session.scalars(NAMES).all()
        assert database.ping() < 5
    with database.session() as session:
        assert [] == session.scalars(NAMES).all()


def test_a_read_only_session_of_a_database(database: Database) -> None:
    """A read-only session refuses to write, itself and at the server, in a sandbox too."""
    with sandbox(database):
        with database.session(read_only=True) as session:
            session.add(Item(name="refused"))
            with pytest.raises(ReadOnlyError):
                session.flush()
        with database.session(read_only=True) as session:
            with pytest.raises(sa.exc.DBAPIError, match=r"(?i)read.?only"):
                session.connection().execute(sa.insert(Item).values(name="refused", amount=0))
            session.rollback()
            assert [] == session.scalars(NAMES).all()
        with database.transaction() as session:
            session.add(Item(name="written"))


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_a_session_that_ends_stops_no_statement_of_another(
    kind: str, fresh_url: Callable[[str], sa.URL], request: pytest.FixtureRequest
) -> None:
    """A session is closed while another thread runs a statement on the same connection."""
    url = fresh_url(kind)
    app = make_application({"main": url})
    request.addfinalizer(app.close)
    database = app.dbs["main"]
    database.create()
    world = make_world(kind, url)

    def work() -> object:
        with database.session(read_only=True) as session:
            return session.scalar(sa.text(SLOW[kind].format(1)))

    with sandbox(database):
        session = database.get_session(read_only=True)
        assert 1 == session.scalar(sa.text("SELECT 1"))
        wait = in_thread(work)
        wait_until_it_runs(world, threading.Event())
        session.abandon()
        assert 1 == wait()


def test_dispose_of_a_database(database: Database) -> None:
    """dispose() in the middle of a test changes nothing, and the pool works afterwards."""
    with sandbox(database):
        with database.transaction() as session:
            session.add(Item(name="kept"))
        database.dispose()
        with database.session() as session:
            assert ["kept"] == session.scalars(NAMES).all()
    database.dispose()
    with database.session() as session:
        assert [] == session.scalars(NAMES).all()
