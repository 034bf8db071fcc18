"""What pages cost: by number against two hand-written queries, by position at any depth."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from qapla_db import Database, DatabaseApplication
from qapla_db.query.keyset import paginate_keyset
from qapla_db.query.pages import paginate

ROWS = 300_000
DEPTH = 250_000
RUNS = 15
CALLS = 10


class Base(DeclarativeBase):
    pass


class Planet(Base):
    __tablename__ = "planet"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(30))
    sector: Mapped[int]
    found: Mapped[int]
    rating: Mapped[int | None]

    __table_args__ = (
        sa.Index("by_found", "found", "id"),
        sa.Index("by_sector_and_found", "sector", sa.desc("found"), sa.desc("id")),
        sa.Index("by_found_mixed", "found", sa.desc("id")),
        sa.Index("by_rating", sa.text("rating DESC NULLS LAST"), sa.text("id DESC")),
    )


FILL = """
INSERT INTO planet (id, name, sector, found, rating)
SELECT n, 'planet ' || n, n % 10, (n::bigint * 7919) % 300007, nullif(n % 5000, 7)
FROM generate_series(1, :rows) AS n
"""

ORDERS: dict[str, list[Any]] = {
    "id": ["id"],
    "-found": ["-found"],
    "found, -id (mixed)": ["found", "-id"],
    "sector, -found (mixed, ties)": ["sector", "-found"],
    "-rating (nulls)": ["-rating"],
}


class Pages(DatabaseApplication):
    """An application with one database."""

    settings_package = "tests.empty_settings"

    def append_app_plugins(self) -> None:
        self.add_database_app([Database("main")])


def milliseconds(call: Callable[[], object], calls: int) -> float:
    """Return how long a call takes, as the mean of a few."""
    started = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - started) / calls * 1e3


def compare(
    plain: Callable[[], object], other: Callable[[], object], calls: int
) -> tuple[float, float, float]:
    """Return both medians, and the median of their ratio in the same moment."""
    plain(), other()
    pairs = []
    for number in range(RUNS):
        if number % 2:
            pairs.append((milliseconds(plain, calls), milliseconds(other, calls)))
        else:
            pairs.append((milliseconds(other, calls), milliseconds(plain, calls))[::-1])
    return (
        statistics.median(pair[0] for pair in pairs),
        statistics.median(pair[1] for pair in pairs),
        statistics.median(pair[1] / pair[0] for pair in pairs),
    )


def report(
    title: str, plain: Callable[[], object], other: Callable[[], object], aim: str, calls: int = 1
) -> None:
    """Print one line of the table."""
    first, second, ratio = compare(plain, other, calls)
    print(f"{title:46} {first:9.2f} ms {second:9.2f} ms {ratio:7.3f}   {aim}", flush=True)


def main() -> None:
    """Print the tables."""
    if sys.platform == "win32":
        print("left out: there is no embedded PostgreSQL on Windows")
        return
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o711)  # root runs PostgreSQL as another user
        app = Pages()
        url = f"embedded:///{directory}/postgresql?database=planets"
        app.prepare("command", {"db:main:url": url})
        database = app.dbs["main"]
        database.create()
        Base.metadata.create_all(database.engine)
        with database.transaction() as session:
            session.execute(sa.text(FILL), {"rows": ROWS})
        with database.engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT")
            connection.execute(sa.text("VACUUM ANALYZE planet"))
        with database.session() as session:
            by_number(session)
            by_position(session)
        app.close()


def by_number(session: Session) -> None:
    """Compare the first page with two queries, and with advanced-alchemy."""
    print(f"{f'50 rows and the total of {ROWS:,}':46} {'by hand':>12} {'other':>12}   ratio   aim")

    def by_hand() -> object:
        session.expunge_all()
        items = session.scalars(sa.select(Planet).order_by(Planet.id).limit(50)).all()
        return items, session.scalar(sa.select(sa.func.count()).select_from(Planet))

    def ours() -> object:
        session.expunge_all()
        return paginate(session, sa.select(Planet), per_page=50)

    def uncounted() -> object:
        session.expunge_all()
        return paginate(session, sa.select(Planet), per_page=50, count=False)

    def bounded() -> object:
        session.expunge_all()
        return paginate(session, sa.select(Planet), per_page=50, count=1000)

    report("paginate", by_hand, ours, "at most 1.1")
    report("paginate(count=False)", by_hand, uncounted, "")
    report("paginate(count=1000)", by_hand, bounded, "")
    try:
        from advanced_alchemy.filters import LimitOffset
        from advanced_alchemy.repository import SQLAlchemySyncRepository
    except ImportError:
        print("advanced-alchemy: not installed")
        return

    class Planets(SQLAlchemySyncRepository[Planet]):  # type: ignore[type-var]
        model_type = Planet

    def window() -> object:
        session.expunge_all()
        return Planets(session=session).list_and_count(LimitOffset(50, 0))

    def two_queries() -> object:
        session.expunge_all()
        found = Planets(session=session)
        return found.list_and_count(LimitOffset(50, 0), count_with_window_function=False)

    report("advanced-alchemy list_and_count", by_hand, window, "")
    report("advanced-alchemy, without its window", by_hand, two_queries, "")


def by_position(session: Session) -> None:
    """Compare a page in the depth with the first."""
    print(f"\n{f'page at depth {DEPTH:,}':46} {'first page':>12} {'deep page':>12}   ratio   aim")
    for title, order in ORDERS.items():

        def page(token: str | None, size: int = 10, order: list[Any] = order) -> Any:
            session.expunge_all()
            return paginate_keyset(
                session,
                sa.select(Planet),
                order_by=order,
                after=token,
                per_page=size,
                max_per_page=5000,
            )

        token = None
        for _ in range(DEPTH // 5000):
            token = page(token, 5000).next_token
        deep = page(token).next_token
        first, other = partial(page, None), partial(page, deep)
        report(f"order by {title}", first, other, "at most 1.3", CALLS)

    def offset(page: int) -> object:
        session.expunge_all()
        return paginate(session, sa.select(Planet), page=page, count=False)

    report("by number, for comparison", lambda: offset(1), lambda: offset(DEPTH // 10), "")


if __name__ == "__main__":
    main()
