from __future__ import annotations

import gc
import itertools
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import NoReturn

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.pool import ConnectionPoolEntry

from qapla_db.backends import embedded_server, get_backend
from tests import servers
from tests.support import wait_until

pytest_plugins = ["pytester"]

FreshURL = Callable[[str], sa.URL]

NOTICED = 5.0
"""Seconds after which a server has noticed that a client is gone."""

_numbers = itertools.count(1)


def pytest_configure() -> None:
    """Let the tests' processes hear Ctrl-C and a hangup, also in a run in the background.

    What they start is no worker of pytest-xdist, even if we are.
    """
    os.environ.pop("PYTEST_XDIST_WORKER", None)
    for name in ("SIGINT", "SIGHUP"):
        signum = getattr(signal, name, None)
        if signum is not None and signal.getsignal(signum) is signal.SIG_IGN:
            # ours is not inherited, but to be deaf is
            signal.signal(signum, lambda *_: None)


@pytest.fixture(scope="session")
def postgresql_directory() -> Iterator[Path]:
    """Data directory of a running PostgreSQL server, which must end the run undisturbed."""
    with servers.directory("postgresql") as home:
        options = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        server = embedded_server.start(home / "data", {**options, "max_connections": "200"})
        yield home / "data"
        try:
            left = _still_left(partial(_open_in_postgresql, server.url()))
        finally:
            embedded_server.stop(home / "data")
        assert [] == left, "the run left transactions open in PostgreSQL"


def _open_in_postgresql(url: sa.URL) -> list[object]:
    with closing(psycopg.connect(_conninfo(url), autocommit=True)) as connection:
        question = (
            "SELECT datname, state, query FROM pg_stat_activity "
            "WHERE state LIKE 'idle in transaction%'"
        )
        return list(connection.execute(question))


def _open_in_mariadb(url: sa.URL) -> list[object]:
    # the server that the environment names may have others to serve
    ours = f"%test_{os.getpid()}%" if os.environ.get("QAPLA_TEST_MARIADB_URL") else "%"
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        question = sa.text(
            "SELECT db, trx_mysql_thread_id, trx_started, trx_query "
            "FROM information_schema.innodb_trx LEFT JOIN information_schema.processlist "
            "ON id = trx_mysql_thread_id WHERE COALESCE(db, '') LIKE :ours"
        )
        return [tuple(row) for row in connection.execute(question, {"ours": ours})]


def _still_left(ask: Callable[[], list[object]]) -> list[object]:
    """What is left when the server has had time to notice who has gone."""
    with suppress(AssertionError):
        wait_until(lambda: not ask(), "no transaction is open", NOTICED)
    return ask()


@pytest.fixture(scope="session")
def postgresql_url(postgresql_directory: Path) -> sa.URL:
    """URL of a PostgreSQL server, of its database ``postgres``."""
    return embedded_server.start(postgresql_directory).url()


@pytest.fixture(scope="session")
def preparing_url() -> Iterator[sa.URL]:
    """Another server, whose transactions can be prepared."""
    with servers.directory("preparing") as home:
        options = {"fsync": "off", "max_prepared_transactions": "4"}
        yield embedded_server.start(home / "data", options).url()
        embedded_server.stop(home / "data")


def _conninfo(url: sa.URL) -> str:
    return f"host={url.query['host']} user={url.username} dbname={url.database}"


@pytest.fixture(scope="session", autouse=True)
def nothing_checked_out() -> Iterator[None]:
    """At the end of the run nobody holds a connection of any pool, disposed of or not."""
    yield
    gc.collect()  # what a test that leaks on purpose has dropped
    used = [
        one.dbapi_connection
        for one in gc.get_objects()
        # not isinstance(), which would wake the proxies of other libraries
        if issubclass(type(one), ConnectionPoolEntry) and one.in_use
    ]
    assert [] == used, "the run left connections checked out"


@pytest.fixture(scope="session")
def mariadb_url() -> Iterator[sa.URL]:
    """URL of a MariaDB server, without a database."""
    with servers.mariadb() as url:
        if isinstance(url, str):
            _without(url)
        yield url
        left = _still_left(partial(_open_in_mariadb, url))
    assert [] == left, "the run left transactions open in MariaDB"


@pytest.fixture(scope="session")
def pgbouncer_url(postgresql_url: sa.URL) -> Iterator[sa.URL]:
    """URL of a PgBouncer in transaction mode before the PostgreSQL server."""
    with servers.pgbouncer(postgresql_url) as url:
        if isinstance(url, str):
            _without(url)
        yield url


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """URL of a Redis server, as Celery takes it."""
    with servers.redis() as url:
        if url is None:
            _without("Redis is not installed and QAPLA_TEST_REDIS_URL is not set")
        yield url


def _without(reason: str) -> NoReturn:
    if os.environ.get("QAPLA_REQUIRE_SERVERS"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture
def fresh_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FreshURL]:
    """Give out URLs of databases that do not exist yet; they are dropped at the end.

    ``fresh_url("postgresql" | "mariadb" | "sqlite")``; the names have ``test``
    as a part, so that the rule for test databases lets them pass.
    """
    given: list[sa.URL] = []

    def make(kind: str) -> sa.URL:
        name = f"fresh_test_{os.getpid()}_{next(_numbers)}"
        if kind == "sqlite":
            url = sa.URL.create("sqlite", database=str(tmp_path / f"{name}.sqlite3"))
        else:
            server: sa.URL = request.getfixturevalue(f"{kind}_url")
            url = server.set(database=name)
        given.append(url)
        return url

    yield make
    for url in given:
        backend = get_backend(url)
        assert backend is not None
        backend.drop(backend.complete(url), None)


@pytest.fixture(params=["postgresql", "sqlite", "mariadb"])
def each_url(request: pytest.FixtureRequest, fresh_url: FreshURL) -> sa.URL:
    """A database that exists and is empty, on each kind of engine in turn."""
    url = fresh_url(request.param)
    backend = get_backend(url)
    assert backend is not None
    backend.create(backend.complete(url), None)
    return url


@pytest.fixture
def postgresql_database_url(fresh_url: FreshURL) -> sa.URL:
    """An empty PostgreSQL database."""
    url = fresh_url("postgresql")
    backend = get_backend(url)
    assert backend is not None
    backend.create(backend.complete(url), None)
    return url
