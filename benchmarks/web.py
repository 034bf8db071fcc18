"""What the add-on costs a request, against the same application written by hand."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response
from sqlalchemy.orm import DeclarativeBase, Session, mapped_column

from qapla_db import Database
from qapla_db.errors import QaplaError

ROUNDS = 6000
"""Requests of each kind, taken in turn: what disturbs the machine disturbs both."""


class Base(DeclarativeBase):
    pass


class Planet(Base):
    __tablename__ = "planet"

    id = mapped_column(sa.Integer, primary_key=True)
    name = mapped_column(sa.String(30))


def application(settings: dict[str, str], view: Callable[[Any], Response]) -> Any:
    """Make a Pyramid application with one view and one reified request method."""
    config = Configurator(settings=settings)
    if settings:
        config.include("qapla_db")
    config.add_request_method(lambda request: "somebody", "user", reify=True)
    config.add_route("home", "/")
    config.add_view(view, route_name="home")
    return config.make_wsgi_app()


def seconds(application: Any) -> float:
    """Return how long one request takes, which is gone before the next, as in a server."""
    environ = dict(Request.blank("/").environ)
    started = time.perf_counter()
    b"".join(application(environ, _start))
    return time.perf_counter() - started


def _start(status: str, headers: list[tuple[str, str]]) -> None:
    assert status == "200 OK", status


def compare(plain: Any, ours: Any) -> tuple[float, float, float, float]:
    """Return both medians, and the medians of their ratio and difference in the same moment."""
    seconds(plain), seconds(ours)
    pairs = []
    for number in range(ROUNDS):
        if number % 2:
            pairs.append((seconds(plain), seconds(ours)))
        else:
            pairs.append((seconds(ours), seconds(plain))[::-1])
    return (
        statistics.median(pair[0] for pair in pairs),
        statistics.median(pair[1] for pair in pairs),
        statistics.median(pair[1] / pair[0] for pair in pairs),
        statistics.median(pair[1] - pair[0] for pair in pairs),
    )


def report(title: str, plain: Any, ours: Any, aim: str) -> None:
    """Print one line of the table."""
    by_hand, with_us, ratio, extra = compare(plain, ours)
    print(
        f"{title:30} {by_hand * 1e6:9.1f} us {with_us * 1e6:9.1f} us "
        f"{ratio:7.3f} {extra * 1e6:+8.1f} us   {aim}"
    )


@contextmanager
def urls() -> Iterator[dict[str, str]]:
    """Yield the databases that this machine has."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o711)  # root runs PostgreSQL as another user
        found = {"SQLite": f"sqlite:///{directory}/planets.sqlite3"}
        if sys.platform != "win32":
            found["PostgreSQL"] = f"embedded:///{directory}/postgresql?database=planets"
        yield found


def main() -> None:
    """Print the table."""
    print(f"{'':30} {'by hand':>12} {'qapla_db':>12} {'ratio':>7} {'extra':>11}   aim")

    def nothing(request: Any) -> Response:
        return Response("nothing")

    with urls() as found:
        settings = {"qapla_db.databases": "main", "db.main.url": found["SQLite"]}
        report(
            "no database",
            application({}, nothing),
            application(settings, nothing),
            "extra at most 5 us",
        )
        for kind, url in found.items():
            one_row(kind, url)


def one_row(kind: str, url: str) -> None:
    """Compare the reading of one row."""
    ours = application(
        {"qapla_db.databases": "main", "db.main.url": url},
        lambda request: Response(request.main.get(Planet, 1).name),
    )
    database: Database = ours.registry["qapla_db"].dbs["main"]
    try:
        database.create()
    except QaplaError as error:
        print(f"one row, {kind:21} left out: {error}")
        return
    Base.metadata.create_all(database.engine)
    with database.transaction() as session:
        session.add(Planet(id=1, name="Qo'noS"))
    engine: sa.Engine = database.engine

    def by_hand(request: Any) -> Response:
        with Session(engine) as session:
            planet = session.get(Planet, 1)
            assert planet is not None
            return Response(planet.name)

    report(f"one row, {kind}", application({}, by_hand), ours, "ratio at most 1.05")
    database.close()


if __name__ == "__main__":
    main()
