"""Setting fields of an instance, all of them or none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.mutable import MutableBase
from sqlalchemy.orm import InstanceState, LoaderCallableStatus, Session, make_transient
from sqlalchemy.orm.attributes import set_attribute, set_committed_value
from sqlalchemy.orm.collections import collection_adapter

from qapla_db.query.fields import is_loaded_whole

__all__ = ["all_or_nothing"]


@contextmanager
def all_or_nothing(session: Session, instance: Any, values: Mapping[str, Any]) -> Iterator[None]:
    """Give an instance the fields back that it had, where an error is raised inside.

    So are those given back that are related to it, or are among the values.
    Nothing is flushed by itself meanwhile: half of the fields would be stored.

    :param session: the session that it is in.
    :param instance: the instance.
    :param values: what is going to be set.
    """
    with session.no_autoflush:
        before = _Before(session, instance, values)
        try:
            yield
        except BaseException as error:
            try:
                before.restore()
            except Exception as other:
                error.add_note(f"not every field could be given back what it had: {other!r}")
            raise


class _Before:
    """What an instance was like, and the others that its fields reach."""

    def __init__(self, session: Session, instance: Any, values: Mapping[str, Any]) -> None:
        self._session = session
        self._saved: dict[int, _Saved] = {}
        self._new: Any = None
        self._changed: set[int] | None = None
        state: Any = sa.inspect(instance)
        mapper = state.mapper
        columns, ends = mapper.column_attrs, mapper.relationships
        if ends and any(name not in columns or name in mapper.validators for name in values):
            for end in ends:
                if is_loaded_whole(end) and (end.key in values or end.key in state.committed_state):
                    state.attrs[end.key].load_history()  # to set it reads it too
            given = _objects(values.values())
            others = [other for one in given for other in _related(one, many=False)]
            self._save(_related(instance) + given + others)
            self._new = session.new
            if any(name not in columns and name not in ends for name in values):
                # a setter of the model's own may reach anything
                changed = [*session.dirty, *self._new]
                self._changed = {id(one) for one in changed}
                self._save(one for one in changed if _is_related_anew(one))
        self._save([instance])

    def _save(self, instances: Iterable[Any]) -> None:
        for one in instances:
            if id(one) not in self._saved:
                self._saved[id(one)] = _Saved(self._session, one)

    def restore(self) -> None:
        """Make it so again."""
        changed = self._changed
        if changed is not None:
            for one in self._session.dirty:
                if id(one) not in self._saved:
                    self._saved[id(one)] = saved = _Saved(self._session, one)
                    saved.forget(only_related=id(one) in changed)
        for saved in self._saved.values():
            saved.relate()
        for one in self._session.new if self._new is not None else ():
            if one not in self._new:
                make_transient(one)  # to expunge it would expunge others with it
        for saved in self._saved.values():
            saved.put()


class _Saved:
    """What one instance was like."""

    def __init__(self, session: Session, instance: Any) -> None:
        self._session = session
        self._instance = instance
        self._state: Any = sa.inspect(instance)
        self._was_inside = self._state.session is session
        self._was_modified = self._state.modified
        self._parents = dict(self._state.parents)
        self._changes: dict[str, Any] = dict(self._state.committed_state)
        self._values: dict[str, Any] = dict(self._state.dict)
        self._members = {
            end.key: _objects([self._values[end.key]])
            for end in self._state.mapper.relationships
            if end.uselist and hasattr(self._values.get(end.key), "_sa_adapter")
        }
        self._contents = {
            name: _content(value)
            for name, value in self._values.items()
            if isinstance(value, MutableBase)
        }

    def forget(self, *, only_related: bool) -> None:
        """Take what is stored for what it was like."""
        ends = self._state.mapper.relationships
        self._parents.clear()
        self._was_modified = only_related
        for name in [name for name in self._changes if name in ends or not only_related]:
            del self._changes[name]
            self._values.pop(name, None)
            self._members.pop(name, None)

    def relate(self) -> None:
        """Set relationships back by the events that tell the other sides."""
        loaded, committed = self._state.dict, self._state.committed_state
        for end in self._state.mapper.relationships:
            name = end.key
            if name not in committed or name not in loaded:
                continue
            with suppress(Exception):  # of the model's own code; put() comes after
                if not end.uselist:
                    old = self._values.get(name, committed[name])
                    if old is not loaded[name]:
                        old = None if isinstance(old, LoaderCallableStatus) else old
                        set_attribute(self._instance, name, old)
                elif hasattr(loaded[name], "_sa_adapter"):
                    old = self._members.get(name, _objects([committed[name]]))
                    _change(loaded[name], old)

    def put(self) -> None:
        """Put back whatever is not so yet, without any event."""
        state, mapper = self._state, self._state.mapper
        unknown = []
        for name in {*self._values, *state.dict, *state.committed_state}:
            if name in self._values:
                self._put(name)
            elif name in state.committed_state and name not in self._changes:
                unknown.append(name)
            elif name in state.dict and (name not in mapper.attrs or name in mapper.composites):
                del state.dict[name]
        if unknown and state.persistent and self._was_inside:
            self._session.expire(self._instance, unknown)
        for name in unknown:
            state.dict.pop(name, None)
            state.committed_state.pop(name, None)
        state.parents.clear()
        state.parents.update(self._parents)
        if not self._was_inside and state.session is self._session:
            self._session.expunge(self._instance)
        if not self._was_modified and not state.committed_state:
            # it would be looked at by the next flush, as if something had changed
            state.modified = False
            state._strong_obj = None
            self._session.identity_map._modified.discard(state)

    def _put(self, name: str) -> None:
        value, loaded, committed = self._values[name], self._state.dict, self._state.committed_state
        now = loaded.get(name)
        if name in self._members:
            if now is not value or _ids(_objects([now])) != _ids(self._members[name]):
                set_committed_value(self._instance, name, self._members[name])
        elif now is not value:
            if name not in committed and name in self._state.mapper.column_attrs:
                set_attribute(self._instance, name, value)  # it was flushed
                return
            loaded[name] = value
            if isinstance(now, MutableBase):
                now._parents.pop(self._state, None)
            if isinstance(value, MutableBase):
                value._parents[self._state] = name
        if name in self._contents:
            _refill(value, self._contents[name])
        if name in self._changes:
            committed[name] = self._changes[name]
        else:
            committed.pop(name, None)


def _related(instance: Any, *, many: bool = True) -> list[Any]:
    """Return what an instance is related to, as far as that is loaded."""
    state: Any = sa.inspect(instance)
    ends = [end for end in state.mapper.relationships if many or not end.uselist]
    return _objects(state.dict.get(end.key) for end in ends)


def _is_related_anew(instance: Any) -> bool:
    state: Any = sa.inspect(instance)
    return not state.committed_state.keys().isdisjoint(state.mapper.relationships.keys())


def _objects(values: Iterable[Any]) -> list[Any]:
    """Return the instances among values, and in the collections among them."""
    found: list[Any] = []
    for value in values:
        if getattr(value, "_sa_adapter", None) is not None:
            found += collection_adapter(value)
        elif isinstance(value, Mapping):
            found += value.values()
        elif isinstance(value, list | tuple | set | frozenset):
            found += value
        else:
            found.append(value)
    return [one for one in found if isinstance(sa.inspect(one, raiseerr=False), InstanceState)]


def _change(collection: Any, members: list[Any]) -> None:
    now, adapter = _objects([collection]), collection_adapter(collection)
    old_ids, ids = set(_ids(members)), set(_ids(now))
    for one in now:
        if id(one) not in old_ids:
            adapter.remove_with_event(one)
    for one in members:
        if id(one) not in ids:
            adapter.append_with_event(one)


def _ids(instances: Iterable[Any]) -> list[int]:
    return [id(one) for one in instances]


def _content(value: Any) -> Any:
    """Return what is in a value that may be changed in place."""
    return next((kind(value) for kind in (dict, list, set) if isinstance(value, kind)), None)


def _refill(value: Any, content: Any) -> None:
    if isinstance(content, dict):
        dict.clear(value)
        dict.update(value, content)
    elif isinstance(content, list):
        list.__setitem__(value, slice(None), content)
    elif isinstance(content, set):
        set.clear(value)
        set.update(value, content)
