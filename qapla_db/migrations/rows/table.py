"""The rows of one table, drawn so that its keys and references hold."""

from __future__ import annotations

import random
from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from qapla_db.migrations.rows.limits import NO_LIMITS, Limits, Maker
from qapla_db.migrations.rows.schema import is_generated, is_nullable, may_be_null
from qapla_db.migrations.rows.values import maker_of

__all__ = ["Draw", "Key", "Row", "unique_sets"]

Row = tuple[Any, ...]
Key = tuple[str, ...]

_NULLS = 0.15
_SPREAD = 1_000
_ROUNDS = 20
_MANY = 1 << 24


class Draw:
    """Draws rows of a table.

    :param table: a reflected one.
    :param rng: where chance comes from.
    :param limits: of its columns, from its CHECKs.
    :param later: references that are set when all rows are there.
    """

    def __init__(
        self,
        table: sa.Table,
        rng: random.Random,
        limits: Mapping[str, Limits],
        later: Collection[sa.ForeignKeyConstraint],
    ) -> None:
        self._rng = rng
        self._unique = unique_sets(table)
        self._single = {names[0] for names in self._unique if len(names) == 1}
        keys = [key for key in table.foreign_key_constraints if key not in later]
        # of references that share columns the widest decides
        self.references = sorted(keys, key=lambda key: (-len(key.columns), tuple(key.column_keys)))
        self._own = {
            element.parent.name: element.column.name
            for key in later
            if key.referred_table is table and not may_be_null(key)
            for element in key.elements
        }
        """Columns that refer to the row itself, and what they refer to."""
        self._later = {column.name for key in later if may_be_null(key) for column in key.columns}
        referring = {column.name for key in self.references for column in key.columns}
        self.columns: list[sa.Column[Any]] = []
        self.without: list[sa.Column[Any]] = []
        """Columns of types that are not known, which must have a value."""
        self.unknown: tuple[str, ...] = ()
        """Columns of types that are not known, which stay NULL."""
        self._makers: dict[str, Maker] = {}
        for column in table.columns:
            name = column.name
            if is_generated(column) and name not in self._own.values():
                continue
            if name not in referring and name not in self._own:
                is_unique = name in self._single
                maker = maker_of(column, limits.get(name, NO_LIMITS), is_unique=is_unique)
                if maker is None:
                    self._leave_out(column)
                    continue
                self._makers[name] = maker
            self.columns.append(column)

    def _leave_out(self, column: sa.Column[Any]) -> None:
        if column.server_default is not None:
            return
        if is_nullable(column):
            self.unknown += (column.name,)
        else:
            self.without.append(column)

    def rows(
        self,
        count: int,
        parents: Mapping[sa.ForeignKeyConstraint, Sequence[Row]],
        taken: Mapping[Key, Collection[Row]],
    ) -> list[Row]:
        """Return up to ``count`` rows, fewer where there are not as many different ones.

        :param parents: for each reference the values that it may have.
        :param taken: for each unique set the values that exist.
        """
        if not self.columns:
            return [()] * count
        names = [column.name for column in self.columns]
        at = {name: number for number, name in enumerate(names)}
        places = {key: [at[name] for name in key] for key in self._unique if set(key) <= set(at)}
        seen = {key: {_hashable(row) for row in taken.get(key, ())} for key in places}
        first = _first_free(taken)
        found: list[Row] = []
        for _ in range(_ROUNDS):
            missing = count - len(found)
            if not missing:
                break
            drawn = self._columns(first, missing, parents)
            first += missing
            rows = list(zip(*(drawn[name] for name in names), strict=True))
            found += _different(rows, places, seen)
        return found

    def _columns(
        self, first: int, count: int, parents: Mapping[sa.ForeignKeyConstraint, Sequence[Row]]
    ) -> dict[str, list[Any]]:
        drawn: dict[str, list[Any]] = {}
        for key in self.references:
            self._refer(key, parents[key], count, drawn)
        for column in self.columns:
            name = column.name
            if name in drawn or name in self._own:
                continue
            if name in self._later and is_nullable(column):
                drawn[name] = [None] * count
                continue
            if name in self._single:
                values = self._makers[name](range(first, first + count))
            else:
                values = self._spread_values(self._makers[name], count)
            drawn[name] = self._with_nulls(values) if is_nullable(column) else values
        for name, own in self._own.items():
            drawn[name] = drawn[own]
        return drawn

    def _spread_values(self, maker: Maker, count: int) -> list[Any]:
        if count >= _SPREAD:
            return self._rng.choices(maker(range(_SPREAD)), k=count)
        return maker(self._rng.choices(range(_SPREAD), k=count))  # no more than are needed

    def _with_nulls(self, values: list[Any]) -> list[Any]:
        chance = self._rng.random
        return [None if chance() < _NULLS else value for value in values]

    def _refer(
        self,
        key: sa.ForeignKeyConstraint,
        parents: Sequence[Row],
        count: int,
        drawn: dict[str, list[Any]],
    ) -> None:
        names = [column.name for column in key.columns]
        chosen = self._chosen(names, parents, count, drawn)
        if may_be_null(key):
            chosen = self._with_nulls(chosen)
        for position, column in enumerate(key.columns):
            if column.name in drawn:
                continue
            values = [None if row is None else row[position] for row in chosen]
            drawn[column.name] = values

    def _chosen(
        self,
        names: list[str],
        parents: Sequence[Row],
        count: int,
        drawn: Mapping[str, list[Any]],
    ) -> list[Any]:
        """Choose a parent for each row; None where there is none."""
        shared = [position for position, name in enumerate(names) if name in drawn]
        if shared:
            by_shared: dict[Row, list[Row]] = {}
            for parent in parents:
                by_shared.setdefault(tuple(parent[at] for at in shared), []).append(parent)
            wanted = zip(*(drawn[names[at]] for at in shared), strict=True)
            return [
                self._rng.choice(fitting) if (fitting := by_shared.get(values)) else None
                for values in wanted
            ]
        if not parents:
            return [None] * count
        if any(set(key) <= set(names) for key in self._unique):
            each = self._rng.sample(parents, min(count, len(parents)))
            return each + [None] * (count - len(each))
        return self._rng.choices(parents, k=count)


