"""Puts the world's airports into ``main``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import airportsdata
from rich.progress import track
from sqlalchemy import func, insert, select

from qapla_db.database import Database
from rotarran.application.db import Airport

CHUNK = 2_000


def airport_rows() -> Iterator[dict[str, Any]]:
    """Yield the rows of the table ``airport``."""
    for airport in airportsdata.load("ICAO").values():
        yield {
            "code": airport["icao"],
            "iata": airport["iata"],
            "name": airport["name"],
            "city": airport["city"],
            "country": airport["country"],
            "elevation": airport["elevation"],
            "latitude": airport["lat"],
            "longitude": airport["lon"],
            "timezone": airport["tz"],
        }


def load_airports(database: Database) -> int:
    """Load the airports into an empty table, all or none; return how many are there."""
    with database.transaction() as session:
        present = session.scalar(select(func.count()).select_from(Airport)) or 0
        if present:
            return present
        rows = list(airport_rows())
        chunks = range(0, len(rows), CHUNK)
        for start in track(chunks, description="Loading airports"):
            session.execute(insert(Airport), rows[start : start + CHUNK])
        return len(rows)
