"""A commit stores the whole transaction, or says that it stored nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase

from qapla_db import INJECTED, Database, Session, WithDatabase
from qapla_db.errors import TransactionFailed
from qapla_db.testing import sandbox
from tests.support import SmallApplication, make_application

REFUSED = r"nothing of this transaction of the database 'main'.*begin_nested"
METADATA = sa.MetaData()
SHIP = sa.Table(
    "ship",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("crew", sa.Integer, nullable=False, default=0),
    mysql_engine="InnoDB",
)


class Model(DeclarativeBase):
    pass


class Ship(Model):
    __table__ = SHIP


FreshURL = Callable[[str], sa.URL]
Fail = Callable[[sa.Connection], object]


@contextmanager
def prepared(url: sa.URL, **options: Any) -> Iterator[SmallApplication]:
    """An application whose database has one connection, and the ships 100 and 200."""
    one = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 1, **options}
    with make_application({"main": url}, settings={"db:main:options": one}) as app:
        database = app.dbs["main"]
        database.create()
        METADATA.create_all(database.engine)
        with database.transaction() as session:
            session.execute(sa.insert(SHIP), [{"id": 100}, {"id": 200}])
        yield app
        assert isinstance(database.engine.pool, sa.QueuePool)
        assert 0 == database.engine.pool.checkedout()


@pytest.fixture(params=["postgresql", "mariadb", "sqlite"])
def failing(
    request: pytest.FixtureRequest, fresh_url: FreshURL
) -> Iterator[tuple[SmallApplication, Fail]]:
    """An application, and an error after which its server stores nothing of a transaction."""
    url = fresh_url(request.param)
    with prepared(url) as app:
        if request.param == "mariadb":
            with deadlocks(url) as deadlock:
                yield app, deadlock
        elif request.param == "sqlite":
            yield app, conflict
        else:
            yield app, lambda connection: connection.execute(sa.insert(SHIP).values(id=100))


def conflict(connection: sa.Connection) -> None:
    connection.exec_driver_sql("INSERT OR ROLLBACK INTO ship VALUES (100, 0)")


def fill_the_disk(connection: sa.Connection) -> None:
    (pages,) = connection.exec_driver_sql("PRAGMA page_count").one()
    connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    connection.execute(sa.insert(SHIP), [{"id": number} for number in range(1000, 9000)])


def interrupt(connection: sa.Connection) -> None:
    driver: Any = connection.connection.dbapi_connection
    driver.create_function("stop", 0, driver.interrupt)
    connection.exec_driver_sql("UPDATE ship SET crew = coalesce(stop(), 1)")


@contextmanager
def deadlocks(url: sa.URL) -> Iterator[Fail]:
    """A function that makes a connection the victim of a deadlock with another."""
    with make_application({"main": url}) as app:
        other = app.dbs["main"]

        def lock(connection: sa.Connection, ship: int) -> None:
            connection.execute(sa.update(SHIP).values(crew=1).where(SHIP.c.id == ship))

        def deadlock(connection: sa.Connection) -> None:
            with other.engine.connect() as rival:
                # the server ends the transaction that has written less
                rows = [{"id": number} for number in range(1000, 1100)]
                rival.execute(sa.insert(SHIP), rows)
                lock(rival, 200)
                lock(connection, 100)
                waiting = threading.Thread(target=lock, args=(rival, 100))
                waiting.start()
                try:
                    lock(connection, 200)
                finally:
                    waiting.join(20)
                    rival.rollback()

        yield deadlock


def insert(session: Session | sa.Connection, *ids: int) -> None:
    for ship in ids:
        session.execute(sa.insert(SHIP).values(id=ship))


def crash(session: Session | sa.Connection, fail: Fail) -> None:
    """Write, meet the error, catch it, and write on as far as the server allows."""
    insert(session, 1)
    connection = session.connection() if isinstance(session, Session) else session
    with pytest.raises(sa.exc.DBAPIError):
        fail(connection)
    with suppress(sa.exc.DBAPIError):
        insert(session, 2)


def stored(database: Database) -> list[int]:
    with database.session() as session:
        return list(session.scalars(sa.select(SHIP.c.id).where(SHIP.c.id < 100)))


def session_commit(database: Database, fail: Fail) -> None:
    with database.session() as session:
        crash(session, fail)
        session.commit()


def session_begin(database: Database, fail: Fail) -> None:
    with database.session() as session, session.begin():
        crash(session, fail)


def session_transaction(database: Database, fail: Fail) -> None:
    with database.session() as session:
        crash(session, fail)
        transaction = session.get_transaction()
        assert transaction is not None
        transaction.commit()


def savepoint_open(database: Database, fail: Fail) -> None:
    with database.session() as session:
        crash(session, fail)
        with suppress(sa.exc.DBAPIError):
            session.begin_nested()
        session.commit()


def new_object(database: Database, fail: Fail) -> None:
    with database.session() as session:
        crash(session, fail)
        session.add(Ship(id=4))
        session.commit()


def transaction(database: Database, fail: Fail) -> None:
    with database.transaction() as session:
        crash(session, fail)


def engine_begin(database: Database, fail: Fail) -> None:
    with database.engine.begin() as connection:
        crash(connection, fail)


def connection_commit(database: Database, fail: Fail) -> None:
    with database.engine.connect() as connection:
        crash(connection, fail)
        connection.commit()


COMMITS = [
    session_commit,
    session_begin,
    session_transaction,
    savepoint_open,
    new_object,
    transaction,
    engine_begin,
    connection_commit,
]


@pytest.mark.parametrize("commit", COMMITS)
def test_commit_after_a_caught_error(
    failing: tuple[SmallApplication, Fail], commit: Callable[[Database, Fail], None]
) -> None:
    """However it is committed: it raises, nothing is stored, and the connection is as new."""
    app, fail = failing
    database = app.dbs["main"]
    with pytest.raises(TransactionFailed, match=REFUSED):
        commit(database, fail)
    assert [] == stored(database)
    with database.transaction() as session:
        insert(session, 3)
    assert [3] == stored(database)


def test_task(failing: tuple[SmallApplication, Fail]) -> None:
    """A task that catches the error does not end as if it had stored its work."""
    app, fail = failing

    @WithDatabase(app, "main")
    def task(*, main: Session = INJECTED) -> str:
        with main.begin():
            crash(main, fail)
        return "done"

    with pytest.raises(TransactionFailed, match=REFUSED):
        task()
    assert [] == stored(app.dbs["main"])


def test_rollback_after_a_caught_error(failing: tuple[SmallApplication, Fail]) -> None:
    """What follows the error is undone by a rollback, after which the session goes on."""
    app, fail = failing
    database = app.dbs["main"]
    with database.session() as session:
        crash(session, fail)
        session.rollback()
        assert [] == session.scalars(sa.select(SHIP.c.id).where(SHIP.c.id < 100)).all()
        crash(session, fail)
        with pytest.raises(TransactionFailed):
            session.commit()
        session.rollback()
        insert(session, 3)
        session.commit()
        crash(session, fail)
    assert [3] == stored(database)
    with database.engine.connect() as connection:
        crash(connection, fail)
        with pytest.raises(TransactionFailed):
            connection.commit()
        connection.rollback()
        insert(connection, 4)
        connection.commit()
    assert [3, 4] == stored(database)


def test_statement_that_fails_in_a_savepoint(failing: tuple[SmallApplication, Fail]) -> None:
    """A savepoint undoes a failed statement, and the transaction is committed."""
    database = failing[0].dbs["main"]
    with database.transaction() as session:
        insert(session, 1)
        with suppress(sa.exc.IntegrityError), session.begin_nested():
            insert(session, 2, 100)
        insert(session, 3)
    with database.engine.begin() as connection:
        insert(connection, 4)
        with suppress(sa.exc.IntegrityError), connection.begin_nested():
            insert(connection, 5, 100)
    assert [1, 3, 4] == stored(database)


@pytest.mark.parametrize("failing", ["mariadb", "sqlite"], indirect=True)
def test_savepoint_whose_transaction_is_gone(failing: tuple[SmallApplication, Fail]) -> None:
    """The error that ended the transaction leaves the block, and not one about its savepoint."""
    app, fail = failing
    database = app.dbs["main"]
    with database.session() as session:
        insert(session, 1)
        with pytest.raises(sa.exc.DBAPIError) as caught:
            with session.begin_nested(), session.begin_nested():
                fail(session.connection())
        assert "SAVEPOINT" not in str(caught.value)
        assert (database.backend.name == "mariadb") == database.backend.is_retryable(caught.value)
        insert(session, 2)
        with pytest.raises(TransactionFailed, match=REFUSED):
            session.commit()
    assert [] == stored(database)


def test_statement_that_failed_alone(fresh_url: FreshURL) -> None:
    """On MariaDB and SQLite an error undoes its statement, and the rest can be committed."""
    for kind in ("mariadb", "sqlite"):
        with prepared(fresh_url(kind)) as app:
            with app.dbs["main"].transaction() as session:
                insert(session, 1)
                with pytest.raises(sa.exc.IntegrityError):
                    insert(session, 100)
                insert(session, 2)
            assert [1, 2] == stored(app.dbs["main"])


@contextmanager
def rival_of(url: sa.URL) -> Iterator[sa.Connection]:
    with make_application({"main": url}) as app, app.dbs["main"].engine.connect() as connection:
        connection.execute(sa.update(SHIP).values(crew=1).where(SHIP.c.id == 200))
        yield connection


def test_lock_wait_timeout(fresh_url: FreshURL) -> None:
    """Where MariaDB undoes just the statement that waited too long, the rest is committed."""
    url = fresh_url("mariadb")
    impatient = {"init_command": "SET innodb_lock_wait_timeout = 1"}
    with prepared(url, connect_args=impatient) as app, rival_of(url):
        with app.dbs["main"].transaction() as session:
            insert(session, 1)
            with pytest.raises(sa.exc.OperationalError, match="1205"):
                session.execute(sa.update(SHIP).values(crew=2).where(SHIP.c.id == 200))
            insert(session, 2)
        assert [1, 2] == stored(app.dbs["main"])


def test_row_that_changed_since_it_was_read(fresh_url: FreshURL) -> None:
    """MariaDB with innodb_snapshot_isolation rolls everything back where another was quicker."""
    strict = {"init_command": "SET innodb_snapshot_isolation = ON"}
    url = fresh_url("mariadb")
    with prepared(url) as app, app.dbs["main"].engine.connect() as connection:
        if not connection.exec_driver_sql("SHOW VARIABLES LIKE 'innodb_snapshot%%'").all():
            pytest.skip("this server has no innodb_snapshot_isolation")
    with make_application(
        {"main": url}, settings={"db:main:options": {"connect_args": strict}}
    ) as app:
        with app.dbs["main"].session() as session:
            session.execute(sa.select(SHIP)).all()
            insert(session, 1)
            with rival_of(url) as rival:
                rival.commit()
            with pytest.raises(sa.exc.OperationalError, match="1020"):
                session.execute(sa.update(SHIP).values(crew=2).where(SHIP.c.id == 200))
            insert(session, 2)
            with pytest.raises(TransactionFailed):
                session.commit()
        assert [] == stored(app.dbs["main"])


@pytest.mark.parametrize("fail", [fill_the_disk, interrupt])
def test_errors_that_roll_back_on_sqlite(fail: Fail, fresh_url: FreshURL) -> None:
    """A full disk and an interruption may end a transaction; nothing after it is stored either."""
    with prepared(fresh_url("sqlite")) as app:
        database = app.dbs["main"]
        with database.session() as session:
            crash(session, fail)
        assert [] == stored(database)
        with pytest.raises(TransactionFailed, match=REFUSED), database.transaction() as session:
            crash(session, fail)
        assert [] == stored(database)


@pytest.mark.parametrize("kind", ["mariadb", "sqlite"])
def test_autocommit(kind: str, fresh_url: FreshURL) -> None:
    """In AUTOCOMMIT each statement stands for itself; an error among them means nothing."""
    url = fresh_url(kind)
    with prepared(url) as app:
        engine = app.dbs["main"].engine.execution_options(isolation_level="AUTOCOMMIT")
        with engine.begin() as connection:
            insert(connection, 1)
            with pytest.raises(sa.exc.IntegrityError):
                insert(connection, 100)
            insert(connection, 2)
        assert [1, 2] == stored(app.dbs["main"])


@pytest.mark.parametrize(
    "commit", [session_commit, session_begin, session_transaction, transaction, engine_begin]
)
def test_commit_in_a_sandbox(commit: Callable[[Database, Fail], None], fresh_url: FreshURL) -> None:
    """In a sandbox it is as in production, and the sandbox goes on."""
    with prepared(fresh_url("postgresql")) as app:
        database = app.dbs["main"]
        with sandbox(database):
            with pytest.raises(TransactionFailed, match=REFUSED):
                commit(database, lambda connection: insert(connection, 100))
            assert [] == stored(database)
            with database.transaction() as session:
                insert(session, 3)
            assert [3] == stored(database)
        assert [] == stored(database)


def test_two_phases(fresh_url: FreshURL) -> None:
    """PREPARE TRANSACTION, too, would be answered with a rollback."""
    with prepared(fresh_url("postgresql")) as app:
        database = app.dbs["main"]
        for prepare in (True, False):
            with database.engine.connect() as connection:
                with closing(connection.begin_twophase()) as transaction:
                    crash(connection, lambda connection: insert(connection, 100))
                    with pytest.raises(TransactionFailed, match=REFUSED):
                        transaction.prepare() if prepare else transaction.commit()
        assert [] == stored(database)
