"""Plausible values: of each type a function of a number, other ones for other numbers."""

from __future__ import annotations

import datetime
import decimal
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql

from qapla_db.migrations.rows.limits import NO_LIMITS, Limits

__all__ = ["Maker", "maker_of"]

Maker = Callable[[Sequence[int]], list[Any]]
"""Makes of each number a value."""

_WORDS = (
    "Arlanda", "Barajas", "Changi", "Dorval", "Ezeiza", "Fiumicino", "Gatwick", "Haneda",
    "Incheon", "Jinnah", "Kloten", "Lech Wałęsa", "Malpensa", "Narita", "O'Hare", "Pulkovo",
    "Queen Alia", "Rygge", "Schiphol", "Tegel", "Ürümqi", "Vnukovo", "Wick", "Xiamen", "Yelahanka",
)  # fmt: skip
_START = datetime.datetime(2020, 1, 1)
_DAY = 86_400
_LONGEST = 1_000
_MIXER = 0x9E3779B97F4A7C15F39CC0605CEDC835
_BITS = {"SMALLINT": 15, "TINYINT": 7, "MEDIUMINT": 23, "BIGINT": 63, "BIGSERIAL": 63}


def maker_of(column: sa.Column[Any], limits: Limits = NO_LIMITS) -> Maker | None:
    """Return what makes values for a column; None for a type that is not known.

    :param limits: what the CHECKs of its table say about it.
    """
    if limits.choices:
        return _of_choices(limits.choices)
    if limits.is_json:
        return _json_text
    return _maker(column.type, column.name.lower(), limits)


def _maker(kind: Any, name: str, limits: Limits) -> Maker | None:
    if isinstance(kind, postgresql.DOMAIN):
        kind = kind.data_type
    if isinstance(kind, sa.ARRAY):
        return _of_array(kind, name)
    for types, choose in _KINDS:
        if isinstance(kind, types):
            return choose(kind, name, limits)
    return _OF_POSTGRESQL.get(type(kind).__name__.upper())


def _of_choices(choices: Sequence[Any]) -> Maker:
    return lambda numbers: [choices[number % len(choices)] for number in numbers]


def _of_array(kind: Any, name: str) -> Maker | None:
    make = _maker(kind.item_type, name, NO_LIMITS)
    if make is None:
        return None
    dimensions = (kind.dimensions or 1) - 1

    def arrays(numbers: Sequence[int]) -> list[Any]:
        values: list[Any] = []
        for number in numbers:
            array = make([number, number + 1, number + 2][: number % 3 + 1])
            for _ in range(dimensions):
                array = [array]
            values.append(array)
        return values

    return arrays


def _enum(kind: sa.Enum, name: str, limits: Limits) -> Maker | None:
    return _of_choices(kind.enums) if kind.enums else _string(sa.String(kind.length), name, limits)


def _set(kind: mysql.SET, name: str, limits: Limits) -> Maker:
    choices = [value for value in kind.values if value]
    return lambda numbers: [{choices[number % len(choices)]} for number in numbers]


def _boolean(kind: sa.Boolean, name: str, limits: Limits) -> Maker:
    return _of_choices((False, True))


def _integer(kind: sa.Integer, name: str, limits: Limits) -> Maker:
    visit = kind.__visit_name__.upper()
    if visit == "TINYINT" and getattr(kind, "display_width", None) == 1:
        return _of_choices((0, 1))  # MySQL's boolean
    bits = _BITS.get(visit, 31)
    low, high = limits.whole_range(1 << bits)
    if limits.is_bounded or bits < 31:
        size = high - low + 1
        return lambda numbers: [low + number % size for number in numbers]
    # some are too large for a smaller type, as the real ones may be
    more = 1 << (33 if bits > 31 else 17)
    return lambda numbers: [
        number + more if number % 10 == 9 and number < more else number for number in numbers
    ]


def _float(kind: sa.Float[Any], name: str, limits: Limits) -> Maker:
    low, high = limits.range(1_000_000.0)
    size = high - low
    # sixteenths are exact in every precision
    return lambda numbers: [low + number / 16 % size if size else low for number in numbers]


def _numeric(kind: sa.Numeric[Any], name: str, limits: Limits) -> Maker:
    scale = kind.scale if kind.scale is not None else 0 if kind.precision else 2
    digits = (kind.precision or 12) - scale
    low, high = limits.range(float(10 ** min(digits, 15)))
    first = int(low * 10**scale)
    size = max(int(high * 10**scale) - first, 1)
    # a step that has no factor in common with the size, so that the digits vary
    step = 7 if size % 7 else 1
    return lambda numbers: [
        decimal.Decimal(first + number * step % size).scaleb(-scale) for number in numbers
    ]


def _datetime(kind: sa.DateTime, name: str, limits: Limits) -> Maker:
    start = _START.replace(tzinfo=datetime.UTC) if kind.timezone else _START
    second = datetime.timedelta(seconds=1)
    return lambda numbers: [start + second * (number * 61) for number in numbers]


