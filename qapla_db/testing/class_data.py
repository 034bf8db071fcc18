"""Rows that all tests of a class see, made once for the class."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import InstanceState

from qapla_db.database import Database
from qapla_db.session import Session
from qapla_db.testing.current import offered

__all__ = ["ClassData", "fill"]


class ClassData:
    """An attribute of a class of tests that holds instances of models.

    Each test gets copies of its own, in its session, and without a query: what it does to
    them is not seen by the next one.

    :param value: instances, or lists, tuples, sets and dictionaries of them.
    """

    def __init__(self, name: str, value: Any) -> None:
        self.name = name
        self.value = value

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self.value
        session: Session = instance._qapla_db_request.getfixturevalue("dbsession")
        mine = vars(instance)[self.name] = _copied(self.value, session)
        return mine


def fill(cls: type, database: Database, make: Callable[[Session], object]) -> None:
    """Let a class of tests make its rows, commit them, and hand its attributes to each test.

    :param make: gets a session; the attributes that it sets on the class are those.
    """
    before = dict(vars(cls))
    with database.transaction() as session:
        session.expire_on_commit = False
        with offered(database.name, lambda: session):
            make(session)
    for name, value in list(vars(cls).items()):
        if before.get(name) is not value and not isinstance(value, ClassData):
            setattr(cls, name, ClassData(name, value))


def _copied(value: Any, session: Session) -> Any:
    state = sa.inspect(value, raiseerr=False)
    if isinstance(state, InstanceState):
        # what the test has done to it already stays
        known = session.identity_map.get(state.key) if state.key else None
        return known if known is not None else session.merge(value, load=False)
    if isinstance(value, dict):
        return {_copied(key, session): _copied(one, session) for key, one in value.items()}
    if type(value) in (list, tuple, set, frozenset):
        return type(value)(_copied(one, session) for one in value)
    return copy.deepcopy(value)
