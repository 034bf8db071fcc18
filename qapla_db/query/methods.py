"""The query interface as methods of a session, for a model or a ``select()``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from sqlalchemy.orm import Session, scoped_session

from qapla_db import query
from qapla_db.query.sql import Query

if TYPE_CHECKING:
    from qapla_db.query import bulk, changing, creating, keyset, pages, reading, streaming

__all__ = ["QueryMethods", "ScopedSession"]

M = TypeVar("M")
S = TypeVar("S", bound=Session)


class _Late:
    """A method whose function is imported when it is first called."""

    def __init__(self, room: str, function: str) -> None:
        self._room = room
        self._function = function

    def __set_name__(self, owner: type, name: str) -> None:
        self._owner = owner
        self._name = name

    def __get__(self, instance: object, owner: type) -> Any:
        function = getattr(getattr(query, self._room), self._function)
        setattr(self._owner, self._name, function)  # from now on it is a plain method
        return getattr(owner if instance is None else instance, self._name)


class QueryMethods:
    """What a session can do beside SQLAlchemy's own, which keeps its meaning.

    ``get_one`` and ``delete`` are SQLAlchemy's.
    """

    if TYPE_CHECKING:
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
    else:
        find = _Late("reading", "find")
        find_all = _Late("reading", "find")
        find_one = _Late("reading", "find_one")
        check_exists = _Late("reading", "check_exists")
        count = _Late("reading", "count")
        get_or_create = _Late("creating", "get_or_create")
        update = _Late("changing", "update")
        upsert = _Late("changing", "upsert")
        bulk_update = _Late("changing", "bulk_update")
        bulk_insert = _Late("bulk", "bulk_insert")
        paginate = _Late("pages", "paginate")
        paginate_keyset = _Late("keyset", "paginate_keyset")
        stream = _Late("streaming", "stream")

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
