"""Cells before and after: what is lost, what has changed."""

from __future__ import annotations

import decimal
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from qapla_db.migrations.rehearsal.snapshot import Cells

__all__ = ["Changed", "Difference", "difference"]

Row = tuple[Any, ...]
Pair = tuple[Row, Row]

_SHOWN = 3
_WIDTH = 60
_MIDNIGHT = re.compile(r"[ T]00:00(:00)?$")
_OFFSET = re.compile(r"(?<=\d)(Z|[+-]\d\d(:?\d\d)?)$")
_FRACTION = re.compile(r"\.(\d*?)0+$")


@dataclass
class Changed:
    """The changes of a column: how many, of these to NULL, and some of them."""

    count: int = 0
    to_null: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass
class Difference:
    """What became of the rows of a table.

    :ivar before: how many there were.
    :ivar lost: how many are gone, or without a key are not found as they were.
    :ivar examples: some of these.
    :ivar new: how many are there that were not.
    :ivar changed: by column.
    """

    before: int
    lost: int
    examples: tuple[str, ...]
    new: int
    changed: dict[str, Changed]


def difference(
    before: Cells,
    after: Cells,
    key: Sequence[str],
    kinds: Mapping[str, tuple[Any, Any]],
) -> Difference | None:
    """Compare a table before and after; None where all is the same.

    :param before: all columns.
    :param after: those that are left, by their old names.
    :param key: of the columns that are left those that tell rows apart; none to
        compare whole rows.
    :param kinds: of each column that is left its type before and after.
    """
    if before.columns == after.columns and before.raw == after.raw:
        return None
    at = [before.columns.index(name) for name in after.columns]
    old, new = [tuple(row[place] for place in at) for row in before.rows()], after.rows()
    forms = [_Forms(*kinds[name]) for name in after.columns]
    if not key:
        return _of_whole_rows(old, new, after.columns, forms)
    places = [after.columns.index(name) for name in key]
    pairs, lost, more = _paired(old, new, places, forms)
    changed: dict[str, Changed] = {}
    for place, (name, form) in enumerate(zip(after.columns, forms, strict=True)):
        if place not in places:
            found = _changed(pairs, place, form, lambda row: _shown(row, key, places))
            if found.count:
                changed[name] = found
    if not (lost or more or changed):
        return None
    examples = tuple(_shown(row, key, places) for row in lost[:_SHOWN])
    return Difference(len(old), len(lost), examples, more, changed)


def _paired(
    old: list[Row], new: list[Row], places: Sequence[int], forms: Sequence[_Forms]
) -> tuple[list[Pair], list[Row], int]:
    """Return the rows of one key side by side, those that are gone, and how many are new."""
    old_keys = [tuple(row[place] for place in places) for row in old]
    new_keys = [tuple(row[place] for place in places) for row in new]
    if old_keys == new_keys:
        return list(zip(old, new, strict=True)), [], 0
    old_keys = [tuple(forms[place].old(row[place]) for place in places) for row in old]
    by_key = {tuple(forms[place].new(row[place]) for place in places): row for row in new}
    pairs, lost = [], []
    for key, row in zip(old_keys, old, strict=True):
        found = by_key.get(key)
        if found is None:
            lost.append(row)
        else:
            pairs.append((row, found))
    return pairs, lost, len(new) - len(pairs)


def _changed(
    pairs: Sequence[Pair], place: int, form: _Forms, shown: Callable[[Row], str]
) -> Changed:
    found = Changed()
    for old, new in pairs:
        first, second = old[place], new[place]
        if first == second or form.are_same(first, second):
            continue
        found.count += 1
        found.to_null += second is None
        if len(found.examples) < _SHOWN:
            found.examples.append(f"{shown(old)}: {_both(first, second)}")
    return found


def _of_whole_rows(
    old: list[Row], new: list[Row], columns: Sequence[str], forms: Sequence[_Forms]
) -> Difference | None:
    def count(rows: list[Row], side: str) -> Counter[Row]:
        ways = [getattr(form, side) for form in forms]
        return Counter(
            tuple(way(cell) for way, cell in zip(ways, row, strict=True)) for row in rows
        )

    first, second = count(old, "old"), count(new, "new")
    lost = list((first - second).elements())
    more = (second - first).total()
    if not (lost or more):
        return None
    places = range(len(columns))
    examples = tuple(_shown(row, columns, places) for row in lost[:_SHOWN])
    return Difference(len(old), len(lost), examples, more, {})


class _Forms:
    """Brings the values of a column into a form in which equal ones are equal.

    A number is the same with more decimals or as another type of number, a
    moment that got a time zone (but not one that lost it), JSON with other blanks.
    """

    def __init__(self, before: Any, after: Any) -> None:
        self.old, self.new = _form(before), _form(after)
        if self.old is not self.new and _text in (self.old, self.new):
            self.old = self.new = _text  # what became text is compared as text
        elif getattr(before, "timezone", False) and not getattr(after, "timezone", False):
            self.old = _zoned

    def are_same(self, first: Any, second: Any) -> bool:
        if first is None or second is None:
            return first is second
        return str(first) == str(second) or bool(self.old(first) == self.new(second))


def _form(kind: Any) -> Callable[[Any], Any]:
    if isinstance(kind, (sa.Numeric, sa.Integer, sa.Boolean)):
        return _number
    if isinstance(kind, (sa.DateTime, sa.Date, sa.Time)):
        return _moment
    if isinstance(kind, sa.JSON):
        return _json
    if isinstance(kind, sa.CHAR):
        return _padded
    return _text


def _text(value: Any) -> Any:
    return value if value is None or isinstance(value, bytes) else str(value)


def _padded(value: Any) -> Any:
    return None if value is None else str(value).rstrip(" ")


def _number(value: Any) -> Any:
    text = {"true": "1", "false": "0", "True": "1", "False": "0"}.get(str(value), str(value))
    try:
        return decimal.Decimal(text)
    except decimal.InvalidOperation:
        return value


def _moment(value: Any) -> Any:
    if value is None:
        return None
    text = _OFFSET.sub("", str(value)) if ":" in str(value) else str(value)
    text = _FRACTION.sub(lambda match: f".{match[1]}" if match[1] else "", text)
    return _MIDNIGHT.sub("", text.replace("T", " "))


def _zoned(value: Any) -> Any:
    offset = _OFFSET.search(str(value)) if ":" in str(value) else None
    return f"{_moment(value)}{offset[0]}" if offset else _moment(value)


def _json(value: Any) -> Any:
    if value is None:
        return None
    try:
        return json.dumps(json.loads(value), sort_keys=True)
    except (TypeError, ValueError):
        return str(value)


def _shown(row: Row, names: Sequence[str], places: Sequence[int]) -> str:
    return ", ".join(
        f"{name}={_value(row[place])}" for name, place in zip(names, places, strict=True)
    )


def _value(value: Any) -> str:
    if value is None:
        return "NULL"
    text = str(value)
    if isinstance(value, bytes) or not text.strip() or text.strip() != text:
        text = repr(value)
    return f"{text[:_WIDTH]}..." if len(text) > _WIDTH else text


def _both(first: Any, second: Any) -> str:
    before, after = _value(first), _value(second)
    if before == after or before.removesuffix("...") == after:  # they differ further on
        before, after = (
            f"{text} ({len(str(value))} characters)"
            for text, value in ((before, first), (after, second))
        )
    return f"{before} -> {after}"
