"""What is read from the databases and written to them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, delete, or_, select

from qapla_db import Page
from qapla_db.driver import ReadDriver, WriteDriver
from rotarran.application.db import Airport, Event, Neighbour, now

PER_PAGE = 25


class AirportReadDriver(ReadDriver[Airport]):
    """Finds airports."""

    model = Airport

    def search(self, words: str, page: int) -> Page[Airport]:
        """Return one page of the airports that match."""
        return self.paginate(matches(words) if words else None, page=page, per_page=PER_PAGE)

    def positions(self) -> list[tuple[str, float, float]]:
        """Return code, latitude and longitude of every airport."""
        rows = self.session.execute(select(Airport.code, Airport.latitude, Airport.longitude))
        return [(row.code, row.latitude, row.longitude) for row in rows]


class AirportWriteDriver(WriteDriver[Airport]):
    """Changes airports."""

    model = Airport

    def change(self, airport: Airport, values: dict[str, Any]) -> dict[str, Any]:
        """Set values and return those that were others before: field to [old, new]."""
        changed = {
            field: [getattr(airport, field), value]
            for field, value in values.items()
            if getattr(airport, field) != value
        }
        for field in changed:
            setattr(airport, field, values[field])
        self.session.flush()
        return changed


class NeighbourWriteDriver(WriteDriver[Neighbour]):
    """Stores what the task computed."""

    model = Neighbour

    def replace(self, code: str, nearest: dict[str, float]) -> None:
        """Put these neighbours, code to kilometres, in the place of the airport's former ones."""
        at = now()
        # two tasks for one airport: the second waits here for the first
        self.session.get_one(Airport, code, with_for_update=True)
        former = delete(Neighbour).where(Neighbour.airport_code == code)
        self.session.execute(former.where(Neighbour.other_code.not_in(nearest)))
        self.upsert(
            [
                {
                    "airport_code": code,
                    "other_code": other,
                    "distance_km": distance,
                    "computed_at": at,
                }
                for other, distance in nearest.items()
            ],
            by=["airport_code", "other_code"],
        )


class EventReadDriver(ReadDriver[Event]):
    """Reads the audit trail."""

    model = Event

    def latest(self, page: int) -> Page[Event]:
        """Return one page of the events, the newest first."""
        return self.paginate(order_by=["-at", "-id"], page=page, per_page=PER_PAGE)


class EventWriteDriver(WriteDriver[Event]):
    """Adds to the audit trail."""

    model = Event


def matches(words: str) -> ColumnElement[bool]:
    """Return the condition that an airport has these words, or this code."""
    return or_(
        Airport.code == words.upper(),
        Airport.iata == words.upper(),
        Airport.country == words.upper(),
        Airport.name.icontains(words, autoescape=True),
        Airport.city.icontains(words, autoescape=True),
    )
