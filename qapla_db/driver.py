"""Drivers: what reads and what writes one model, apart from each other (CQRS).

A controller asks a driver, never the session: so it can be tested without a
database, and what touches the database stands in one place.
"""

from __future__ import annotations

from typing import Any, ClassVar, Generic, TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import Mapper, Session

from qapla_db.errors import Misuse, NotFound
from qapla_db.query.fields import check_arguments

__all__ = ["ReadDriver", "WriteDriver"]

M = TypeVar("M")


class _Driver(Generic[M]):
    model: ClassVar[type[Any]]
    """The mapped class; every driver sets it."""

    def __init__(self, session: Session) -> None:
        if not isinstance(session, Session):
            raise Misuse(
                f"{type(self).__name__} takes a session, such as request.main, "
                f"not {type(session).__name__}"
            )
        if not isinstance(sa.inspect(getattr(type(self), "model", None), raiseerr=False), Mapper):
            raise Misuse(
                f"{type(self).__name__} has no model; set the mapped class as a class attribute: "
                "model = Airport"
            )
        self.session = session


class ReadDriver(_Driver[M]):
    """Reads one model.

    ::

        class AirportReadDriver(ReadDriver[Airport]):
            model = Airport

    :param session: the session to read with; the driver neither closes nor commits it.
    """

    def get_by_id(self, id: Any) -> M:
        """Return the instance with this primary key.

        :param id: the key; a tuple or a mapping of attribute to value where it is composite.
        :raises NotFound: there is no such row.
        """
        found: M | None = self.session.get(self.model, id)
        if found is None:
            raise NotFound(self.model, id)
        return found

    def list_all(self) -> list[M]:
        """Return every instance, ordered by primary key."""
        mapper = sa.inspect(self.model)
        return list(self.session.scalars(sa.select(self.model).order_by(*mapper.primary_key)))


class WriteDriver(_Driver[M]):
    """Writes one model; the caller commits.

    :param session: the session to write with.
    """

    def create(self, **values: Any) -> M:
        """Make an instance, add it to the session and flush it.

        :param values: arguments of the model's constructor.
        :raises UnknownField: the model has no such attribute.
        """
        check_arguments(self.model, values)
        instance: M = self.model(**values)
        self.session.add(instance)
        self.session.flush()
        return instance
