"""Setting fields of an instance, all of them or none."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.mutable import MutableBase
from sqlalchemy.orm import LoaderCallableStatus, Session
from sqlalchemy.orm.attributes import set_attribute
from sqlalchemy.orm.collections import collection_adapter

__all__ = ["all_or_nothing"]


@contextmanager
def all_or_nothing(session: Session, instance: Any, names: Collection[str]) -> Iterator[None]:
    """Give an instance the fields back that it had, where an error is raised inside.

    Nothing is flushed by itself meanwhile: half of the fields would be stored.

    :param session: the session that it is in.
    :param instance: the instance.
    :param names: the fields that are going to be set.
    """
    with session.no_autoflush:
        before = _Before(session, instance, names)
        try:
            yield
        except BaseException:
            before.restore()
            raise


class _Before:
    """What an instance was like."""

    def __init__(self, session: Session, instance: Any, names: Collection[str]) -> None:
        self._session = session
        self._instance = instance
        self._state: Any = sa.inspect(instance)
        self._values: dict[str, Any] = dict(self._state.dict)
        self._changes: dict[str, Any] = dict(self._state.committed_state)
        self._was_modified = self._state.modified
        self._new = set(session.new)
        related = self._state.mapper.relationships
        self._collections = {
            name: _copied(self._values.get(name))
            for name in names
            if name in related and related[name].uselist
        }
        self._references = [name for name in names if name in related and not related[name].uselist]

    def restore(self) -> None:
        """Make it so again."""
        mapper = self._state.mapper
        for name in (*self._references, *self._collections):
            if name in self._state.committed_state:
                self._relate(name)
        for name in {*self._values, *self._state.dict} - self._collections.keys():
            if name in self._values:
                self._put(name)
            elif name not in mapper.attrs or name in mapper.composites:
                del self._state.dict[name]
            elif name in self._state.committed_state:
                self._forget(name)
        if not self._was_modified and not self._state.committed_state:
            # it would be looked at by the next flush, as if something had changed
            self._state.modified = False
            self._state._strong_obj = None
            self._session.identity_map._modified.discard(self._state)

    def _relate(self, name: str) -> None:
        """Set a relationship back, by the events that tell the other side."""
        given = self._state.dict.get(name)
        if name in self._collections:
            old = self._collections[name]
            others = [] if given is None else list(collection_adapter(given))
        else:
            old = self._values.get(name, self._state.committed_state[name])
            others = [given]
        with suppress(Exception):  # of the model's own code; the error that led here counts
            set_attribute(self._instance, name, _none_or(old))
        if name not in self._changes:
            self._state.committed_state.pop(name, None)
        for other in others:
            if other in self._session.new and other not in self._new:
                self._session.expunge(other)

    def _put(self, name: str) -> None:
        now, value = self._state.dict.get(name), self._values[name]
        committed = self._state.committed_state
        if now is not value and name not in committed and name in self._state.mapper.column_attrs:
            set_attribute(self._instance, name, value)  # it was flushed
            return
        self._state.dict[name] = value
        if name in self._changes:
            committed[name] = self._changes[name]
        else:
            committed.pop(name, None)
        if now is not value:
            if isinstance(now, MutableBase):
                now._parents.pop(self._state, None)
            if isinstance(value, MutableBase):
                value._parents[self._state] = name

    def _forget(self, name: str) -> None:
        original = self._state.committed_state.pop(name)
        del self._state.dict[name]
        if name not in self._state.mapper.column_attrs:
            return
        if not isinstance(original, LoaderCallableStatus):
            self._state.dict[name] = original
        elif self._state.persistent:
            self._session.expire(self._instance, [name])


def _copied(collection: Any) -> Any:
    if collection is None:
        return []
    if isinstance(collection, Mapping):
        return dict(collection)
    members = list(collection_adapter(collection))
    return set(members) if isinstance(collection, set) else members


def _none_or(value: Any) -> Any:
    return None if isinstance(value, LoaderCallableStatus) else value