def _date(kind: sa.Date, name: str, limits: Limits) -> Maker:
    start, day = _START.date(), datetime.timedelta(days=1)
    return lambda numbers: [start + day * (number % 1_000_000) for number in numbers]


def _time(kind: sa.Time, name: str, limits: Limits) -> Maker:
    zone = datetime.UTC if kind.timezone else None
    start, second = _START.replace(tzinfo=zone), datetime.timedelta(seconds=1)
    return lambda numbers: [(start + second * (number * 61 % _DAY)).timetz() for number in numbers]


def _interval(kind: Any, name: str, limits: Limits) -> Maker:
    second = datetime.timedelta(seconds=1)
    return lambda numbers: [second * (number * 61) for number in numbers]


def _binary(kind: Any, name: str, limits: Limits) -> Maker:
    length = min(getattr(kind, "length", None) or 8, 8)
    return lambda numbers: [(number % 256**length).to_bytes(length, "big") for number in numbers]


def _uuid(kind: sa.Uuid[Any], name: str, limits: Limits) -> Maker:
    def uuids(numbers: Sequence[int]) -> list[Any]:
        made = [uuid.UUID(int=(number + 1) * _MIXER % (1 << 128), version=4) for number in numbers]
        return made if kind.as_uuid else [str(value) for value in made]

    return uuids


def _json(kind: sa.JSON, name: str, limits: Limits) -> Maker:
    return lambda numbers: [
        {"number": number, "word": _WORDS[number % len(_WORDS)], "list": [number, None, True]}
        for number in numbers
    ]


def _json_text(numbers: Sequence[int]) -> list[Any]:
    return [f'{{"number": {number}}}' for number in numbers]


def _string(kind: Any, name: str, limits: Limits) -> Maker:
    length = min(limits.length(kind.length or _LONGEST), _LONGEST)
    if length <= 8:
        return lambda numbers: [_code(number, length) for number in numbers]
    if "mail" in name:
        text: Callable[[int], str] = "user{}@example.org".format
    elif "url" in name or "link" in name:
        text = "https://example.org/{}".format
    else:
        text = _text
    full = length if kind.length else 0

    def strings(numbers: Sequence[int]) -> list[Any]:
        values: list[Any] = []
        for number in numbers:
            value = text(number)
            if full and number % 10 == 9:
                value = f"{value} ".ljust(full, "x")  # as long as may be
            values.append(value if len(value) <= length else f"{number:x} {value}"[:length].strip())
        return values

    return strings


def _text(number: int) -> str:
    return f"{_WORDS[number % len(_WORDS)]} {number}"


def _code(number: int, length: int) -> str:
    letters = ""
    for _ in range(length):
        number, letter = divmod(number, 26)
        letters = chr(65 + letter) + letters
    return letters


def _year(kind: Any, name: str, limits: Limits) -> Maker:
    return lambda numbers: [1950 + number % 100 for number in numbers]


def _bits(kind: Any, name: str, limits: Limits) -> Maker:
    length = min(kind.length or 1, 16)
    if isinstance(kind, mysql.BIT):
        return lambda numbers: [number % (1 << length) for number in numbers]
    zeros = (kind.length or 1) - length if not kind.varying else 0
    return lambda numbers: [
        "0" * zeros + f"{number % (1 << length):0{length}b}" for number in numbers
    ]


def _texts(form: Callable[[int], str]) -> Maker:
    return lambda numbers: [form(number) for number in numbers]


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
    (sa.Integer, _integer),
    (sa.Float, _float),
    (sa.Numeric, _numeric),
    (sa.DateTime, _datetime),
    (sa.Date, _date),
    (sa.Time, _time),
    ((sa.Interval, postgresql.INTERVAL), _interval),
    (sa.LargeBinary, _binary),
    (sa.types._Binary, _binary),
    (sa.Uuid, _uuid),
    (sa.JSON, _json),
    (sa.String, _string),
)

_OF_POSTGRESQL: dict[str, Maker] = {
    "INET": _texts(_network),
    "CIDR": _texts(lambda number: f"{_network(number)}/32"),
    "INET4": _texts(_network),
    "INET6": _texts(
        lambda number: f"::{number:x}" if number < 65536 else f"::ffff:{_network(number)}"
    ),
    "MACADDR": _texts(_hardware),
    "MACADDR8": _texts(lambda number: f"{_hardware(number)}:00:00"),
    "TSVECTOR": _texts(lambda number: f"word{number}"),
    "MONEY": _texts(lambda number: f"{number}.50"),
    "HSTORE": _texts(lambda number: f'"number"=>"{number}"'),
    "OID": lambda numbers: list(numbers),
    "INT4RANGE": _texts(lambda number: f"[{number},{number + 1})"),
    "INT8RANGE": _texts(lambda number: f"[{number},{number + 1})"),
    "NUMRANGE": _texts(lambda number: f"[{number},{number + 1})"),
}
