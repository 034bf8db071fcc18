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
            "name": printable(airport["name"]),
            "city": printable(airport["city"]),
            "country": airport["country"],
            "elevation": airport["elevation"],
            "latitude": airport["lat"],
            "longitude": airport["lon"],
            "timezone": airport["tz"],
        }


def printable(text: str) -> str:
    """Return a text without what cannot be printed, such as a soft hyphen, and trimmed."""
    return "".join(character for character in text if character.isprintable()).strip()


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
