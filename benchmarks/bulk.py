"""Many rows at once: against COPY and SQLAlchemy by hand, and against advanced-alchemy."""

from __future__ import annotations

import datetime
import decimal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from qapla_db.backends import embedded_server
from qapla_db.query.bulk import bulk_insert

ROWS = 200_000
FEWER = 20_000
ROUNDS = 7

Way = Callable[[Session, list[dict[str, Any]]], object]


class Base(DeclarativeBase):
    pass


class Reading(Base):
    __tablename__ = "reading"

    id: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[str] = mapped_column(sa.String(12), unique=True)
    name: Mapped[str] = mapped_column(sa.Text)
    latitude: Mapped[float] = mapped_column(sa.Double)
    amount: Mapped[decimal.Decimal] = mapped_column(sa.Numeric(12, 2))
    number: Mapped[int]
    moment: Mapped[datetime.datetime] = mapped_column(sa.DateTime(timezone=True))
    ok: Mapped[bool]


COLUMNS = ("code", "name", "latitude", "amount", "number", "moment", "ok")
TYPES = ("varchar", "text", "float8", "numeric", "int4", "timestamptz", "bool")


def readings(count: int) -> Iterator[dict[str, Any]]:
    """Yield rows of plain types."""
    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    for at in range(count):
        yield {
            "code": f"c{at}",
            "name": f"Reading number {at}",
            "latitude": at / 7,
            "amount": decimal.Decimal(at) / 100,
            "number": at,
            "moment": start + datetime.timedelta(seconds=at),
            "ok": at % 2 == 0,
        }


# --- the ways


def ours(session: Session, rows: list[dict[str, Any]]) -> None:
    bulk_insert(session, Reading, rows)


def our_update(session: Session, rows: list[dict[str, Any]]) -> None:
    bulk_insert(session, Reading, rows, on_conflict="update", by="code")


def _copy(session: Session, rows: list[dict[str, Any]], form: str) -> None:
    cursor = session.connection().connection.cursor()
    names = ", ".join(COLUMNS)
    with cursor.copy(f"COPY reading ({names}) FROM STDIN {form}") as target:  # type: ignore[attr-defined]
        target.set_types(TYPES)
        for row in rows:
            target.write_row(
                (
                    row["code"],
                    row["name"],
                    row["latitude"],
                    row["amount"],
                    row["number"],
                    row["moment"],
                    row["ok"],
                )
            )
    cursor.close()


def copy_text(session: Session, rows: list[dict[str, Any]]) -> None:
    _copy(session, rows, "")


def copy_binary(session: Session, rows: list[dict[str, Any]]) -> None:
    _copy(session, rows, "(FORMAT BINARY)")


def by_hand(session: Session, rows: list[dict[str, Any]]) -> None:
    session.execute(insert(Reading), rows, execution_options={"render_nulls": True})


def update_by_hand(session: Session, rows: list[dict[str, Any]]) -> None:
    statement = insert(Reading.__table__)  # type: ignore[arg-type]
    changes = {name: statement.excluded[name] for name in COLUMNS if name != "code"}
    statement = statement.on_conflict_do_update(index_elements=["code"], set_=changes)
    session.connection().execute(statement, rows)


def peers() -> dict[str, Way]:
    """Return advanced-alchemy's ways, where it is installed."""
    try:
        from advanced_alchemy.repository import SQLAlchemySyncRepository
    except ImportError:
        return {}

    class Repository(SQLAlchemySyncRepository[Any]):
        model_type = Reading

    def add_many(session: Session, rows: list[dict[str, Any]]) -> None:
        Repository(session=session).add_many([Reading(**row) for row in rows])

    def upsert_many(session: Session, rows: list[dict[str, Any]]) -> None:
        repository = Repository(session=session)
        repository.upsert_many([Reading(**row) for row in rows], match_fields=["code"])

    return {"add_many": add_many, "upsert_many": upsert_many}


# --- the measuring


