"""Plausible values: of each type a function of a number, other ones for other numbers."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql

from qapla_db.migrations.rows.limits import (
    NO_LIMITS,
    Limits,
    Maker,
    each,
    limits_of,
    of_choices,
)
from qapla_db.migrations.rows.numbers import float_maker, integer_maker, numeric_maker
from qapla_db.migrations.rows.texts import WORDS, string_maker

__all__ = ["maker_of"]

_START = datetime.datetime(2020, 1, 1)
_DAY = 86_400
_BEFORE_1970 = 20_000
_MIXER = 0x9E3779B97F4A7C15F39CC0605CEDC835


def maker_of(
    column: sa.Column[Any], limits: Limits = NO_LIMITS, *, is_unique: bool = False
) -> Maker | None:
    """Return what makes values for a column; None for a type that is not known.

    :param limits: what the CHECKs of its table say about it.
    :param is_unique: no two rows have the same value.
    """
    if limits.choices:
        return of_choices(limits.choices)
    if limits.is_json:
        return each('{{"number": {}}}'.format)
    limits = replace(
        limits,
        is_tame=limits.is_tame or column.primary_key,
        may_be_empty=limits.may_be_empty and not is_unique,
    )
    return _maker(column.type, column.name.lower(), limits)


def _maker(kind: Any, name: str, limits: Limits) -> Maker | None:
    if isinstance(kind, postgresql.DOMAIN):
        if kind.check is not None:
            own = limits_of([str(kind.check)], ["value"])
            own = {key.lower(): found for key, found in own.items()}
            limits = own.get("value", limits)
        kind = kind.data_type
        if limits.choices:
            return of_choices(limits.choices)
    if isinstance(kind, sa.ARRAY):
        return _of_array(kind, name)
    for types, choose in _KINDS:
        if isinstance(kind, types):
            return choose(kind, name, limits)
    return _OF_POSTGRESQL.get(type(kind).__name__.upper())


def _of_array(kind: Any, name: str) -> Maker | None:
    make = _maker(kind.item_type, name, NO_LIMITS)
    if make is None:
        return None
    dimensions = (kind.dimensions or 1) - 1

    def arrays(numbers: Sequence[int]) -> list[Any]:
        values: list[Any] = []
        for number in numbers:
            array = make([number, number + 1, number + 2][: number % 4])
            if not array and dimensions:
                array = make([number])
            for _ in range(dimensions):
                array = [array]
            values.append(array)
        return values

    return arrays


def _enum(kind: sa.Enum, name: str, limits: Limits) -> Maker | None:
    if kind.enums:
        return of_choices(kind.enums)
    return string_maker(sa.String(kind.length), name, limits)


def _set(kind: mysql.SET, name: str, limits: Limits) -> Maker:
    choices = [value for value in kind.values if value]
    return each(
        lambda number: {choices[number % len(choices)], choices[number // 3 % len(choices)]}
    )


def _boolean(kind: sa.Boolean, name: str, limits: Limits) -> Maker:
    return of_choices((False, True))


def _datetime(kind: sa.DateTime, name: str, limits: Limits) -> Maker:
    start = _START.replace(tzinfo=datetime.UTC) if kind.timezone else _START
    return each(lambda number: start + _seconds(number))


def _seconds(number: int) -> datetime.timedelta:
    """Return a length of time with microseconds."""
    return datetime.timedelta(seconds=number * 61, microseconds=(number * 7919 + 1) % 1_000_000)


def _date(kind: sa.Date, name: str, limits: Limits) -> Maker:
    start, day = _START.date(), datetime.timedelta(days=1)

    def date(number: int) -> datetime.date:
        if number % 10 == 4 and not limits.is_tame:
            return start - day * (_BEFORE_1970 + number % 100_000)
        return start + day * (number % 1_000_000)

    return each(date)


def _time(kind: sa.Time, name: str, limits: Limits) -> Maker:
    zone = datetime.UTC if kind.timezone else None
    start = _START.replace(tzinfo=zone)
    return each(lambda number: (start + _seconds(number)).timetz())


def _interval(kind: Any, name: str, limits: Limits) -> Maker:
    is_tame = limits.is_tame
    return each(
        lambda number: -_seconds(number) if number % 10 == 4 and not is_tame else _seconds(number)
    )


def _binary(kind: Any, name: str, limits: Limits) -> Maker:
    declared: int = getattr(kind, "length", None) or 8
    length = min(declared, 8)

    def data(number: int) -> bytes:
        if number % 10 == 1 and limits.may_be_empty and not limits.is_tame:
            return b""
        value = int(number % 256**length).to_bytes(length, "big")
        return value.ljust(min(declared, 1_000), b"\xff") if number % 10 == 9 else value

    return each(data)


def _uuid(kind: sa.Uuid[Any], name: str, limits: Limits) -> Maker:
    def uuids(numbers: Sequence[int]) -> list[Any]:
        made = [uuid.UUID(int=(number + 1) * _MIXER % (1 << 128), version=4) for number in numbers]
        return made if kind.as_uuid else [str(value) for value in made]

    return uuids


def _json(kind: sa.JSON, name: str, limits: Limits) -> Maker:
    return each(
        lambda number: {
            "number": number,
            "word": WORDS[number % len(WORDS)],
            "list": [number, None, True],
        }
    )


def _year(kind: Any, name: str, limits: Limits) -> Maker:
    return each(lambda number: 1950 + number % 100)


def _bits(kind: Any, name: str, limits: Limits) -> Maker:
    length = min(kind.length or 1, 16)
    if isinstance(kind, mysql.BIT):
        return each(lambda number: number % (1 << length))
    zeros = (kind.length or 1) - length if not kind.varying else 0
    return each(lambda number: "0" * zeros + f"{number % (1 << length):0{length}b}")


def _network(number: int) -> str:
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def _hardware(number: int) -> str:
    return ":".join(f"{number >> shift & 255:02x}" for shift in (40, 32, 24, 16, 8, 0))


_Choose = Callable[[Any, str, Limits], Maker | None]

# the first that fits; the special kinds before those that they are made from
_KINDS: tuple[tuple[Any, _Choose], ...] = (
    (mysql.SET, _set),
    (mysql.YEAR, _year),
    ((mysql.BIT, postgresql.BIT), _bits),
    (sa.Enum, _enum),
    (sa.Boolean, _boolean),
    (sa.Integer, integer_maker),
    (sa.Float, float_maker),
    (sa.Numeric, numeric_maker),
    (sa.DateTime, _datetime),
    (sa.Date, _date),
    (sa.Time, _time),
    ((sa.Interval, postgresql.INTERVAL), _interval),
    (sa.LargeBinary, _binary),
    (sa.types._Binary, _binary),
    (sa.Uuid, _uuid),
    (sa.JSON, _json),
    ((sa.String, postgresql.CITEXT), string_maker),
)

_OF_POSTGRESQL: dict[str, Maker] = {
    "INET": each(_network),
    "CIDR": each(lambda number: f"{_network(number)}/32"),
    "INET4": each(_network),
    "INET6": each(
        lambda number: f"::{number:x}" if number < 65536 else f"::ffff:{_network(number)}"
    ),
    "MACADDR": each(_hardware),
    "MACADDR8": each(lambda number: f"{_hardware(number)}:00:00"),
    "TSVECTOR": each(lambda number: f"word{number}"),
    "MONEY": each(lambda number: f"{number}.50"),
    "HSTORE": each(lambda number: f'"number"=>"{number}"'),
    "OID": lambda numbers: list(numbers),
    "INT4RANGE": each(lambda number: f"[{number},{number + 1})"),
    "INT8RANGE": each(lambda number: f"[{number},{number + 1})"),
    "NUMRANGE": each(lambda number: f"[{number},{number + 1})"),
}
