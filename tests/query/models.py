"""Models of the query tests: one of each kind that makes a difference."""

from __future__ import annotations

import datetime
import decimal
import enum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    MappedAsDataclass,
    mapped_column,
    relationship,
    validates,
)


class Base(DeclarativeBase):
    """Base of all of them."""


class Airport(Base):
    """A plain model: a key of its own, a unique field, a field that may be NULL."""

    __tablename__ = "airport"
    id: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[str] = mapped_column(sa.String(8), unique=True)
    name: Mapped[str] = mapped_column(sa.String(80))
    country: Mapped[str | None] = mapped_column(sa.String(2))
    elevation: Mapped[int] = mapped_column(default=0, server_default="0")

    __table_args__ = (sa.CheckConstraint("elevation > -1000", name="elevation_is_possible"),)


class City(Base):
    """A natural key."""

    __tablename__ = "city"
    code: Mapped[str] = mapped_column(sa.String(8), primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(80))
    size: Mapped[int | None]
    streets: Mapped[list[Street]] = relationship(back_populates="city")


class Street(Base):
    """The many side of a relationship."""

    __tablename__ = "street"
    id: Mapped[int] = mapped_column(primary_key=True)
    city_code: Mapped[str] = mapped_column(sa.ForeignKey("city.code"))
    name: Mapped[str] = mapped_column(sa.String(80))
    city: Mapped[City] = relationship(back_populates="streets")


class Leg(Base):
    """A composite key."""

    __tablename__ = "leg"
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    origin: Mapped[str] = mapped_column(sa.String(4), primary_key=True)
    miles: Mapped[int | None]


class Account(Base):
    """Attributes that are named otherwise than their columns, and a unique pair of them."""

    __tablename__ = "account"
    key: Mapped[int] = mapped_column("account_id", primary_key=True)
    tenant: Mapped[int] = mapped_column("tenant_id")
    login: Mapped[str] = mapped_column("user_name", sa.String(40))
    full_name: Mapped[str | None] = mapped_column("name", sa.String(80))
    changes: Mapped[int] = mapped_column("change_count", default=1, onupdate=7)

    __table_args__ = (sa.UniqueConstraint("tenant_id", "user_name", name="one_login_a_tenant"),)


class Point(MappedAsDataclass, Base, kw_only=True):
    """A dataclass."""

    __tablename__ = "point"
    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    x: Mapped[int] = mapped_column(unique=True)
    y: Mapped[int] = mapped_column(default=7)


class User(Base):
    """A constructor of its own, a validator and a hybrid attribute."""

    __tablename__ = "users"
    name: Mapped[str] = mapped_column(sa.String(20), primary_key=True)
    hashed: Mapped[str | None] = mapped_column(sa.String(20))

    def __init__(self, name: str, password: str | None = None) -> None:
        self.name = name
        if password is not None:
            self.password = password

    @hybrid_property
    def password(self) -> str | None:
        """The password, which is stored backwards."""
        return self.hashed[::-1] if self.hashed else None

    @password.inplace.setter
    def _set_password(self, password: str | None) -> None:
        self.hashed = password[::-1] if password else None

    @validates("name")
    def _check_name(self, key: str, name: str) -> str:
        if not name:
            raise ValueError("a user has a name")
        return name


class Animal(Base):
    """Single-table inheritance."""

    __tablename__ = "animal"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(sa.String(10))
    name: Mapped[str] = mapped_column(sa.String(40), unique=True)

    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}


class Dog(Animal):
    """A kind of animal, in the same table."""

    barks: Mapped[bool | None]

    __mapper_args__ = {"polymorphic_identity": "dog"}


class Vehicle(Base):
    """Joined-table inheritance."""

    __tablename__ = "vehicle"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(sa.String(10))
    plate: Mapped[str] = mapped_column(sa.String(10), unique=True)

    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "vehicle"}


class Truck(Vehicle):
    """A kind of vehicle, with a table of its own."""

    __tablename__ = "truck"
    id: Mapped[int] = mapped_column(sa.ForeignKey("vehicle.id"), primary_key=True)
    tons: Mapped[int]

    __mapper_args__ = {"polymorphic_identity": "truck"}


class Colour(enum.Enum):
    """Named values; what is stored is the name."""

    RED = "r"
    GREEN = "g"


class Everything(Base):
    """A column of every usual type, all of which may be NULL."""

    __tablename__ = "everything"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    text: Mapped[str | None] = mapped_column(sa.Text)
    number: Mapped[int | None] = mapped_column(sa.BigInteger)
    real: Mapped[float | None] = mapped_column(sa.Double)
    amount: Mapped[decimal.Decimal | None] = mapped_column(sa.Numeric(20, 4))
    yes: Mapped[bool | None]
    day: Mapped[datetime.date | None]
    moment: Mapped[datetime.datetime | None]
    colour: Mapped[Colour | None] = mapped_column(sa.Enum(Colour))
    data: Mapped[Any | None] = mapped_column(sa.JSON(none_as_null=True))
    blob: Mapped[bytes | None]


class Note(Base):
    """No field is unique but the key, which the database gives."""

    __tablename__ = "note"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(sa.String(40))
    stars: Mapped[int | None]
