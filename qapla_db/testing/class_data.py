"""Rows that all tests of a class see, made once for the class."""

from __future__ import annotations

import copy
import dataclasses
import inspect
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import InstanceState, object_session
from sqlalchemy.orm import Session as SQLAlchemySession

from qapla_db.database import Database
from qapla_db.errors import Misuse
from qapla_db.session import Session
from qapla_db.testing.current import offered

__all__ = ["ClassData", "fill"]

_ARRIVALS = ("pending_to_persistent", "loaded_as_persistent", "detached_to_persistent")


class ClassData:
    """An attribute of a class of tests that holds instances of models.

    Each test gets copies of its own, and without a query: what it does to them is not seen
    by the next one. Copies are in its session where the instances are of the database of
    that session; those of other databases are in no session.

    :param name: of the class and the attribute, for messages.
    :param value: instances, also in lists, tuples, sets, dictionaries, dataclasses and what is
        derived from these. What cannot be copied, such as a lock, is the same for all tests.
    :param strangers: instances of other databases, complete, by the id of the original.
    """

    def __init__(self, name: str, value: Any, strangers: dict[int, Any]) -> None:
        self.name = name
        self.value = value
        self._strangers = strangers

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self.value
        session: Session = instance._qapla_db_request.getfixturevalue("dbsession")

        def copied(one: Any) -> Any:
            if id(one) in self._strangers:
                return _detached(self._strangers[id(one)], f"{owner.__name__}.{self.name}")
            return _merged(one, session, f"{owner.__name__}.{self.name}")

        mine = vars(instance)[self.name] = _rebuilt(self.value, copied)
        return mine


def fill(cls: type, database: Database, make: Callable[[Session], object]) -> None:
    """Let a class of tests make its rows, commit them, and hand its attributes to each test.

    :param make: gets a session; the attributes that it sets on the class are those.
    :raises Misuse: ``make`` is no method of the class.
    """
    if inspect.isfunction(inspect.getattr_static(cls, "set_up_data", None)):
        raise Misuse(
            f"{cls.__name__}.set_up_data runs once for the class and so is a method of it; write "
            "@classmethod above: @classmethod def set_up_data(cls, dbsession)"
        )
    before = dict(vars(cls))
    with _origins() as origins, database.transaction() as session:
        session.expire_on_commit = False
        with offered(database.name, lambda: session):
            make(session)
    for name, value in list(vars(cls).items()):
        if before.get(name) is not value and not _is_handed_through(value):
            strangers = _strangers(value, database, origins, f"{cls.__name__}.{name}")
            setattr(cls, name, ClassData(name, value, strangers))


def _is_handed_through(value: Any) -> bool:
    # functions, properties and the like are what Python makes of them in any class
    return isinstance(value, ClassData | type) or hasattr(type(value), "__get__")


# --- instances, and the databases that they are of


@contextmanager
def _origins() -> Iterator[dict[InstanceState[Any], SQLAlchemySession]]:
    """Note the session that instances came into first, during a block."""
    origins: dict[InstanceState[Any], SQLAlchemySession] = {}

    def arrived(session: SQLAlchemySession, instance: object) -> None:
        origins.setdefault(sa.inspect(instance), session)

    for name in _ARRIVALS:
        event.listen(SQLAlchemySession, name, arrived)
    try:
        yield origins
    finally:
        for name in _ARRIVALS:
            event.remove(SQLAlchemySession, name, arrived)


def _strangers(
    value: Any,
    database: Database,
    origins: dict[InstanceState[Any], SQLAlchemySession],
    where: str,
) -> dict[int, Any]:
    """Return complete copies of the instances that are of another database."""
    found: dict[int, Any] = {}

    def look(one: Any) -> Any:
        state = sa.inspect(one)
        session = origins.get(state) or object_session(one)
        name = session.database_name if isinstance(session, Session) else ""
        if state.key is not None and name != database.name:
            found[id(one)] = _detached(one, where, database.host.dbs.get(name))
        return one

    _rebuilt(value, look)
    return found


def _merged(one: Any, session: SQLAlchemySession, where: str) -> Any:
    """Return the instance of a session for one of another session, without a query."""
    state = sa.inspect(one)
    if state.key is None:
        raise Misuse(
            f"{where} holds a {type(one).__name__} that is no row: set_up_data never added it to "
            "its session, or the session rolled it back; write dbsession.add(...) there, or make "
            "the object in the test"
        )
    known = session.identity_map.get(state.key)
    if known is not None:  # what the test has done to it already stays
        return known
    try:
        return session.merge(one, load=False)
    except sa.exc.InvalidRequestError as error:
        raise Misuse(
            f"{where} holds a {type(one).__name__} that, or one that it refers to, differs from "
            f"its row: it was changed after it had been stored, or was never added; add it to the "
            f"session in set_up_data, and change it before its session ends ({error})"
        ) from error


def _detached(one: Any, where: str, database: Database | None = None) -> Any:
    """Return a copy that is in no session.

    :param database: where to read what the instance does not hold.
    """
    with SQLAlchemySession() if database is None else database.session() as session:
        mine = _merged(one, session, where)
        if database is not None:
            for state in session.identity_map.all_states():
                if state.expired_attributes & set(state.mapper.column_attrs.keys()):
                    session.refresh(state.obj())
        session.expunge_all()
    return mine


# --- what holds instances


def _rebuilt(value: Any, of_instance: Callable[[Any], Any]) -> Any:
    """Copy a value in depth; what cannot be copied is in the copy as it is.

    :param of_instance: returns what takes the place of an instance of a model.
    """
    made: dict[int, Any] = {}

    def copied(one: Any) -> Any:
        if id(one) not in made:
            if isinstance(sa.inspect(one, raiseerr=False), InstanceState):
                made[id(one)] = of_instance(one)
            elif isinstance(one, tuple | frozenset):
                made[id(one)] = _same_type(one, [copied(part) for part in one])
            else:
                made[id(one)] = _shell(one)
                _refill(made[id(one)], one, copied)
        return made[id(one)]

    return copied(value)


def _same_type(one: Any, parts: list[Any]) -> Any:
    if hasattr(one, "_make"):  # a named tuple
        return one._make(parts)
    return type(one)(parts)


def _shell(one: Any) -> Any:
    """Return a copy to be refilled; the thing itself where there can be none."""
    if callable(one):
        return one
    try:
        return copy.copy(one) if _is_container(one) else copy.deepcopy(one)
    except Exception:  # whatever its class raises
        return one


def _is_container(one: Any) -> bool:
    return isinstance(one, dict | list | set | deque | SimpleNamespace) or (
        dataclasses.is_dataclass(one)
    )


def _refill(made: Any, one: Any, copied: Callable[[Any], Any]) -> None:
    if made is one or not _is_container(one):
        return
    if isinstance(one, dict):
        made.clear()
        made.update({copied(key): copied(part) for key, part in one.items()})
    elif isinstance(one, list | deque):
        made.clear()
        made.extend(copied(part) for part in one)
    elif isinstance(one, set):
        made.clear()
        made.update(copied(part) for part in one)
    elif isinstance(one, SimpleNamespace):
        vars(made).update({name: copied(part) for name, part in vars(one).items()})
    else:
        for field in dataclasses.fields(one):
            if hasattr(one, field.name):
                # a frozen one, too
                object.__setattr__(made, field.name, copied(getattr(one, field.name)))
