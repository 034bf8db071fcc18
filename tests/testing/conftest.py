from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.testing.projects import FreshURL, Project, make_project
from tests.testing.world import Base, World, make_world

KINDS = ["postgresql", "sqlite", "mariadb"]


@pytest.fixture(scope="session")
def world_urls(tmp_path_factory: pytest.TempPathFactory) -> dict[str, sa.URL]:
    """The databases that were made for the tests of the sandbox in this run."""
    path = tmp_path_factory.mktemp("worlds") / "world.sqlite3"
    return {"sqlite": sa.URL.create("sqlite", database=str(path))}


def _url(kind: str, urls: dict[str, sa.URL], request: pytest.FixtureRequest) -> sa.URL:
    if kind not in urls:
        server: sa.URL = request.getfixturevalue(f"{kind}_url")
        name = f"world_test_{os.getpid()}"
        engine = sa.create_engine(server, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        urls[kind] = server.set(database=name)
    return urls[kind]


def _visit(kind: str, urls: dict[str, sa.URL], request: pytest.FixtureRequest) -> Iterator[World]:
    world = make_world(kind, _url(kind, urls, request))
    Base.metadata.create_all(world.outside)
    yield world
    left = world.really()
    world.wipe()
    world.engine.dispose()
    assert left == [], "a test stored something for good"


@pytest.fixture(params=KINDS)
def world(request: pytest.FixtureRequest, world_urls: dict[str, sa.URL]) -> Iterator[World]:
    """A database of each kind in turn, empty at the beginning and at the end."""
    yield from _visit(request.param, world_urls, request)


@pytest.fixture
def postgresql(request: pytest.FixtureRequest, world_urls: dict[str, sa.URL]) -> Iterator[World]:
    yield from _visit("postgresql", world_urls, request)


@pytest.fixture
def mariadb(request: pytest.FixtureRequest, world_urls: dict[str, sa.URL]) -> Iterator[World]:
    yield from _visit("mariadb", world_urls, request)


@pytest.fixture
def sqlite(request: pytest.FixtureRequest, world_urls: dict[str, sa.URL]) -> Iterator[World]:
    yield from _visit("sqlite", world_urls, request)


@pytest.fixture(params=["postgresql", "sqlite", "mariadb"])
def project(
    request: pytest.FixtureRequest, fresh_url: FreshURL, tmp_path: Path
) -> Iterator[Project]:
    """A project with two databases, on each kind of server in turn."""
    yield from _project(request.param, fresh_url, tmp_path)


@pytest.fixture
def postgresql_project(fresh_url: FreshURL, tmp_path: Path) -> Iterator[Project]:
    """A project with two databases on PostgreSQL."""
    yield from _project("postgresql", fresh_url, tmp_path)


@pytest.fixture
def mariadb_project(fresh_url: FreshURL, tmp_path: Path) -> Iterator[Project]:
    """A project with two databases on MariaDB."""
    yield from _project("mariadb", fresh_url, tmp_path)


def _project(kind: str, fresh_url: FreshURL, path: Path) -> Iterator[Project]:
    made = make_project(path, {name: fresh_url(kind) for name in ("main", "audit")})
    yield made
    made.drop_all()
