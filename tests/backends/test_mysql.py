"""MariaDB and MySQL: how they are connected to, and which of their errors mean what."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
import sqlalchemy as sa

from qapla_db import Database
from qapla_db.backends import mysql
from qapla_db.errors import ServerError, SettingInvalid
from tests.support import WAIT, make_application

FreshURL = Callable[[str], sa.URL]


def prepare(url: sa.URL, **options: Any) -> Any:
    return make_application({"main": url}, settings={"db:main:options": options})


@pytest.fixture
def database(fresh_url: FreshURL) -> Iterator[Database]:
    with prepare(fresh_url("mariadb")) as app:
        database = app.dbs["main"]
        database.create()
        with database.transaction() as session:
            session.execute(sa.text("CREATE TABLE item (id INTEGER PRIMARY KEY, n VARCHAR(9))"))
            session.execute(sa.text("INSERT INTO item VALUES (1, ''), (2, '')"))
        yield database


def test_connection_defaults(mariadb_url: sa.URL) -> None:
    """A connection gives up in time and speaks all of Unicode; the user's word wins."""
    url = mariadb_url.update_query_dict({"read_timeout": "7"})
    with prepare(url, connect_args={"write_timeout": 8}) as app:
        engine = app.dbs["main"].engine
        with engine.connect() as connection:
            dbapi: Any = connection.connection.dbapi_connection
            assert (5, 7, 8) == (dbapi.connect_timeout, dbapi._read_timeout, dbapi._write_timeout)
            charset = connection.exec_driver_sql("SELECT @@character_set_client").scalar()
            assert "utf8mb4" == charset
        assert engine.pool._pre_ping
        assert 300 == engine.pool._recycle


@pytest.mark.parametrize("dialect", ["mysql", "mariadb"])
def test_all_of_unicode(database: Database, dialect: str) -> None:
    """Text beyond the basic plane comes back as it was stored, under both names of the dialect."""
    with prepare(database.settings.url.set(drivername=dialect)) as app:
        with app.dbs["main"].transaction() as session:
            session.execute(sa.text("UPDATE item SET n = '🛩 ü' WHERE id = 1"))
            assert "🛩 ü" == session.scalar(sa.text("SELECT n FROM item WHERE id = 1"))


def test_connection_left_read_only(database: Database) -> None:
    """A write that a read-only connection refuses costs one error, not every later write too."""
    update = sa.text("UPDATE item SET n = 'x'")
    with database.session() as session:
        session.execute(sa.text("SET SESSION TRANSACTION READ ONLY"))
    with pytest.raises(sa.exc.DBAPIError) as caught, database.transaction() as session:
        session.execute(update)
    assert 1792 == caught.value.orig.args[0]  # type: ignore[union-attr]
    assert caught.value.connection_invalidated
    with database.transaction() as session:
        session.execute(update)


def test_deadlock_is_retryable(database: Database) -> None:
    """Of two transactions that block each other one fails, and may be run again."""
    barrier = threading.Barrier(2)

    def update(first: int, second: int) -> None:
        with database.transaction() as session:
            session.execute(sa.text("UPDATE item SET n = 'x' WHERE id = :id"), {"id": first})
            barrier.wait(WAIT)
            session.execute(sa.text("UPDATE item SET n = 'y' WHERE id = :id"), {"id": second})

    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(update, 1, 2), pool.submit(update, 2, 1)]
        [error] = [found for one in futures if (found := one.exception(WAIT)) is not None]
    assert 1213 == error.orig.args[0]  # type: ignore[attr-defined]
    assert database.backend.is_retryable(error)


def test_lock_wait_timeout_is_retryable(database: Database) -> None:
    """A transaction that waited too long for a lock may be run again."""
    update = sa.text("UPDATE item SET n = 'x' WHERE id = 1")
    with database.session() as first, database.session() as second:
        first.execute(update)
        second.execute(sa.text("SET innodb_lock_wait_timeout = 0"))
        with pytest.raises(sa.exc.DBAPIError) as caught:
            second.execute(update)
    assert 1205 == caught.value.orig.args[0]  # type: ignore[union-attr]
    assert database.backend.is_retryable(caught.value)
    assert not caught.value.connection_invalidated


def test_other_errors_are_not_retryable(database: Database) -> None:
    """What would fail again is not to be run again; a number alone means nothing."""
    with database.session() as session, pytest.raises(sa.exc.IntegrityError) as caught:
        session.execute(sa.text("INSERT INTO item VALUES (1, 'x')"))
    assert not database.backend.is_retryable(caught.value)
    for number in (1205, 1213):
        assert not database.backend.is_retryable(ValueError(number))


@pytest.mark.parametrize(
    ("options", "certificates"),
    [({}, False), ({"connect_args": {"ssl": {"verify_mode": False}}}, True)],
)
def test_tls_in_a_socket(
    mariadb_url: sa.URL,
    options: dict[str, Any],
    certificates: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A connection through a Unix socket reads no certificates, unless it is told to use TLS."""
    if "unix_socket" not in mariadb_url.query:
        pytest.skip("the server is reached through a port")
    read: list[object] = []
    real = ssl.create_default_context

    def noting(**how: Any) -> ssl.SSLContext:
        read.append(how)
        return real(**how)

    monkeypatch.setattr(ssl, "create_default_context", noting)
    with prepare(mariadb_url, **options) as app, suppress(sa.exc.OperationalError):
        app.dbs["main"].engine.connect().close()  # with TLS the server may refuse it
    assert certificates == bool(read)


@pytest.mark.parametrize("where", ["query", "connect_args"])
def test_keyword_that_the_driver_does_not_take(mariadb_url: sa.URL, where: str) -> None:
    """A misspelt keyword of the driver names the database and the settings to look at."""
    url, options = mariadb_url, dict[str, Any]()
    if where == "query":
        url = url.update_query_dict({"conect_timeout": "3"})
    else:
        options = {"connect_args": {"conect_timeout": 3}}
    app = make_application({"main": url}, settings={"db:main:options": options})
    with app, pytest.raises(SettingInvalid, match=r"'main'.*conect_timeout.*db:main:options"):
        app.dbs["main"].ping()


def test_drop_waits_with_a_bound(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A prepared transaction keeps a database from being dropped; the error names how to end it."""
    monkeypatch.setattr(mysql, "DROP_WAIT", 1)
    identifier = f"{database.settings.url.database}%"
    with database.engine.connect() as connection:
        raw: Any = connection.connection.dbapi_connection
        cursor = raw.cursor()
        for statement in (
            f"XA START '{identifier}'",
            "UPDATE item SET n = 'x'",
            f"XA END '{identifier}'",
            f"XA PREPARE '{identifier}'",
        ):
            cursor.execute(statement)
        connection.invalidate()
    end = f"XA ROLLBACK X'{identifier.encode().hex()}',X'',1"
    try:
        with pytest.raises(ServerError, match=r"'main'.* cannot be dropped: .* for 1 s") as caught:
            database.drop(confirm="main")
        assert end in str(caught.value)
    finally:
        with database.backend.administration(database.settings.url) as admin:
            admin.exec_driver_sql(end)
    assert database.drop(confirm="main")
