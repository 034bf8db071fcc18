"""Drivers: what reads and what writes one model, apart from each other (CQRS).

A controller asks a driver, never the session: so it can be tested without a
database, and what touches the database stands in one place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import EllipsisType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, overload

import sqlalchemy as sa
from sqlalchemy.orm import Mapper, Session, scoped_session

from qapla_db import query
from qapla_db.errors import InvalidArgument, Misuse, NotFound
from qapla_db.query import CHUNK
from qapla_db.query.fields import check_arguments

if TYPE_CHECKING:
    from qapla_db.query.changing import Names, Row
    from qapla_db.query.conflicts import OnConflict
    from qapla_db.query.filters import FilterBy, OrderBy
    from qapla_db.query.pages import Page
    from qapla_db.query.targets import AnySession

__all__ = ["ReadDriver", "WriteDriver"]

M = TypeVar("M")

MOST = 1000
"""Rows that a list of all may have unless a limit is named."""


class _Driver(Generic[M]):
    model: ClassVar[type[Any]]
    """The mapped class; every driver sets it."""

    def _checked(self, session: AnySession) -> Session:
        if isinstance(session, scoped_session):
            session = session()
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
        return session


class ReadDriver(_Driver[M]):
    """Reads one model, and refuses what changes data, as far as a select shows it.

    ::

        class AirportReadDriver(ReadDriver[Airport]):
            model = Airport

    It flushes nothing: what the caller has changed and not flushed yet is not
    read. Its ``session`` runs selects, for methods of your own. A ``text()`` that
    writes, or holds a second statement, is refused too, as far as its words show it.
    What a function or an operator of your own does cannot be seen: open the session
    read-only, and the server refuses it.

    :param session: the session to read with; the driver neither closes nor commits it.
    """

    def __init__(self, session: AnySession) -> None:
        self._session = self._checked(session)
        self.session = query.readers.ReadingSession(self._session)

    def get_by_id(self, id: Any) -> M:
        """Return the instance with this primary key; one in the session costs no SQL.

        :param id: the key; a tuple or a mapping of attribute to value where it is composite.
        :raises NotFound: there is no such row.
        """
        found: M | None = self._session.get(self.model, id, execution_options=query.readers.QUIET)
        if found is None:
            raise NotFound(self.model, id)
        return found

    def find_by(self, filter_by: FilterBy = None, **fields: Any) -> M | None:
        """Return the one instance that answers, or None.

        :param filter_by: a mapping of field to value, or an SQL expression.
        :param fields: the same as keywords: ``find_by(code="EPWA")``.
        :raises MultipleFound: several answer.
        :raises UnknownField: a field that the model does not have.
        """
        target: Any = self._select(filter_by).where(*self._clauses(fields))
        with self._session.no_autoflush:
            found: M | None = query.reading.find_one(self._session, target)
        return found

    def list_all(
        self,
        filter_by: FilterBy = None,
        *,
        order_by: OrderBy = None,
        limit: int | EllipsisType | None = ...,
    ) -> list[M]:
        """Return every instance that answers, ordered by primary key if not told otherwise.

        A table grows: above 1000 instances it is an error, unless a limit is named.

        :param filter_by: a mapping of field to value, or an SQL expression.
        :param order_by: fields (``-`` before the descending) or SQL expressions.
        :param limit: return no more than so many; None: all, however many there are.
        :raises InvalidArgument: there are more than 1000 and no limit is named, or the limit
            is no number of rows.
        :raises UnknownField: a field that the model does not have.
        """
        most = MOST + 1 if limit is ... else limit
        if most is not None and (type(most) is not int or most < 0):
            raise InvalidArgument(f"limit is a number of rows, or None for all, not {limit!r}")
        most = None if most is None else min(most, query.paging.LARGEST)
        statement = self._select(filter_by, order_by).limit(most)
        with self._session.no_autoflush:
            found: list[M] = query.reading.find(self._session, statement, paginate=False)
        if limit is ... and len(found) > MOST:
            raise InvalidArgument(
                f"there are more than {MOST} instances of {self.model.__name__}; name a limit, or "
                "limit=None for all of them, or read with paginate() or stream()"
            )
        return found

    def paginate(
        self,
        filter_by: FilterBy = None,
        *,
        order_by: OrderBy = None,
        page: int | str = 1,
        per_page: int | str = 10,
        max_per_page: int = 100,
        count: bool | int = True,
        error_out: bool = False,
    ) -> Page[M]:
        """Return one page; see :func:`qapla_db.query.pages.paginate`.

        :param filter_by: a mapping of field to value, or an SQL expression.
        :param order_by: fields (``-`` before the descending) or SQL expressions.
        """
        statement = self._select(filter_by, order_by).execution_options(**query.readers.QUIET)
        with self._session.no_autoflush:
            return query.pages.paginate(
                self._session,
                statement,
                page=page,
                per_page=per_page,
                max_per_page=max_per_page,
                count=count,
                error_out=error_out,
            )

    def check_exists(self, filter_by: FilterBy = None) -> bool:
        """Tell whether any instance answers a filter."""
        with self._session.no_autoflush:
            return query.reading.check_exists(self._session, self._select(filter_by))

    def count(self, filter_by: FilterBy = None) -> int:
        """Return how many instances answer a filter."""
        with self._session.no_autoflush:
            clauses = self._clauses(filter_by)
            both = sa.and_(*clauses) if clauses else None
            return query.reading.count(self._session, self.model, both)

    def stream(self, filter_by: FilterBy = None, *, chunk: int = 1000) -> Iterator[M]:
        """Yield the instances that answer a filter, with constant memory.

        :param filter_by: a mapping of field to value, or an SQL expression.
        :param chunk: number of rows fetched at a time.
        """
        statement = self._select(filter_by).execution_options(**query.readers.QUIET)
        return query.streaming.stream(self._session, statement, chunk=chunk)

    def _select(self, filter_by: FilterBy, order_by: OrderBy = None) -> sa.Select[Any]:
        statement: sa.Select[Any] = sa.select(self.model).where(*self._clauses(filter_by))
        if order_by is None:
            return statement
        nulls_last = query.targets.nulls_sort_last(self._session, self.model)
        order = query.filters.order_clauses(self.model, order_by, nulls_sort_last=nulls_last)
        query.readers.check_parts(order)
        return statement.order_by(*order)

    def _clauses(self, filter_by: FilterBy) -> list[sa.ColumnElement[bool]]:
        clauses = query.filters.conditions(self.model, filter_by)
        query.readers.check_parts(clauses)
        return clauses


class WriteDriver(_Driver[M]):
    """Writes one model; it flushes, the caller commits.

    :param session: the session to write with.
    """

    def __init__(self, session: AnySession) -> None:
        self.session = self._checked(session)

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

    def update(self, instance: M, values: Row) -> M:
        """Set fields of an instance and flush them.

        :raises UnknownField: the model has no such field; then nothing is set.
        :raises Misuse: the instance is not in this session, or of another model.
        """
        self._check(instance)
        query.changing.update(self.session, instance, values)
        self.session.flush()
        return instance

    def delete(self, instance: M) -> None:
        """Delete an instance and flush that.

        :raises Misuse: the instance is not in this session, or of another model.
        """
        self._check(instance)
        query.changing.delete(self.session, instance)
        self.session.flush()

    def get_or_create(self, filter_by: Mapping[str, Any], **defaults: Any) -> tuple[M, bool]:
        """Return the row with these values, made if it is missing.

        See :func:`qapla_db.query.creating.get_or_create`.
        """
        return query.creating.get_or_create(self.session, self.model, filter_by, **defaults)

    @overload
    def upsert(self, rows: Row, *, by: Names, update: Names | None = None) -> M: ...

    @overload
    def upsert(self, rows: Iterable[Row], *, by: Names, update: Names | None = None) -> int: ...

    def upsert(self, rows: Row | Iterable[Row], *, by: Names, update: Names | None = None) -> Any:
        """Insert rows, and change those that exist.

        See :func:`qapla_db.query.changing.upsert`.
        """
        given: Any = rows
        return query.changing.upsert(self.session, self.model, given, by=by, update=update)

    def bulk_insert(
        self,
        rows: Iterable[Any],
        *,
        on_conflict: OnConflict = "error",
        by: Names | None = None,
        chunk: int = CHUNK,
        progress: Callable[[int], None] | None = None,
    ) -> int:
        """Store many rows; see :func:`qapla_db.query.bulk.bulk_insert`."""
        return query.bulk.bulk_insert(
            self.session,
            self.model,
            rows,
            on_conflict=on_conflict,
            by=by,
            chunk=chunk,
            progress=progress,
        )

    def commit(self) -> None:
        """Commit the session, with all that was done in it."""
        self.session.commit()

    def _check(self, instance: Any) -> None:
        if not isinstance(instance, self.model):
            raise Misuse(
                f"{type(self).__name__} writes {self.model.__name__}, not {type(instance).__name__}"
            )