def unique_sets(table: sa.Table) -> list[Key]:
    """Return the sets of columns of which no two rows of a table have the same values."""
    found: set[Key] = {tuple(column.name for column in table.primary_key.columns)}
    for constraint in table.constraints:
        if isinstance(constraint, sa.UniqueConstraint):
            found.add(tuple(column.name for column in constraint.columns))
    for index in table.indexes:
        if index.unique:
            found.add(tuple(column.name for column in index.columns))
    return sorted(key for key in found if key)


def _first_free(taken: Mapping[Key, Collection[Row]]) -> int:
    """Return a number from which on no value of a unique set was made yet."""
    first = 1
    for key, rows in taken.items():
        first = max(first, len(rows) + 1)
        if len(key) == 1:
            # a large one says nothing about how many there are
            whole = [row[0] for row in rows if type(row[0]) is int and row[0] < _MANY]
            first = max([first, *(value + 1 for value in whole)])
    return first


def _different(
    rows: list[Row], places: Mapping[Key, Sequence[int]], seen: Mapping[Key, set[Hashable]]
) -> list[Row]:
    """Return the rows that are not there yet; their keys are added to those that are."""
    keys = {key: _keys(rows, columns) for key, columns in places.items()}
    for key, values in keys.items():
        given = [value for value in values if value is not None]
        new = set(given)
        if len(new) < len(given) or not new.isdisjoint(seen[key]):
            return _one_by_one(rows, keys, seen)
    for key, values in keys.items():
        seen[key].update(values)
    return rows


def _one_by_one(
    rows: list[Row], keys: Mapping[Key, list[Hashable]], seen: Mapping[Key, set[Hashable]]
) -> list[Row]:
    found = []
    for at, row in enumerate(rows):
        own = [(key, values[at]) for key, values in keys.items() if values[at] is not None]
        if not any(value in seen[key] for key, value in own):
            for key, value in own:
                seen[key].add(value)
            found.append(row)
    return found


def _keys(rows: list[Row], columns: Sequence[int]) -> list[Hashable]:
    """Return of each row the values of a unique set; None where one of them is NULL."""
    keys = zip(*([row[at] for row in rows] for at in columns), strict=True)
    return [None if None in key else _hashable(key) for key in keys]


def _hashable(row: Row) -> Hashable:
    try:
        hash(row)
    except TypeError:
        return tuple(repr(value) for value in row)
    return row
