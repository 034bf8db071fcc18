"""What an update of an instance that fails leaves behind: nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.associationproxy import AssociationProxy, association_proxy
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.ext.mutable import MutableDict
from sqlalchemy.orm import (
    DeclarativeBase,
    DynamicMapped,
    Mapped,
    WriteOnlyMapped,
    mapped_column,
    object_session,
    relationship,
    validates,
)

from qapla_db import Database, Session
from qapla_db.errors import InvalidArgument
from qapla_db.query.changing import update


class Base(DeclarativeBase):
    """Base of the models here."""


class Fleet(Base):
    """Relationships of every kind, and setters that reach them."""

    __tablename__ = "fleet"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    data: Mapped[dict[str, Any]] = mapped_column(MutableDict.as_mutable(sa.JSON), default=dict)
    ships: Mapped[list[Ship]] = relationship(back_populates="fleet", order_by="Ship.id")
    flagship: Mapped[Flagship | None] = relationship(back_populates="fleet")
    orders: Mapped[list[Order]] = relationship(cascade="all, delete-orphan")
    crews: DynamicMapped[Crew] = relationship(foreign_keys="Crew.fleet_id")
    others: WriteOnlyMapped[Crew] = relationship(overlaps="crews", foreign_keys="Crew.fleet_id")
    ship_names: AssociationProxy[list[str]] = association_proxy(
        "ships", "name", creator=lambda name: Ship(name=name)
    )

    @hybrid_property
    def ship_ids(self) -> list[int]:
        """The ships, which may be of another fleet, by their keys."""
        return [ship.id for ship in self.ships]

    @ship_ids.inplace.setter
    def _set_ship_ids(self, keys: list[int]) -> None:
        session = object_session(self)
        assert session is not None
        self.ships = [session.get_one(Ship, key) for key in keys]

    @hybrid_property
    def motto(self) -> str | None:
        """A value inside of another one."""
        return self.data.get("motto")

    @motto.inplace.setter
    def _set_motto(self, motto: str | None) -> None:
        self.data["motto"] = motto

    @validates("name")
    def _check_name(self, key: str, name: str) -> str:
        if name == "bad":
            raise ValueError("no such name")
        return name


class Ship(Base):
    """A member of a collection that knows where it is."""

    __tablename__ = "ship"
    id: Mapped[int] = mapped_column(primary_key=True)
    fleet_id: Mapped[int | None] = mapped_column(sa.ForeignKey("fleet.id"))
    name: Mapped[str | None]
    fleet: Mapped[Fleet | None] = relationship(back_populates="ships")

    @validates("name")
    def _check_name(self, key: str, name: str) -> str:
        if name == "bad":
            raise ValueError("no such name")
        return name


class Flagship(Base):
    """The only one."""

    __tablename__ = "flagship"
    id: Mapped[int] = mapped_column(primary_key=True)
    fleet_id: Mapped[int | None] = mapped_column(sa.ForeignKey("fleet.id"))
    fleet: Mapped[Fleet | None] = relationship(back_populates="flagship")


class Order(Base):
    """A member that is deleted when it is taken out, and knows of no fleet."""

    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    fleet_id: Mapped[int | None] = mapped_column(sa.ForeignKey("fleet.id"))
    text: Mapped[str | None]


class Crew(Base):
    """A member of a collection that is never loaded."""

    __tablename__ = "crew"
    id: Mapped[int] = mapped_column(primary_key=True)
    fleet_id: Mapped[int | None] = mapped_column(sa.ForeignKey("fleet.id"))


@pytest.fixture
def session(memory: Database) -> Iterator[Session]:
    """A session in which two fleets are stored, and nothing is loaded."""
    Base.metadata.create_all(memory.engine)
    with memory.session() as session:
        session.add_all(
            [
                Fleet(id=1, name="one", data={"motto": "a"}, flagship=Flagship(id=1)),
                Fleet(id=2, name="two", flagship=Flagship(id=2)),
                Ship(id=1, fleet_id=1),
                Ship(id=2, fleet_id=1),
                Ship(id=3, fleet_id=2),
                Ship(id=4),
                Order(id=1, fleet_id=1),
                Order(id=2, fleet_id=2),
            ]
        )
        session.commit()
        yield session


def stored(session: Session) -> dict[str, list[Any]]:
    """All that is in the tables, once what is pending is stored."""
    session.flush()
    tables = Base.metadata.sorted_tables
    return {
        one.name: list(session.connection().execute(sa.select(one).order_by(one.c.id)))
        for one in tables
    }


def load(session: Session) -> list[Any]:
    """Load everything, and both ends of what is related."""
    fleets, ships = session.scalars(sa.select(Fleet)).all(), session.scalars(sa.select(Ship)).all()
    ends = [(fleet.ships, fleet.flagship, fleet.orders) for fleet in fleets]
    return [ends, ships, [ship.fleet for ship in ships]]


def fail(session: Session, values: Callable[[Session], dict[str, Any]]) -> None:
    """Set fields of the first fleet, the last one of which is refused."""
    with pytest.raises(ValueError, match="no such name") as caught:
        update(session, session.get_one(Fleet, 1), {**values(session), "name": "bad"})
    assert not hasattr(caught.value, "__notes__")


CHANGES: dict[str, Callable[[Session], dict[str, Any]]] = {
    "new one": lambda session: {"ships": [Ship(id=9)]},
    "none": lambda session: {"ships": [], "flagship": None, "orders": []},
    "taken": lambda session: {"ships": [session.get_one(Ship, 3), Ship(id=9)]},
    "taken single": lambda session: {"flagship": session.get_one(Flagship, 2)},
    "taken without a way back": lambda session: {"orders": [session.get_one(Order, 2)]},
    "proxy": lambda session: {"ship_names": ["x", "y"]},
    "setter takes": lambda session: {"ship_ids": [2, 3]},
    "setter takes and loses": lambda session: {"ship_ids": [3], "ships": []},
    "setter changes in place": lambda session: {"motto": "b"},
}


@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_nothing_of_it_is_stored(session: Session, change: str, loaded: bool) -> None:
    """Whatever the fields reach is stored as before, and seen as before."""
    before = stored(session)
    kept = load(session) if loaded else None
    fail(session, CHANGES[change])
    ships = [[ship.id for ship in session.get_one(Fleet, key).ships] for key in (1, 2)]
    assert [[1, 2], [3]] == ships
    assert 2 == session.get_one(Ship, 3).fleet.id  # type: ignore[union-attr]
    assert {"motto": "a"} == session.get_one(Fleet, 1).data
    assert before == stored(session)
    for order in session.scalars(sa.select(Order)):
        order.text = "x"  # one that is taken for an orphan would be deleted now
    session.flush()
    assert 2 == session.scalar(sa.select(sa.func.count()).select_from(Order))
    assert kept is None or [ship.id for ship in kept[1]] == [1, 2, 3, 4]


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_pending_is_stored(session: Session, change: str) -> None:
    """What the caller had changed before, on either side of a relationship, is not undone."""
    with session.no_autoflush:
        session.get_one(Ship, 3).fleet = session.get_one(Fleet, 1)
        session.get_one(Ship, 2).fleet = session.get_one(Fleet, 2)
        session.get_one(Ship, 4).fleet = session.get_one(Fleet, 2)
        session.get_one(Fleet, 2).ships.append(Ship(id=8))
        session.get_one(Fleet, 1).data["since"] = 2370
        fail(session, CHANGES[change])
        found = stored(session)
    assert [(1, 1), (2, 2), (3, 1), (4, 2), (8, 2)] == [one[:2] for one in found["ship"]]
    assert {"motto": "a", "since": 2370} == found["fleet"][0].data
    assert [(1, 1), (2, 2)] == [one[:2] for one in found["flagship"]]
    assert [(1, 1), (2, 2)] == [one[:2] for one in found["orders"]]


def test_the_other_end(session: Session) -> None:
    """A member that fails to move leaves those that have moved before where they are."""
    target = session.get_one(Fleet, 2)
    with session.no_autoflush:
        update(session, session.get_one(Ship, 1), {"fleet": target, "name": "x"})
        with pytest.raises(ValueError):
            update(session, session.get_one(Ship, 2), {"fleet": target, "name": "bad"})
    assert [2, 1, 2, None] == [one.fleet_id for one in stored(session)["ship"]]


def test_collections_that_are_never_loaded(session: Session) -> None:
    """They could not be given back, so they are refused, and nothing is set."""
    fleet = session.get_one(Fleet, 1)
    for name in ("crews", "others"):
        with pytest.raises(InvalidArgument, match=rf"Fleet\.{name} is a collection that is never"):
            update(session, fleet, {"motto": "b", name: [Crew(id=1)]})
    assert ("a", []) == (fleet.motto, stored(session)["crew"])