def seconds(engine: sa.Engine, way: Way, rows: list[dict[str, Any]], *, filled: bool) -> float:
    """Return how long a way takes, commit included, from the same state each time."""
    with engine.begin() as connection:
        connection.execute(sa.text("TRUNCATE reading"))
    if filled:
        with Session(engine) as session:
            copy_binary(session, rows[::2])
            session.commit()
    with Session(engine) as session:
        started = time.perf_counter()
        way(session, rows)
        session.commit()
        taken = time.perf_counter() - started
        assert len(rows) == session.scalar(sa.select(sa.func.count()).select_from(Reading))
    return taken


def compare(
    engine: sa.Engine, ways: dict[str, Way], rows: list[dict[str, Any]], *, filled: bool = False
) -> dict[str, list[float]]:
    """Measure ways in turns."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(ROUNDS):
        names = list(ways)
        for name in names if number % 2 else reversed(names):
            taken[name].append(seconds(engine, ways[name], rows, filled=filled))
    return taken


def report(title: str, taken: dict[str, list[float]], first: str) -> None:
    """Print medians, and the medians of the ratios to ours in the same round."""
    print(f"\n{title}")
    for name, values in taken.items():
        ratio = statistics.median(
            one / other for one, other in zip(taken[first], values, strict=True)
        )
        print(f"  {name:34} {statistics.median(values):8.3f} s   ours / this {ratio:6.2f}")
    if not peers():
        print("  advanced-alchemy                   not installed")


MEMORY = """
import pathlib, re, resource, sys
import sqlalchemy as sa
from benchmarks.bulk import Reading, bulk_insert, readings
from sqlalchemy.orm import Session
with Session(sa.create_engine(sys.argv[1])) as session:
    bulk_insert(session, Reading, readings(int(sys.argv[2])))
status = pathlib.Path("/proc/self/status")
if status.exists():  # what the next line knows is also that of the parent process
    print(int(re.search(r"VmHWM:\\s+(\\d+)", status.read_text())[1]) / 1024)
else:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def peak(engine: sa.Engine, count: int) -> float:
    """Return the peak memory, in MB, of a process that stores rows of a generator."""
    with engine.begin() as connection:
        connection.execute(sa.text("TRUNCATE reading"))
    url = engine.url.render_as_string(hide_password=False)
    command = [sys.executable, "-c", MEMORY, url, str(count)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@contextmanager
def database() -> Iterator[sa.Engine]:
    """Yield an engine of a PostgreSQL server of our own."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o711)  # root runs PostgreSQL as another user
        server = embedded_server.start(Path(directory) / "data", {})
        engine = sa.create_engine(server.url())
        try:
            Base.metadata.create_all(engine)
            yield engine
        finally:
            engine.dispose()
            embedded_server.stop(Path(directory) / "data")


def main() -> None:
    """Print the tables."""
    if sys.platform == "win32":
        print("left out: there is no embedded PostgreSQL here")
        return
    with database() as engine:
        rows = list(readings(ROWS))
        taken = compare(
            engine,
            {
                "bulk_insert": ours,
                "COPY": copy_text,
                "COPY, binary": copy_binary,
                "insert(Model), rows": by_hand,
            },
            rows,
        )
        report(
            f"{ROWS:,} rows (aim: at most 1.25 of COPY, 0.25 of the insert)", taken, "bulk_insert"
        )
        fewer = rows[:FEWER]
        ways: dict[str, Way] = {"bulk_insert": ours}
        if "add_many" in peers():
            ways["advanced-alchemy add_many"] = peers()["add_many"]
        report(f"{FEWER:,} rows", compare(engine, ways, fewer), "bulk_insert")
        ways = {"bulk_insert, update": our_update, "one ON CONFLICT for many": update_by_hand}
        if "upsert_many" in peers():
            ways["advanced-alchemy upsert_many"] = peers()["upsert_many"]
        report(
            f"{FEWER:,} rows, of which half exist (aim: at most 0.59 of ON CONFLICT)",
            compare(engine, ways, fewer, filled=True),
            "bulk_insert, update",
        )
        few, many = peak(engine, 20_000), peak(engine, 2_000_000)
        print(
            f"\npeak memory with a generator of 20,000 rows {few:.0f} MB, of 2,000,000 {many:.0f}"
        )
        print(f"  more by {many - few:.1f} MB (aim: at most 30)")


if __name__ == "__main__":
    main()
