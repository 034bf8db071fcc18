"""The revisions of the reference application, on each kind of database."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from sqlalchemy import func, select

from qapla_db import Database
from qapla_db.migrations import downgrade, migrate
from qapla_db.migrations.commands import run_alembic
from rotarran.application.app import RotarranApplication
from rotarran.application.db import Airport
from rotarran.application.drivers import AirportReadDriver
from rotarran.load import load_airports
from tests.migrations.project import rows

CREATED = datetime(2026, 11, 21, 12)

AIRPORT = sa.table(
    "airport",
    *map(sa.column, ["code", "name", "country", "elevation", "latitude", "longitude", "timezone"]),
)
NEIGHBOUR = sa.table(
    "neighbour", *map(sa.column, ["airport_code", "other_code", "distance", "computed_at"])
)
EVENT = sa.table("event", *map(sa.column, ["at", "who", "action", "airport_code"]))


class Migrated:
    """One database of the application, which a test puts on some server."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.url = database.settings.url

    def to(self, revision: str) -> None:
        migrate(self.database, revision)

    def back(self, revision: str) -> None:
        downgrade(self.database, revision)

    def check(self) -> None:
        run_alembic(self.database, command.check)

    def insert(self, table: sa.TableClause, *values: dict[str, Any]) -> None:
        engine = sa.create_engine(self.url, poolclass=sa.NullPool)
        with engine.begin() as connection:
            connection.execute(table.insert(), list(values))

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        return rows(self.url, query)


@pytest.fixture
def application(each_url: sa.URL) -> Iterator[RotarranApplication]:
    """An application of its own, whose databases are on each kind of server in turn."""
    url = each_url.render_as_string(hide_password=False)
    with RotarranApplication() as application:
        application.prepare("command", {f"db:{name}:url": url for name in ("main", "audit")})
        yield application


@pytest.fixture
def main(application: RotarranApplication) -> Migrated:
    """``main`` as it was at first, with two airports, neighbours of one another."""
    main = Migrated(application.dbs["main"])
    main.to("0001")
    place = {"country": "PL", "latitude": 52.1, "longitude": 20.9, "timezone": "Europe/Warsaw"}
    main.insert(
        AIRPORT,
        {"code": "EPWA", "name": "Chopin", "elevation": 362.0, **place},
        {"code": "EPMO", "name": "Modlin", "elevation": 0.0, **place},
    )
    main.insert(
        NEIGHBOUR,
        {"airport_code": "EPWA", "other_code": "EPMO", "distance": 33.5, "computed_at": CREATED},
    )
    return main


@pytest.fixture
def audit(application: RotarranApplication) -> Migrated:
    """``audit`` as it was at first, with an event of a visitor and one of a worker."""
    audit = Migrated(application.dbs["audit"])
    audit.to("0001")
    event = {"at": CREATED, "airport_code": "EPWA"}
    audit.insert(
        EVENT,
        {"who": "visitor 127.0.0.1", "action": "edited", **event},
        {"who": "worker, for x", "action": "computed neighbours", **event},
    )
    return audit


ELEVATIONS = "SELECT code, elevation, name, timezone FROM airport ORDER BY code"
ORIGINS = "SELECT who, action, origin FROM event ORDER BY who"


@pytest.mark.parametrize("name", ["main", "audit"])
def test_models_match(application: RotarranApplication, name: str) -> None:
    """An empty database gets by its migrations what the models say, and goes back to nothing."""
    database = Migrated(application.dbs[name])
    database.to("head")
    database.check()
    database.back("base")
    database.to("head")
    database.check()


def test_main_keeps_its_rows(main: Migrated) -> None:
    """Up and down again no row is lost; feet are metres meanwhile."""
    before = main.ask(ELEVATIONS)
    main.to("head")
    modlin, chopin = main.ask(ELEVATIONS)
    assert ("EPMO", 0.0, "Modlin", "Europe/Warsaw") == modlin
    assert chopin == ("EPWA", pytest.approx(110.3376), "Chopin", "Europe/Warsaw")
    assert [("EPWA", "EPMO", 33.5)] == main.ask(
        "SELECT airport_code, other_code, distance_km FROM neighbour"
    )
    main.check()
    main.back("0001")
    assert before == [
        (code, pytest.approx(elevation), name, zone)
        for code, elevation, name, zone in main.ask(ELEVATIONS)
    ]
    assert [(33.5,)] == main.ask("SELECT distance FROM neighbour")


def test_audit_keeps_its_rows(audit: Migrated) -> None:
    """Events get their origin; one that the former schema cannot say is a worker's there."""
    audit.to("head")
    audit.check()
    visitor = ("visitor 127.0.0.1", "edited", "web")
    worker = ("worker, for x", "computed neighbours", "worker")
    assert [visitor, worker] == audit.ask(ORIGINS)
    audit.ask("UPDATE event SET origin = 'command' WHERE action = 'edited'")
    assert [(*visitor[:2], "command"), worker] == audit.ask(ORIGINS)
    audit.back("0002")
    assert [(*visitor[:2], "worker"), worker] == audit.ask(ORIGINS)
    audit.back("0001")
    assert [visitor[:2], worker[:2]] == audit.ask("SELECT who, action FROM event ORDER BY who")


def test_airports_are_loaded(application: RotarranApplication) -> None:
    """The world's airports are loaded and found on each kind of server, heights in metres."""
    database = application.dbs["main"]
    migrate(database)
    count = load_airports(database)
    assert count > 28_000
    assert count == load_airports(database), "and once only"
    with database.session(read_only=True) as session:
        (chopin,) = AirportReadDriver(session).search("EPWA", 1)
        assert 362.0 == chopin.elevation
        higher = select(func.count()).where(Airport.elevation > 13_000)
        assert 0 < (session.scalar(higher) or 0) < 100
    assert [(pytest.approx(110.3376),)] == rows(
        database.settings.url, "SELECT elevation FROM airport WHERE code = 'EPWA'"
    )
