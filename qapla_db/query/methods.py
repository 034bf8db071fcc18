"""The query interface as methods of a session, for a model or a ``select()``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from sqlalchemy.orm import Session, scoped_session

from qapla_db.query import bulk, changing, creating, keyset, pages, reading, streaming
from qapla_db.query.sql import Query

__all__ = ["QueryMethods", "ScopedSession"]

M = TypeVar("M")
S = TypeVar("S", bound=Session)


class QueryMethods:
    """What a session can do beside SQLAlchemy's own, which keeps its meaning.

    ``get_one`` and ``delete`` are SQLAlchemy's.
    """

    find = reading.find
    find_all = reading.find
    find_one = reading.find_one
    check_exists = reading.check_exists
    count = reading.count
    get_or_create = creating.get_or_create
    update = changing.update
    upsert = changing.upsert
    bulk_update = changing.bulk_update
    bulk_insert = bulk.bulk_insert
    paginate = pages.paginate
    paginate_keyset = keyset.paginate_keyset
    stream = streaming.stream

    if TYPE_CHECKING:  # SQLAlchemy's, with our Query for what it returns

        @overload
        def query(self) -> Query[Any]: ...

        @overload
        def query(self, entity: type[M], /) -> Query[M]: ...

        @overload
        def query(self, *entities: Any, **options: Any) -> Query[Any]: ...

        def query(self, *entities: Any, **options: Any) -> Query[Any]: ...


class ScopedSession(QueryMethods, scoped_session[S]):  # type: ignore[misc]
    """SQLAlchemy's scoped session, with the query interface.

    ::

        session = ScopedSession(database.get_session)

    Every thread has a session of its own behind it, until ``remove()``.

    :param session_factory: what makes a session.
    :param scopefunc: what tells the scopes apart; the thread where not given.
    """

    def __init__(
        self, session_factory: Callable[[], S], scopefunc: Callable[[], Any] | None = None
    ) -> None:
        super().__init__(cast(Any, session_factory), scopefunc)
