"""Tokens of keyset pages: a position in an order, as text that goes through a URL.

A token is not signed. All that a client can do with one is to choose a position;
what it selects from, and in which order, is not in it.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import enum
import json
import math
import re
import uuid
from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.sql.sqltypes import _AbstractInterval
from sqlalchemy.types import TypeDecorator, TypeEngine

from qapla_db.errors import InvalidArgument, InvalidToken

__all__ = ["LONGEST", "Kind", "Position", "decode", "encode", "kind_of"]

LONGEST = 4096
"""Characters of the longest token."""

_VERSION = 1
_FARTHEST = dt.timedelta(hours=16)
_EPOCH = dt.datetime(1970, 1, 1)
_ALPHABET = re.compile(r"[A-Za-z0-9_-]+")


class Position(NamedTuple):
    """Where a page begins or ends."""

    values: tuple[Any, ...]
    """What the row at the position has in each part of the order."""
    inclusive: bool = False
    """Whether that row is on the page."""
    tied: bool = False
    """Whether the rows around it are the same in the leading part of the order."""


class Kind(NamedTuple):
    """How values of a type are read, kept in a token and compared."""

    type: TypeEngine[Any]
    """What the values are bound with."""
    dump: Callable[[Any], Any]
    """Makes a value ready for JSON."""
    load: Callable[[Any], Any]
    """Makes a value of what JSON held; raises ValueError for any other type."""
    cast: bool = False
    """Whether the database has to convert before it hands out a value, to keep it exact."""


def encode(position: Position, kinds: Sequence[Kind], fingerprint: str) -> str:
    """Return the token of a position.

    :raises InvalidArgument: it would be too long.
    """
    values = [
        None if value is None else kind.dump(value)
        for value, kind in zip(position.values, kinds, strict=True)
    ]
    flags = position.inclusive + 2 * position.tied
    text = json.dumps([_VERSION, fingerprint, flags, values], separators=(",", ":"))
    token = base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
    if len(token) > LONGEST:
        raise InvalidArgument(
            f"a value that these rows are ordered by is too long for a token of {LONGEST} "
            "characters; order by something shorter, such as func.substr(Airport.name, 1, 100)"
        )
    return token


def decode(token: Any, kinds: Sequence[Kind], fingerprint: str) -> Position:
    """Return the position of a token.

    :raises InvalidToken: it is malformed, or belongs to another order.
    """
    version, known, flags, values = _parts(token)
    if version != _VERSION or isinstance(version, bool):
        raise InvalidToken("this token of a keyset page is of another version; begin again")
    if known != fingerprint:
        raise InvalidToken("this token belongs to another order or model; begin again without it")
    if type(flags) is not int or not 0 <= flags < 4 or not isinstance(values, list):
        raise _malformed()
    if len(values) != len(kinds):
        raise _malformed()
    try:
        loaded = tuple(
            None if value is None else kind.load(value)
            for value, kind in zip(values, kinds, strict=True)
        )
    except (ValueError, TypeError, KeyError, OverflowError, InvalidOperation) as error:
        raise _malformed() from error
    return Position(loaded, inclusive=bool(flags & 1), tied=bool(flags & 2))


def _parts(token: Any) -> tuple[Any, ...]:
    if not isinstance(token, str) or len(token) > LONGEST or not _ALPHABET.fullmatch(token):
        raise _malformed()
    try:
        text = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode()
        parts = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError, binascii.Error) as error:
        raise _malformed() from error
    if not isinstance(parts, list) or len(parts) != 4:
        raise _malformed()
    return tuple(parts)


def _malformed() -> InvalidToken:
    return InvalidToken(
        "this is no token of a keyset page, or a damaged one; begin again without it"
    )


def _refuse(value: Any) -> Any:
    raise ValueError(value)


def kind_of(type_: TypeEngine[Any], dialect: Dialect) -> Kind:
    """Return how values of a type are kept in tokens.

    :param type_: the type of what is ordered by.
    :param dialect: the dialect of the database.
    :raises InvalidArgument: values of this type have no order, or the type is not known.
    """
    found: Any = type_.dialect_impl(dialect)
    plain = type_
    while isinstance(found, TypeDecorator) and not isinstance(found, sa.Interval):
        # what a decorator makes of a value is for Python; the database orders what is stored
        found = plain = found.impl_instance
    if found.__visit_name__ == "float":
        return _float(plain, found, dialect.name)  # psycopg's is no sa.Float in SQLAlchemy 2.0
    for classes, make in _KINDS:
        if isinstance(found, classes):
            return make(plain, found, dialect.name)
    if isinstance(found, sa.types.NullType):
        raise InvalidArgument(
            "the type of an expression in order_by is not known; say it, as in "
            "type_coerce(func.soundex(Airport.name), String)"
        )
    raise InvalidArgument(
        f"values of the type {found!r} cannot be kept in a token of a keyset page"
    )


def _exactly(cls: type[Any]) -> Callable[[Any], Any]:
    def load(value: Any) -> Any:
        return value if type(value) is cls else _refuse(value)

    return load


def _text(parse: Callable[[str], Any]) -> Callable[[Any], Any]:
    return lambda value: parse(value) if isinstance(value, str) else _refuse(value)


def _boolean(plain: Any, found: Any, dialect: str) -> Kind:
    return Kind(plain, bool, _exactly(bool))


def _integer(plain: Any, found: Any, dialect: str) -> Kind:
    # wider than the column may be: what is added up or counted has its type too
    highest = 2**64 if dialect in ("mysql", "mariadb") else 2**63

    def load(value: Any) -> Any:
        return value if type(value) is int and -(2**63) <= value < highest else _refuse(value)

    return Kind(sa.BigInteger(), int, load)


def _float(plain: Any, found: Any, dialect: str) -> Kind:
    special = {"postgresql": {"nan", "inf", "-inf"}, "sqlite": {"inf", "-inf"}}.get(dialect, set())

    def load(value: str) -> Any:
        number = float(value)
        return number if math.isfinite(number) or repr(number) in special else _refuse(value)

    # a column of single precision is widened: as text it would come back as another number
    return Kind(sa.Double(), lambda value: repr(float(value)), _text(load), dialect != "sqlite")


def _decimal(plain: Any, found: Any, dialect: str) -> Kind:
    if dialect == "sqlite":
        return _float(plain, found, dialect)  # as which it is stored
    special = {"NaN", "Infinity", "-Infinity"} if dialect == "postgresql" else set()

    def load(value: str) -> Any:
        number = Decimal(value)
        if not number.is_finite():
            return number if str(number) in special else _refuse(value)
        return number if abs(number.adjusted()) <= 300 else _refuse(value)

    return Kind(sa.Numeric(), str, _text(load))


def _string(plain: Any, found: Any, dialect: str) -> Kind:
    def load(value: str) -> str:
        value.encode()  # no half of a surrogate pair
        return _refuse(value) if dialect == "postgresql" and "\0" in value else value

    return Kind(plain, str, _text(load))


def _enum(plain: Any, found: Any, dialect: str) -> Kind:
    names = plain.enum_class if getattr(plain, "enum_class", None) else None

    def load(value: str) -> Any:
        if names is not None:
            return names[value]
        return value if value in plain.enums else _refuse(value)

    return Kind(
        plain, lambda value: value.name if isinstance(value, enum.Enum) else value, _text(load)
    )


def _moment(plain: Any, found: Any, dialect: str) -> Kind:
    aware = bool(found.timezone) and dialect == "postgresql"  # the others hand out naive ones
    parse = dt.time.fromisoformat if isinstance(found, sa.Time) else dt.datetime.fromisoformat

    def load(value: str) -> Any:
        moment = parse(value)
        offset = moment.utcoffset()
        if (offset is not None) != aware:
            return _refuse(value)
        # what the server takes for an offset
        if offset is not None and (abs(offset) >= _FARTHEST or offset.microseconds):
            return _refuse(value)
        return moment

    return Kind(plain, lambda value: value.isoformat(), _text(load))


def _date(plain: Any, found: Any, dialect: str) -> Kind:
    return Kind(plain, lambda value: value.isoformat(), _text(dt.date.fromisoformat))


def _interval(plain: Any, found: Any, dialect: str) -> Kind:
    def load(value: Any) -> dt.timedelta:
        days, seconds, microseconds = map(_exactly(int), _exactly(list)(value))
        span = dt.timedelta(days, seconds, microseconds)
        if dialect != "postgresql":
            return (_EPOCH + span) - _EPOCH  # it is stored as the sum
        return span

    return Kind(plain, lambda value: [value.days, value.seconds, value.microseconds], load)


def _uuid(plain: Any, found: Any, dialect: str) -> Kind:
    as_uuid = bool(getattr(plain, "as_uuid", True))

    def load(value: str) -> Any:
        return uuid.UUID(value) if as_uuid else str(uuid.UUID(value))

    return Kind(plain, str, _text(load))


def _bytes(plain: Any, found: Any, dialect: str) -> Kind:
    def load(value: str) -> bytes:
        return base64.b64decode(value, validate=True)

    return Kind(plain, lambda value: base64.b64encode(value).decode(), _text(load))


_KINDS: tuple[tuple[Any, Callable[[Any, Any, str], Kind]], ...] = (
    (sa.Boolean, _boolean),
    (sa.Integer, _integer),
    (sa.Float, _float),
    (sa.Numeric, _decimal),
    (sa.Enum, _enum),
    (sa.String, _string),
    ((sa.DateTime, sa.Time), _moment),
    (sa.Date, _date),
    (_AbstractInterval, _interval),
    (sa.Uuid, _uuid),
    (sa.types._Binary, _bytes),
)
