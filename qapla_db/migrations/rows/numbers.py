"""Numbers: small and large ones, below nought, with all their decimals."""

from __future__ import annotations

import decimal
from typing import Any

import sqlalchemy as sa

from qapla_db.migrations.rows.limits import Limits, Maker, each, of_choices

__all__ = ["float_maker", "integer_maker", "numeric_maker"]

_BITS = {"SMALLINT": 15, "TINYINT": 7, "MEDIUMINT": 23, "BIGINT": 63, "BIGSERIAL": 63}

# More than the next smaller type holds, and of 64 bits more than a float is exact for; yet so
# far from the limit that a revision can reckon with it.
_LARGE_BY_BITS = {63: 1 << 53, 31: 1 << 17, 23: 1 << 16}

# by the last digit of the number
_NEGATIVE, _LARGE = 4, 9


def integer_maker(kind: sa.Integer, name: str, limits: Limits) -> Maker:
    """Return what makes whole numbers."""
    visit = kind.__visit_name__.upper()
    if visit == "TINYINT" and getattr(kind, "display_width", None) == 1:
        return of_choices((0, 1))  # MySQL's boolean
    bits = _BITS.get(visit, 31)
    is_unsigned = _is_unsigned(kind)
    large = 1 << bits if is_unsigned else _LARGE_BY_BITS.get(bits, 0)
    low, high = limits.whole_range((1 << (bits + is_unsigned)) - 1)
    size = high - low + 1
    has_negative = limits.low is None and not is_unsigned and not limits.is_tame

    def whole(number: int) -> int:
        if number % 10 == _LARGE:
            return low + (number + large) % size if limits.high is None else high - number % size
        if number % 10 == _NEGATIVE and has_negative:
            return min(-1, high) - number % (1 << bits - 1)
        return low + number % size

    return each(whole)


def float_maker(kind: sa.Float[Any], name: str, limits: Limits) -> Maker:
    """Return what makes floating-point numbers."""
    low, high = limits.range(1_000_000.0)
    size = high - low
    # more digits than single precision has, fewer than a NUMERIC that is made of a double
    large = float(1 << 30) if isinstance(kind, sa.Double) else 0.0
    has_negative = limits.low is None and not _is_unsigned(kind) and not limits.is_tame

    def real(number: int) -> float:
        value = number / 16 % size if size else 0.0  # sixteenths are exact in every precision
        if number % 10 == _LARGE:
            return low + large + value if limits.high is None else high - value
        if number % 10 == _NEGATIVE and has_negative:
            return min(-value, high)
        return low + value

    return each(real)


def numeric_maker(kind: sa.Numeric[Any], name: str, limits: Limits) -> Maker:
    """Return what makes decimal numbers."""
    precision: int = kind.precision or 18
    scale = kind.scale if kind.scale is not None else 0 if kind.precision else 6
    most: int = 10**precision - 1
    low, high = limits.scaled_range(most, scale)
    size = high - low + 1
    large = most // 10 + 1 if precision > 1 else 0  # all digits are used
    has_negative = limits.low is None and not _is_unsigned(kind) and not limits.is_tame
    # a step that has no factor in common with the size, so that the digits vary
    step = 7 if size % 7 else 1

    def units(number: int) -> int:
        if number % 10 == _LARGE:
            if limits.high is None:
                return low + (large + number * step) % size
            return high - number * step % size
        if number % 10 == _NEGATIVE and has_negative:
            return min(-1, high) - number * step % (most // 2 + 1)
        return low + number * step % size

    return each(lambda number: decimal.Decimal(units(number)).scaleb(-scale))


def _is_unsigned(kind: Any) -> bool:
    return bool(getattr(kind, "unsigned", False))
