"""What a call may not return, because it lives only as long as the call's session."""

from __future__ import annotations

from collections.abc import Iterable
from types import AsyncGeneratorType, CoroutineType, GeneratorType

import sqlalchemy as sa
from sqlalchemy.engine import FilterResult
from sqlalchemy.orm import InstanceState, Query
from sqlalchemy.orm import Session as SQLAlchemySession

__all__ = ["find_bound"]

_PLAIN = frozenset({type(None), bool, int, float, str, bytes})
_BOUND = (
    Query,
    sa.Result,
    FilterResult,
    SQLAlchemySession,
    sa.Connection,
    GeneratorType,
    AsyncGeneratorType,
    CoroutineType,
)


def find_bound(result: object, session: SQLAlchemySession) -> object | None:
    """Return the part of a result that is of no use once the session is closed, or None.

    The result itself and the items of a list, tuple, set, dict or row are looked at,
    and of a collection of rows.
    An object that belongs to another session is left to the owner of that one.
    """
    if type(result) in _PLAIN:
        return None
    parts: Iterable[object] = (result,)
    if isinstance(result, dict):
        parts = result.values()
    elif isinstance(result, (list, tuple, set, frozenset)):
        parts = result
    for part in parts:
        for one in _items(part):
            if type(one) not in _PLAIN and _is_bound(one, session):
                return one
    return None


def _items(part: object) -> Iterable[object]:
    if isinstance(part, sa.Row):
        return part
    return part.values() if isinstance(part, sa.RowMapping) else (part,)


def _is_bound(part: object, session: SQLAlchemySession) -> bool:
    if isinstance(part, _BOUND):
        if isinstance(part, CoroutineType):
            part.close()  # or Python warns, far from here, that it was never awaited
        return True
    # not inspect(): given an engine it would connect
    state = getattr(part, "_sa_instance_state", None)
    return isinstance(state, InstanceState) and state.session in (None, session)
