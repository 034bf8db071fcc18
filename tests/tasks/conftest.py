from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from celery import Celery

from qapla_db.backends import get_backend
from tests.tasks.model import Audit, Main
from tests.tasks.workers import Worker, configuration, start, worker_command

StartWorker = Callable[..., Worker]

WORKERS = [
    ("prefork", "postgresql"),
    ("threads", "postgresql"),
    ("solo", "postgresql"),
    ("gevent", "postgresql"),
    ("prefork", "mariadb"),
    ("threads", "sqlite"),
]


@contextmanager
def databases(server: sa.URL | None, home: Path) -> Iterator[dict[str, sa.URL]]:
    """Create ``main`` and ``audit`` with their tables, on SQLite when there is no server."""
    with ExitStack() as stack:
        urls = {}
        for name, model in (("main", Main), ("audit", Audit)):
            database = f"tasks_test_{os.getpid()}_{home.name}_{name}".replace("-", "_")
            if server is None:
                url = sa.URL.create("sqlite", database=str(home / f"{database}.sqlite3"))
            else:
                url = server.set(database=database)
                force = "WITH (FORCE)" if url.get_backend_name() == "postgresql" else ""
                _administer(server, f"CREATE DATABASE {database}")
                if force:  # so that the server notices when a client is killed in a statement
                    check = "SET client_connection_check_interval = '100ms'"
                    _administer(server, f"ALTER DATABASE {database} {check}")
                stack.callback(_administer, server, f"DROP DATABASE {database} {force}")
            urls[name] = _with_driver(url)
            engine = sa.create_engine(urls[name])
            model.metadata.create_all(engine)
            engine.dispose()
        yield urls


def _administer(server: sa.URL, statement: str) -> None:
    engine = sa.create_engine(_with_driver(server), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(statement))
    engine.dispose()


def _with_driver(url: sa.URL) -> sa.URL:
    backend = get_backend(url)
    assert backend is not None
    return backend.complete(url)


@contextmanager
def starter(
    fleet: list[Worker],
    factory: pytest.TempPathFactory,
    server: sa.URL | None,
    broker: str | None = None,
) -> Iterator[StartWorker]:
    """Yield a function that starts workers, which run until the end of the block."""
    with ExitStack() as stack:

        def begin(pool: str, **more: str) -> Worker:
            home = factory.mktemp(pool)
            urls = stack.enter_context(databases(server, home))
            client = Celery("tests", set_as_current=False)
            client.conf.update(configuration(home, broker))
            if broker:
                more["TASKS_BROKER"] = broker
            worker = start(worker_command(pool), pool, home, urls, client, **more)
            stack.callback(_end, worker)
            fleet.append(worker)
            return worker

        yield begin
        _begin_to_stop(fleet)


def _begin_to_stop(fleet: list[Worker]) -> None:
    # an orderly end takes Celery some seconds: all workers at once
    for worker in fleet:
        worker.begin_to_stop()


def _end(worker: Worker) -> None:
    assert 0 == worker.stop(), worker.log()[-4000:]
    pid = worker.process.pid
    assert [f"{pid} prepared for celery", f"{pid} closed"] == worker.journal()


@pytest.fixture(scope="session")
def fleet() -> list[Worker]:
    """All workers that were started."""
    return []


@pytest.fixture(scope="session")
def make_databases(
    postgresql_url: sa.URL,
) -> Callable[[Path], AbstractContextManager[dict[str, sa.URL]]]:
    """Return what creates the databases of the tasks on PostgreSQL."""
    return lambda home: databases(postgresql_url, home)


@pytest.fixture(scope="session")
def postgresql_workers(
    postgresql_url: sa.URL, fleet: list[Worker], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StartWorker]:
    """Start workers on PostgreSQL."""
    with starter(fleet, tmp_path_factory, postgresql_url) as begin:
        yield begin


@pytest.fixture(scope="session")
def mariadb_workers(
    mariadb_url: sa.URL, fleet: list[Worker], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StartWorker]:
    """Start workers on MariaDB."""
    with starter(fleet, tmp_path_factory, mariadb_url) as begin:
        yield begin


@pytest.fixture(scope="session")
def sqlite_workers(
    fleet: list[Worker], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StartWorker]:
    """Start workers on SQLite."""
    with starter(fleet, tmp_path_factory, None) as begin:
        yield begin


@pytest.fixture(scope="session")
def redis_workers(
    redis_url: str,
    postgresql_url: sa.URL,
    fleet: list[Worker],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[StartWorker]:
    """Start workers on PostgreSQL that take their messages from Redis."""
    with starter(fleet, tmp_path_factory, postgresql_url, redis_url) as begin:
        yield begin


@pytest.fixture(scope="session")
def workers(request: pytest.FixtureRequest) -> Callable[[str, str], Worker]:
    """Return the worker of a pool and a kind of database or broker, started once."""
    started: dict[tuple[str, str], Worker] = {}

    def get(pool: str, kind: str) -> Worker:
        if (pool, kind) not in started:
            begin: StartWorker = request.getfixturevalue(f"{kind}_workers")
            more = {"TASKS_PARENT_USES_DATABASE": "1"} if pool == "prefork" else {}
            started[pool, kind] = begin(pool, **more)
        return started[pool, kind]

    return get


@pytest.fixture(params=WORKERS, ids="-".join)
def worker(request: pytest.FixtureRequest, workers: Callable[[str, str], Worker]) -> Worker:
    """A running worker of each pool in turn; in prefork its parent has used the database."""
    pool, kind = request.param
    if pool == "gevent":
        pytest.importorskip("gevent", reason="gevent is not installed")
    return workers(pool, kind)


@pytest.fixture
def owner(request: pytest.FixtureRequest) -> str:
    """A name for the rows of this test."""
    return f"owner-{abs(hash(request.node.nodeid)) % 10**12}"
