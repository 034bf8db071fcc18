"""PostgreSQL: how it is connected to, and which of its errors mean what."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa

from qapla_db import Database
from qapla_db.errors import ServerError
from tests.support import WAIT, make_application


def prepare(url: sa.URL, **options: Any) -> Any:
    return make_application({"main": url}, settings={"db:main:options": options})


@pytest.fixture
def database(postgresql_database_url: sa.URL) -> Iterator[Database]:
    with prepare(postgresql_database_url) as app:
        with app.dbs["main"].transaction() as session:
            session.execute(sa.text("CREATE TABLE item (id INTEGER PRIMARY KEY, n INTEGER)"))
            session.execute(sa.text("INSERT INTO item VALUES (1, 0), (2, 0)"))
        yield app.dbs["main"]


def parameters(database: Database) -> dict[str, str]:
    """What the driver was told about a connection."""
    with database.engine.connect() as connection:
        dbapi: Any = connection.connection.dbapi_connection
        found: dict[str, str] = dbapi.info.get_parameters()
        return found


def test_connection_defaults(postgresql_url: sa.URL) -> None:
    """A connection gives up in time, and a silent network is noticed within seconds."""
    with prepare(postgresql_url) as app:
        database = app.dbs["main"]
        expected = {
            "connect_timeout": "5",
            "tcp_user_timeout": "10000",
            "keepalives": "1",
            "keepalives_idle": "30",
            "application_name": "qapla_db:main",
        }
        assert expected.items() <= parameters(database).items()
        pool: Any = database.engine.pool
        assert 5 == pool.timeout()


def test_url_and_options_win(postgresql_url: sa.URL) -> None:
    """connect_timeout of the URL, and keepalives of the options, are the user's."""
    url = postgresql_url.update_query_dict({"connect_timeout": "2"})
    with prepare(url, connect_args={"keepalives": 0}, pool_timeout=1) as app:
        found = parameters(app.dbs["main"])
        assert ("2", "0") == (found["connect_timeout"], found["keepalives"])
        assert 1 == app.dbs["main"].engine.pool.timeout()


def test_demoted_primary(database: Database) -> None:
    """A write that a read-only server refuses costs one error, not every later write as well."""
    name = database.settings.url.database
    switch = f'ALTER DATABASE "{name}" SET default_transaction_read_only = {{}}'
    with database.backend.administration(database.settings.url) as admin:
        admin.exec_driver_sql(switch.format("on"))
        database.dispose()
        with pytest.raises(sa.exc.DBAPIError) as caught, database.transaction() as session:
            session.execute(sa.text("UPDATE item SET n = 1"))
        admin.exec_driver_sql(switch.format("off"))
    assert "25006" == database.backend.error_code(caught.value.orig)  # type: ignore[arg-type]
    assert caught.value.connection_invalidated
    with database.transaction() as session:
        session.execute(sa.text("UPDATE item SET n = 1"))


def test_terminated_without_pre_ping(postgresql_database_url: sa.URL) -> None:
    """A connection that the server ended is thrown away after its error."""
    with prepare(postgresql_database_url, pool_pre_ping=False) as app:
        database = app.dbs["main"]
        with database.session() as session:
            pid = session.scalar(sa.text("SELECT pg_backend_pid()"))
        with database.backend.administration(database.settings.url) as admin:
            admin.exec_driver_sql(f"SELECT pg_terminate_backend({pid}, 5000)")
        with database.session() as session, pytest.raises(sa.exc.DBAPIError) as caught:
            session.scalar(sa.text("SELECT 1"))
        assert caught.value.connection_invalidated
        assert database.ping() > 0


def both(first: Callable[[], object], second: Callable[[], object]) -> list[BaseException]:
    """Run two functions in two threads and return what they raised."""
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(first), pool.submit(second)]
        return [error for one in futures if (error := one.exception(WAIT)) is not None]


