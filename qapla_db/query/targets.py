"""What a query is put to: the session, and a mapped class or a select of one."""

from __future__ import annotations

from typing import Any, TypeAlias, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.orm import Mapper, Session, scoped_session
from sqlalchemy.orm.util import AliasedInsp

from qapla_db.backends import Backend, get_backend
from qapla_db.errors import Misuse, Unsupported
from qapla_db.query.fields import mapper_read

__all__ = [
    "AnySession",
    "announce_write",
    "backend_of",
    "bind_of",
    "model_of",
    "nulls_sort_last",
    "select_of",
    "session_of",
]

M = TypeVar("M")

AnySession: TypeAlias = Session | scoped_session[Any]

_ENTITIES = (Mapper, AliasedInsp)


def session_of(session: AnySession) -> Session:
    """Return the session itself, also where a scoped session stands before it.

    :raises Misuse: it is no session.
    """
    if isinstance(session, Session):
        return session
    if isinstance(session, scoped_session):
        found: Session = session()
        return found
    raise Misuse(f"a session is needed, such as request.main, not {type(session).__name__}")


def announce_write(session: AnySession, what: str) -> None:
    """Say that rows are about to be written in a way that the session cannot see by itself.

    :param session: the session; one that is none of ours has nothing to be told.
    :param what: what is done, as the end of "it cannot ...": "store rows".
    :raises ReadOnlyError: the session is read-only.
    """
    hook = getattr(session_of(session), "_writes", None)
    if hook is not None:
        hook(what)


def bind_of(session: Session, model: type[Any]) -> Engine | Connection:
    """Return what the session runs the statements of a model on."""
    return session.get_bind(mapper_read(model))


def backend_of(session: Session, model: type[Any]) -> Backend:
    """Return the backend of the database that the session stores a model in.

    :raises Unsupported: there is none for this kind of database.
    """
    name = bind_of(session, model).dialect.name
    backend = get_backend(sa.URL.create(name))
    if backend is None:
        raise Unsupported(
            f"no backend is known for the dialect {name!r}; register one in the entry point "
            "group 'qapla_db.backends'"
        )
    return backend


def nulls_sort_last(session: Session, model: type[Any]) -> bool:
    """Tell whether the database takes a null for the largest value."""
    backend = get_backend(sa.URL.create(bind_of(session, model).dialect.name))
    return backend is not None and backend.nulls_sort_last


def select_of(target: type[M] | sa.Select[*tuple[Any, ...]]) -> sa.Select[Any]:
    """Return a select of the target: a mapped class or an alias of one, or a select already.

    :raises Misuse: it is neither.
    """
    if isinstance(target, sa.Select):
        return target
    mapper_read(target)
    return sa.select(target)


def model_of(target: type[M] | sa.Select[*tuple[Any, ...]]) -> type[M]:
    """Return the mapped class, or the alias of one, that a target selects: the first of several.

    :raises Misuse: a select of no mapped class.
    """
    if not isinstance(target, sa.Select):
        mapper_read(target)
        return target
    for description in target.column_descriptions:
        if isinstance(sa.inspect(description.get("entity"), raiseerr=False), _ENTITIES):
            found: type[M] = description["entity"]
            return found
    raise Misuse(
        "a select of a mapped class or of its columns is needed, such as select(Airport); "
        "this one names none"
    )
