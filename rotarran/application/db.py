"""The models: one Base for each database."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    JSON,
    CheckConstraint,
    DateTime,
    Dialect,
    Double,
    Enum,
    ForeignKey,
    Index,
    MetaData,
    String,
    TypeDecorator,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

# named constraints can be changed by a migration on every kind of database
CONVENTION = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


def now() -> datetime:
    """Return the time, in UTC."""
    return datetime.now(UTC)


class Feet(TypeDecorator[float]):
    """A height in feet, as pilots read it, which the database has in metres."""

    impl = Double
    cache_ok = True
    METRES = 0.3048

    def process_bind_param(self, value: float | None, dialect: Dialect) -> float | None:
        """Return metres."""
        return None if value is None else value * self.METRES

    def process_result_value(self, value: float | None, dialect: Dialect) -> float | None:
        """Return feet, without the noise of the conversion."""
        return None if value is None else round(value / self.METRES, 6)


class Origin(StrEnum):
    """Where somebody did something."""

    WEB = "web"
    WORKER = "worker"
    COMMAND = "command"


class Model(DeclarativeBase):
    """Base of the models in ``main``."""

    metadata = MetaData(naming_convention=CONVENTION)


class AuditModel(DeclarativeBase):
    """Base of the models in ``audit``."""

    metadata = MetaData(naming_convention=CONVENTION)


class Airport(Model):
    """A landing place with an ICAO code."""

    __tablename__ = "airport"
    __table_args__ = (
        CheckConstraint("latitude BETWEEN -90 AND 90", name="latitude"),
        CheckConstraint("longitude BETWEEN -180 AND 180", name="longitude"),
    )

    code: Mapped[str] = mapped_column(String(4), primary_key=True)
    iata: Mapped[str] = mapped_column(String(3), server_default="", index=True)
    name: Mapped[str] = mapped_column(String(120), index=True)
    city: Mapped[str] = mapped_column(String(120), server_default="", index=True)
    country: Mapped[str] = mapped_column(String(2), index=True)
    elevation: Mapped[float] = mapped_column(Feet, server_default=text("0"))
    latitude: Mapped[float] = mapped_column(Double)
    longitude: Mapped[float] = mapped_column(Double)
    timezone: Mapped[str] = mapped_column(String(64), server_default="")
    version: Mapped[int] = mapped_column(server_default=text("1"))

    neighbours: Mapped[list[Neighbour]] = relationship(
        order_by="Neighbour.distance_km", foreign_keys="Neighbour.airport_code", viewonly=True
    )

    # two people who edit one airport at once: the second is told, nothing is lost
    __mapper_args__ = {"version_id_col": version}


class Neighbour(Model):
    """One of the airports nearest to another, as a task computed it."""

    __tablename__ = "neighbour"
    __table_args__ = (Index("ix_neighbour_airport_code_distance", "airport_code", "distance_km"),)

    airport_code: Mapped[str] = mapped_column(
        ForeignKey("airport.code", ondelete="CASCADE"), primary_key=True
    )
    other_code: Mapped[str] = mapped_column(
        ForeignKey("airport.code", ondelete="CASCADE"), primary_key=True
    )
    distance_km: Mapped[float] = mapped_column(Double, doc="along the great circle")
    computed_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=now)

    other: Mapped[Airport] = relationship(foreign_keys=[other_code], lazy="joined")


class Event(AuditModel):
    """Somebody did something."""

    __tablename__ = "event"

    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=now, index=True)
    who: Mapped[str] = mapped_column(String(80))
    action: Mapped[str] = mapped_column(String(40))
    airport_code: Mapped[str] = mapped_column(String(4), index=True)
    origin: Mapped[Origin] = mapped_column(
        Enum(Origin, name="origin", length=10, values_callable=list), server_default=Origin.WEB
    )
    details: Mapped[dict[str, Any]] = mapped_column(JSON, server_default=text("'{}'"))