def test_deadlock_is_retryable(database: Database) -> None:
    """Of two transactions that block each other one fails, and may be run again."""
    barrier = threading.Barrier(2)

    def update(first: int, second: int) -> None:
        with database.transaction() as session:
            session.execute(sa.text("SET LOCAL deadlock_timeout = '50ms'"))
            session.execute(sa.text("UPDATE item SET n = n + 1 WHERE id = :id"), {"id": first})
            barrier.wait(WAIT)
            session.execute(sa.text("UPDATE item SET n = n + 1 WHERE id = :id"), {"id": second})

    [error] = both(lambda: update(1, 2), lambda: update(2, 1))
    assert database.backend.is_retryable(error)
    assert "40P01" == database.backend.error_code(error.orig)  # type: ignore[attr-defined]


def test_serialization_failure_at_commit_is_retryable(postgresql_database_url: sa.URL) -> None:
    """Of two serializable transactions that read what the other wrote one may be run again."""
    with prepare(postgresql_database_url, isolation_level="SERIALIZABLE") as app:
        database = app.dbs["main"]
        with database.transaction() as session:
            session.execute(sa.text("CREATE TABLE item (n INTEGER)"))
        with database.session() as first, database.session() as second:
            for session in (first, second):
                session.execute(sa.text("SELECT count(*) FROM item"))
                session.execute(sa.text("INSERT INTO item VALUES (1)"))
            first.commit()
            with pytest.raises(sa.exc.DBAPIError) as caught:
                second.commit()
        assert caught.value.statement is None
        assert database.backend.is_retryable(caught.value)


@pytest.mark.parametrize("statement", ["INSERT INTO item VALUES (1, 1)", "SELECT * FROM nowhere"])
def test_other_errors_are_not_retryable(database: Database, statement: str) -> None:
    """What would fail again is not to be run again, and costs no connection."""
    with database.session() as session, pytest.raises(sa.exc.DBAPIError) as caught:
        session.execute(sa.text(statement))
    assert not database.backend.is_retryable(caught.value)
    assert not caught.value.connection_invalidated
    assert not database.backend.is_retryable(ValueError("40001"))


def test_database_postgres(postgresql_url: sa.URL) -> None:
    """The database that others are made from is looked at from elsewhere."""
    with prepare(postgresql_url.set(database="postgres")) as app:
        assert app.dbs["main"].exists()
        assert not app.dbs["main"].create()


LEFT = {
    "transaction": (
        ["BEGIN", "CREATE TABLE more (id int)", "PREPARE TRANSACTION '50% it''s'"],
        ["ROLLBACK PREPARED '50% it''s'"],
    ),
    "subscription": (
        ["CREATE SUBSCRIPTION \"50% s\" CONNECTION '' PUBLICATION p WITH (connect = false)"],
        [
            'ALTER SUBSCRIPTION "50% s" DISABLE',
            'ALTER SUBSCRIPTION "50% s" SET (slot_name = NONE)',
            'DROP SUBSCRIPTION "50% s"',
        ],
    ),
}


@pytest.mark.parametrize("what", LEFT)
def test_what_lets_nobody_drop_a_database(preparing_url: sa.URL, what: str) -> None:
    """What outlives connections and uses a database is named, with the statements that end it."""
    statements, ending = LEFT[what]

    def execute(statements: list[str]) -> None:
        with database.backend.administration(url, url) as connection:
            for statement in statements:
                options = {"no_parameters": True}
                connection.exec_driver_sql(statement, execution_options=options)

    url = preparing_url.set(database="used_test")
    with prepare(url) as app:
        database = app.dbs["main"]
        database.create()
        execute(statements)
        with pytest.raises(ServerError, match=rf"'main'.*'used_test'.*{what}") as caught:
            database.drop(confirm="main")
        assert str(caught.value).endswith(f"the database: {'; '.join(ending)}")
        execute(ending)
        assert database.drop(confirm="main")
