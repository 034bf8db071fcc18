"""Puts the world's airports into ``main``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import airportsdata
from rich.progress import Progress

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
        present = session.count(Airport)
        if present:
            return present
        rows = list(airport_rows())
        with Progress() as bar:
            task = bar.add_task("Loading airports", total=len(rows))
            return session.bulk_insert(
                Airport, rows, chunk=CHUNK, progress=lambda done: bar.update(task, completed=done)
            )
