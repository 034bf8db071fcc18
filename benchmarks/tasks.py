"""What WithDatabase costs over a session that is written by hand in the same function."""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from qapla_db import Database, DatabaseApplication
from qapla_db.backends import embedded_server
from qapla_db.decorators import INJECTED, WithDatabase

PAIRS = 4000
"""Calls of each kind, taken in turn: what disturbs the machine disturbs both."""


class Base(DeclarativeBase):
    """Base of the model."""


class Note(Base):
    """The row that is read."""

    __tablename__ = "note"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]


class Bench(DatabaseApplication):
    """An application with one database."""

    settings_package = "tests.empty_settings"

    def append_app_plugins(self) -> None:
        self.add_database_app([Database("main")])


def seconds(function: Callable[[], Any], calls: int = 1) -> float:
    """Return how long one call takes, as a mean of some."""
    started = time.perf_counter()
    for _ in range(calls):
        function()
    return (time.perf_counter() - started) / calls


def measure(app: Bench, label: str) -> None:
    """Compare reading one row through the decorator and by hand, on one engine."""
    engine = app.dbs["main"].engine
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.merge(Note(id=1, text="hello"))
        session.commit()

    def by_hand() -> str:
        with Session(engine) as main:
            return main.get_one(Note, 1).text

    @WithDatabase(app, "main")
    def decorated(main: Session = INJECTED) -> str:
        return main.get_one(Note, 1).text

    seconds(by_hand, 200), seconds(decorated, 200)
    pairs = [(seconds(by_hand), seconds(decorated)) for _ in range(PAIRS)]
    hand = statistics.median(pair[0] for pair in pairs)
    ours = statistics.median(pair[1] for pair in pairs)
    print(
        f"one row, {label:<12} by hand {hand * 1e6:7.1f} us   WithDatabase {ours * 1e6:7.1f} us"
        f"   ratio {ours / hand:5.3f} (aim: at most 1.05)"
    )


def measure_wrapper(app: Bench) -> None:
    """Show what a call costs that does not use its session, and one that is lent one."""

    def plain(x: int) -> int:
        return x

    @WithDatabase(app, "main")
    def decorated(x: int, *, main: Session = INJECTED) -> int:
        return x

    with app.dbs["main"].session() as session:
        rows = {
            "a plain call": lambda: plain(1),
            "with a lent session": lambda: decorated(1, main=session),
            "with an unused session": lambda: decorated(1),
        }
        for label, call in rows.items():
            times = [seconds(call, 50) for _ in range(400)]
            print(f"{label:<24} {statistics.median(times) * 1e6:6.2f} us")


def main() -> None:
    """Measure on SQLite and on PostgreSQL (an embedded one, or ``--postgresql URL``)."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--postgresql", metavar="URL", help="an empty database to use")
    given = parser.parse_args().postgresql
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        home.chmod(0o711)  # an embedded server of root runs as another user
        with Bench() as app:
            app.prepare("command", {"db:main:url": f"sqlite:///{home / 'main.sqlite3'}"})
            measure_wrapper(app)
            measure(app, "SQLite")
        server = None if given else embedded_server.start(home / "data", {"fsync": "off"})
        try:
            url = given or (server and server.url())
            with Bench() as app:
                app.prepare("command", {"db:main:url": url})
                measure(app, "PostgreSQL")
        finally:
            if server is not None:
                embedded_server.stop(home / "data")


if __name__ == "__main__":
    main()
