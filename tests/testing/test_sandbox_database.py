"""The sandbox around the databases of a real application."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa

from qapla_db import Database
from qapla_db.errors import ReadOnlyError, TransactionFailed
from qapla_db.session import Session
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


def _commit_after_caught_errors(database: Database) -> list[str]:
    """What commit() says: once after an error, three times where there was nothing to say."""
    said = []

    def commit(session: Session) -> None:
        try:
            session.commit()
        except TransactionFailed as error:
            said.append(str(error))

    twice = Item(id=1, name="one"), Item(id=1, name="two")
    with database.session() as session:
        for item in twice:
            with contextlib.suppress(sa.exc.IntegrityError):
                session.connection().execute(sa.insert(Item).values(id=item.id, name=item.name))
        commit(session)
        session.rollback()
        session.add(Item(name="after a rollback"))
        commit(session)
        with contextlib.suppress(sa.exc.IntegrityError), session.begin_nested():
            session.add_all(Item(name=item.name, id=9) for item in twice)
        commit(session)
    return said


def test_a_commit_after_a_caught_error(database: Database) -> None:
    """commit() says in a sandbox what it says in production, of each kind of database."""
    with sandbox(database):
        inside = _commit_after_caught_errors(database)
        with database.session() as session:
            stored = session.scalars(NAMES).all()
    with database.session() as session:
        assert [] == session.scalars(NAMES).all()
    assert _commit_after_caught_errors(database) == inside
    assert len(inside) == (database.backend.name == "postgresql")
    with database.session() as session:
        assert session.scalars(NAMES).all() == stored


def test_a_commit_after_an_error_of_the_driver(postgresql_database_url: sa.URL) -> None:
    """An error on the driver's own cursor ends the transaction of its session, and no other."""
    with make_application({"main": postgresql_database_url}) as app:
        database = app.dbs["main"]
        with sandbox(database), database.session() as other, database.session() as session:
            other.execute(sa.text("SELECT 1"))
            cursor = session.connection().connection.cursor()
            with contextlib.suppress(Exception):
                cursor.execute("SELECT no_such_column")
            with pytest.raises(TransactionFailed, match=r"'main'.*begin_nested"):
                session.commit()
            other.commit()


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
