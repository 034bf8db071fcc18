"""What is read from the databases and written to them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, delete, func, or_, select

from qapla_db.driver import ReadDriver, WriteDriver
from rotarran.application.db import Airport, Event, Neighbour

PER_PAGE = 25


class AirportReadDriver(ReadDriver[Airport]):
    """Finds airports."""

    model = Airport

    def search(self, words: str, page: int) -> tuple[list[Airport], int]:
        """Return one page of the airports that match, and how many match in all."""
        query = select(Airport)
        if words:
            query = query.where(
                or_(
                    Airport.code == words.upper(),
                    Airport.iata == words.upper(),
                    Airport.country == words.upper(),
                    Airport.name.icontains(words, autoescape=True),
                    Airport.city.icontains(words, autoescape=True),
                )
            )
        counting = query.with_only_columns(func.count(), maintain_column_froms=True)
        total = self.session.scalar(counting) or 0
        return list(self.session.scalars(_page(query.order_by(Airport.code), page))), total

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

    def replace(self, code: str, distances: list[tuple[float, str]]) -> None:
        """Put these neighbours in the place of the airport's former ones."""
        # two tasks for one airport: the second waits here for the first
        self.session.get_one(Airport, code, with_for_update=True)
        self.session.execute(delete(Neighbour).where(Neighbour.airport_code == code))
        for distance, other in distances:
            self.create(airport_code=code, other_code=other, distance=distance)


class EventReadDriver(ReadDriver[Event]):
    """Reads the audit trail."""

    model = Event

    def latest(self, page: int) -> tuple[list[Event], int]:
        """Return one page of the events, the newest first, and how many there are."""
        total = self.session.scalar(select(func.count()).select_from(Event)) or 0
        query = select(Event).order_by(Event.at.desc(), Event.id.desc())
        return list(self.session.scalars(_page(query, page))), total


class EventWriteDriver(WriteDriver[Event]):
    """Adds to the audit trail."""

    model = Event


def _page(query: Select[Any], page: int) -> Select[Any]:
    return query.limit(PER_PAGE).offset((page - 1) * PER_PAGE)
