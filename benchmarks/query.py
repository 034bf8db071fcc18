"""What the query interface costs over the same written by hand with SQLAlchemy."""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import count
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from qapla_db import Database, DatabaseApplication, ReadDriver, Session
from qapla_db.backends import embedded_server

ROUNDS = 15
CALLS = 100
"""Calls of each kind in a round, taken in turn: what disturbs the machine disturbs both."""

Call = Callable[[Session], Any]


class Base(DeclarativeBase):
    """Base of the model."""


class Airport(Base):
    """The row that is read and made."""

    __tablename__ = "airport"

    id: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[str] = mapped_column(sa.String(20), unique=True)
    name: Mapped[str] = mapped_column(sa.String(40))


class AirportReadDriver(ReadDriver[Airport]):
    """Reads it."""

    model = Airport


class Bench(DatabaseApplication):
    """An application with one database."""

    settings_package = "tests.empty_settings"

    def append_app_plugins(self) -> None:
        self.add_database_app([Database("main")])


def seconds(session: Session, call: Call, forget: bool) -> float:
    """Return how long one call takes, with nothing in the session before it where that counts."""
    if forget:
        session.expunge_all()
    started = time.perf_counter()
    call(session)
    return time.perf_counter() - started


def report(
    title: str, database: Database, hand: Call, ours: Call, aim: str, *, forget: bool = True
) -> None:
    """Print one line of the table: medians of rounds, and of their ratios."""
    rounds = []
    with database.session() as session:
        for call in (hand, ours):
            for _ in range(50):
                seconds(session, call, forget)
        kept = None if forget else session.get(Airport, 1)
        for _ in range(ROUNDS):
            pairs = [
                (seconds(session, hand, forget), seconds(session, ours, forget))
                for _ in range(CALLS)
            ]
            session.rollback()  # thousands of savepoints in one transaction would be measured
            rounds.append([statistics.median(one) for one in zip(*pairs, strict=True)])
        del kept
    by_hand, with_us = (statistics.median(one) for one in zip(*rounds, strict=True))
    ratio = statistics.median(ours / hand for hand, ours in rounds)
    print(
        f"{title:34} {by_hand * 1e6:9.1f} us {with_us * 1e6:9.1f} us {ratio:7.3f} "
        f"{(with_us - by_hand) * 1e6:+8.1f} us   {aim}",
        flush=True,
    )


def measure(database: Database) -> None:
    """Print the table of one database."""
    Base.metadata.create_all(database.engine)
    with database.transaction() as session:
        rows = [{"code": f"K{n}", "name": "x"} for n in range(1, 1001)]
        session.execute(sa.insert(Airport), rows)
    numbers = count(1)

    report(
        "get_by_id, not in the session",
        database,
        lambda session: session.get(Airport, 7),
        lambda session: driver_of(session).get_by_id(7),
        "ratio at most 1.03",
    )
    with database.session() as reading:
        driver = AirportReadDriver(reading)
        kept = reading.get(Airport, 7)
        for _ in range(3):
            got = [timed(lambda: reading.get(Airport, 7)), timed(lambda: driver.get_by_id(7))]
        del kept
    print(
        f"{'get_by_id, in the session':34} {got[0]:9.2f} us {got[1]:9.2f} us "
        f"{got[1] / got[0]:7.3f} {got[1] - got[0]:+8.2f} us   extra at most 1 us"
    )
    report(
        "get_or_create, existing",
        database,
        lambda session: session.scalars(
            sa.select(Airport).where(Airport.code == "K5")
        ).one_or_none(),
        lambda session: session.get_or_create(Airport, {"code": "K5"}, name="x"),
        "ratio at most 1.1",
    )
    report(
        "get_or_create, missing",
        database,
        partial(create_by_hand, prefix="H", numbers=numbers),
        lambda session: session.get_or_create(Airport, {"code": f"O{next(numbers)}"}, name="x"),
        "ratio at most 1.1",
    )


def measure_peer(database: Database) -> None:
    """Print what advanced-alchemy costs for the same, where it is installed."""
    try:
        from advanced_alchemy.repository import SQLAlchemySyncRepository
    except ImportError:
        print("advanced-alchemy                   not installed (make bench installs it)")
        return

    class Repository(SQLAlchemySyncRepository):  # type: ignore[misc, type-arg, unused-ignore]
        model_type = Airport

    repository = cache(lambda session: Repository(session=session))
    numbers = count(1)
    report(
        "advanced-alchemy get",
        database,
        lambda session: session.get(Airport, 7),
        lambda session: repository(session).get(7),
        "",
    )
    report(
        "advanced-alchemy get, in session",
        database,
        lambda session: session.get(Airport, 1),
        lambda session: repository(session).get(1),
        "",
        forget=False,
    )

    def made(session: Session, code: str) -> Any:
        return repository(session).get_or_upsert(match_fields=["code"], code=code, name="x")

    report(
        "advanced-alchemy get_or_upsert",
        database,
        lambda session: session.scalars(
            sa.select(Airport).where(Airport.code == "K5")
        ).one_or_none(),
        lambda session: made(session, "K5"),
        "",
    )
    report(
        "advanced-alchemy missing",
        database,
        partial(create_by_hand, prefix="A", numbers=numbers),
        lambda session: made(session, f"B{next(numbers)}"),
        "",
    )


def create_by_hand(session: Session, *, prefix: str, numbers: Iterator[int]) -> None:
    """Look for a row that is missing, and make it."""
    code = f"{prefix}{next(numbers)}"
    found = session.scalars(sa.select(Airport).where(Airport.code == code)).one_or_none()
    if found is None:
        session.add(Airport(code=code, name="x"))
        session.flush()


@cache
def driver_of(session: Session) -> AirportReadDriver:
    """Return the one driver of a session, as a controller has one."""
    return AirportReadDriver(session)


def timed(call: Callable[[], Any], calls: int = 5000) -> float:
    """Return the microseconds of one call, the median of some rounds."""
    found = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for _ in range(calls):
            call()
        found.append((time.perf_counter() - started) / calls * 1e6)
    return statistics.median(found)


def main() -> None:
    """Measure on SQLite and on PostgreSQL (an embedded one, or ``--postgresql URL``)."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--postgresql", metavar="URL", help="an empty database to use")
    given = parser.parse_args().postgresql
    print(f"{'':34} {'by hand':>12} {'qapla_db':>12} {'ratio':>7} {'extra':>11}   aim")
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        home.chmod(0o711)  # an embedded server of root runs as another user
        server = None if given else embedded_server.start(home / "data", {"fsync": "off"})
        urls = {
            "SQLite": f"sqlite:///{home / 'main.sqlite3'}",
            "PostgreSQL": given or (server and server.url()),
        }
        try:
            for kind, url in urls.items():
                print(kind)
                with Bench() as app:
                    app.prepare("command", {"db:main:url": url})
                    measure(app.dbs["main"])
                    measure_peer(app.dbs["main"])
        finally:
            if server is not None:
                embedded_server.stop(home / "data")


if __name__ == "__main__":
    main()
