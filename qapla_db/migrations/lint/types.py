"""Whether a column can get another type without its table being written anew."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeEngine

from qapla_db.migrations.lint.rules import family

__all__ = ["is_harmless"]

Type = TypeEngine[object]

_SHORT = 255
"""Bytes that MySQL stores with a length of one byte."""
_BYTES = 4
"""Bytes of a character of utf8mb4, at most."""


def is_harmless(dialect: Dialect, before: Type | None, after: Type) -> bool:
    """Tell whether a change of type costs no more than a moment, and loses nothing.

    :param before: the type that the column has; None when the revision does not say.
    """
    if before is None:
        return False
    before, after = before.dialect_impl(dialect), after.dialect_impl(dialect)
    if before.compile(dialect) == after.compile(dialect):
        return True
    return {"postgresql": _postgresql, "mysql": _mysql, "others": _others}[family(dialect.name)](
        before, after, dialect
    )


def _postgresql(before: Type, after: Type, _: Dialect) -> bool:
    if _is_varchar(before) and _is_varchar(after):
        return _is_as_long(before, after)
    if _is_decimal(before) and _is_decimal(after):
        assert isinstance(before, sa.Numeric)
        assert isinstance(after, sa.Numeric)
        if after.precision is None:
            return after.scale is None
        same_scale = before.scale == after.scale
        return same_scale and before.precision is not None and after.precision >= before.precision
    return False


def _mysql(before: Type, after: Type, _: Dialect) -> bool:
    if isinstance(before, sa.Enum) and isinstance(after, sa.Enum):
        is_appended = list(after.enums[: len(before.enums)]) == list(before.enums)
        return is_appended and len(after.enums) <= _SHORT
    if not (_is_varchar(before) and _is_varchar(after)):
        return False
    assert isinstance(before, sa.String)
    assert isinstance(after, sa.String)
    if before.length is None or after.length is None or after.length < before.length:
        return False
    return before.length * _BYTES > _SHORT or after.length * _BYTES <= _SHORT


def _others(before: Type, after: Type, dialect: Dialect) -> bool:
    kind, other = _affinity(before.compile(dialect)), _affinity(after.compile(dialect))
    return kind == other or other == "text" or (kind == "integer" and other in ("real", "numeric"))


def _is_varchar(one: Type) -> bool:
    return isinstance(one, sa.String) and not isinstance(one, sa.Enum | sa.CHAR | sa.NCHAR)


def _is_as_long(before: Type, after: Type) -> bool:
    assert isinstance(before, sa.String)
    assert isinstance(after, sa.String)
    if after.length is None:
        return True
    return before.length is not None and after.length >= before.length


def _is_decimal(one: Type) -> bool:
    return isinstance(one, sa.Numeric) and not isinstance(one, sa.Float)


def _affinity(type_: str) -> str:
    """Return what a type is in SQLite (https://sqlite.org/datatype3.html, 3.1)."""
    name = type_.upper()
    for kind, words in {
        "integer": ("INT",),
        "text": ("CHAR", "CLOB", "TEXT"),
        "blob": ("BLOB",),
        "real": ("REAL", "FLOA", "DOUB"),
    }.items():
        if any(word in name for word in words):
            return kind
    return "numeric"
