"""Which values a column is compared with, so that a filter means the same on every database.

Servers convert: to MariaDB ``code = 0`` is true of every code that begins with no digit.
"""

from __future__ import annotations

import decimal
import numbers
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import QueryableAttribute
from sqlalchemy.types import TypeEngine

from qapla_db.errors import InvalidArgument

__all__ = ["comparable"]

_NUMBERS = (int, float, decimal.Decimal, numbers.Real)

_TRUTH = (int,)

_Rule = tuple[type[Any], tuple[type[Any], ...], str]

_RULES: tuple[_Rule, ...] = (
    (sa.Enum, (), ""),  # SQLAlchemy checks its values itself
    (sa.String, (str,), "a str"),
    (sa.Integer, _NUMBERS, "a number"),
    (sa.Numeric, _NUMBERS, "a number"),
    (sa.Float, _NUMBERS, "a number"),
    (sa.Boolean, _TRUTH, "True or False"),
)

_PLAIN = (sa.Date, sa.DateTime, sa.Time, sa.Interval, sa.LargeBinary, sa.Uuid)
"""Types whose values are neither mappings nor lists."""


def comparable(field: QueryableAttribute[Any], values: Iterable[Any]) -> list[Any]:
    """Return values as a field can be compared with them in the same way everywhere.

    Types of one's own are left alone, and so are SQL expressions.

    :param field: the attribute of a model.
    :param values: what it is to be compared with; None fits everything.
    :raises InvalidArgument: one is of a type that the column's does not go with.
    """
    kind = getattr(getattr(field, "expression", None), "type", None)
    if isinstance(kind, sa.types.TypeDecorator):
        return list(values)
    allowed, wanted = _rule(kind)
    found = []
    for value in values:
        if value is None or _is_sql(value):
            pass
        elif allowed:
            if not isinstance(value, allowed):
                raise _refusal(field, value, wanted)
            value = _converted(field, value, allowed)
        elif isinstance(value, Iterator):
            raise _refusal(field, value, "a value")
        elif isinstance(kind, _PLAIN) and isinstance(value, Mapping | list | tuple):
            raise _refusal(field, value, "a single value")
        found.append(value)
    return found


def _converted(field: QueryableAttribute[Any], value: Any, allowed: tuple[type[Any], ...]) -> Any:
    # PostgreSQL compares no number with a truth value
    if allowed is _NUMBERS and isinstance(value, bool):
        return int(value)
    if allowed is _TRUTH and not isinstance(value, bool):
        if value not in (0, 1):
            raise _refusal(field, value, "True or False")
        return bool(value)
    return value


def _rule(kind: TypeEngine[Any] | None) -> tuple[tuple[type[Any], ...], str]:
    # a subclass of one's own may convert what it is given
    if kind is None or not type(kind).__module__.startswith("sqlalchemy."):
        return (), ""
    for of, allowed, wanted in _RULES:
        if isinstance(kind, of):
            return allowed, wanted
    return (), ""


def _is_sql(value: Any) -> bool:
    return isinstance(value, sa.ClauseElement) or hasattr(value, "__clause_element__")


def _refusal(field: QueryableAttribute[Any], value: Any, wanted: str) -> InvalidArgument:
    return InvalidArgument(
        f"a filter compares {field} with {wanted}, None or a list of these, not with a value of "
        f"the type {type(value).__name__}; convert it first"
    )
