"""Bringing rows with the same fields together, where nothing depends on their order but a key."""

from __future__ import annotations

import uuid
from bisect import bisect_left
from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from qapla_db.query.keys import other_key

__all__ = ["KeyOrder", "places"]

_MYSQL = frozenset({"mysql", "mariadb"})


class KeyOrder:
    """Tells the rows that meet each other, among which the order matters, by their key.

    :param model: the mapped class.
    :param key: field to column, of the unique key that is meant.
    :param dialect: name of the dialect; what texts are equal to MySQL is not known here.
    """

    def __init__(self, model: type[Any], key: Mapping[str, sa.Column[Any]], dialect: str) -> None:
        self._model = model
        self._key = key
        kinds = {name: _value_type(column) for name, column in key.items()}
        self._types = {name: kind for name, kind in kinds.items() if kind is not None}
        is_told = len(self._types) == len(key)
        self._is_known = is_told and not (dialect in _MYSQL and str in self._types.values())

    def keys(
        self, rows: Sequence[Mapping[str, Any]], given: Collection[sa.Column[Any]]
    ) -> list[Hashable] | None:
        """Return for each row what is equal where two rows meet; None where it cannot be told.

        :param rows: the rows.
        :param given: the columns that they have values for.
        """
        if not self._is_known or other_key(self._model, self._key.values(), given) is not None:
            return None
        found: list[Hashable] = []
        for row in rows:
            values = []
            for name, kind in self._types.items():
                value = row.get(name)
                if type(value) is not kind:
                    return None
                # what a collation, or padding, may make equal is taken for equal
                values.append(value.casefold().strip() if isinstance(value, str) else value)
            found.append(tuple(values))
        return found


def places(kinds: Sequence[Hashable], keys: Sequence[Hashable]) -> list[int]:
    """Return for each row the number of its group: few groups, of one kind each.

    Of rows with one key the later is in the same group or in a later one.
    """
    groups: dict[Hashable, list[int]] = {}
    last: dict[Hashable, int] = {}
    found: list[int] = []
    count = 0
    for kind, key in zip(kinds, keys, strict=True):
        known = groups.setdefault(kind, [])
        at = bisect_left(known, last.get(key, 0))
        if at == len(known):
            known.append(count)
            count += 1
        last[key] = known[at]
        found.append(known[at])
    return found


def _value_type(column: sa.Column[Any]) -> type[Any] | None:
    kind: Any = column.type
    if isinstance(kind, sa.Integer):
        return int
    if isinstance(kind, sa.Uuid) and kind.as_uuid:
        return uuid.UUID
    is_text = isinstance(kind, sa.String) and not isinstance(kind, sa.Enum)
    return str if is_text and kind.collation is None else None
