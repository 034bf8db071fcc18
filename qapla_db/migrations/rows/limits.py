"""What the simple CHECKs of a table say about its columns.

What is not understood costs rows only: the database refuses those that do not fit.
"""

from __future__ import annotations

import decimal
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

__all__ = ["NO_LIMITS", "Limits", "Maker", "each", "limits_of", "of_choices"]

Maker = Callable[[Sequence[int]], list[Any]]
"""Makes of each number a value."""

_CAST = re.compile(
    r"::(?:double precision|character varying|bit varying|\w+(?: with(?:out)? time zone)?)"
    r"(?:\([\d, ]+\))?(?:\[\])*"
)
_NAME = r"[\"`\[(]*(?P<name>\w+)[\"`\])]*"
_NUMBER = r"[('\s]*(-?\d+(?:\.\d+)?)"
_IN = re.compile(rf"{_NAME}\s+IN\s*\((?P<list>[^()]*)\)", re.I)
_ANY = re.compile(rf"{_NAME}\s*=\s*ANY\s*\(+\s*ARRAY\[(?P<list>[^\]]*)\]", re.I)
_BETWEEN = re.compile(rf"{_NAME}\s+BETWEEN\s+{_NUMBER}[)':\w]*\s+AND\s+{_NUMBER}", re.I)
_LENGTH = re.compile(rf"(?:char_)?length\({_NAME}\)*\s*(?P<sign><=|<|=)\s*{_NUMBER}", re.I)
_AT_MOST = re.compile(rf"(?:char_)?length\({_NAME}\)*\s*<=?\s*{_NUMBER}", re.I)
_AT_LEAST = re.compile(rf"(?:char_)?length\({_NAME}\)*\s*>=?\s*{_NUMBER}", re.I)
_NOT_EMPTY = re.compile(rf"{_NAME}\s*(?:<>|!=)\s*''", re.I)
_COMPARED = re.compile(rf"(?<![\w.(])\(*{_NAME}\s*(?P<sign>>=|<=|>|<)\s*{_NUMBER}", re.I)
_JSON = re.compile(rf"json_valid\({_NAME}", re.I)
_ITEM = re.compile(r"'((?:[^'\\]|''|\\.)*)'|(-?\d+)")


@dataclass(frozen=True)
class Limits:
    """What a column may hold.

    :param choices: the only values, or none.
    :param low: the least number.
    :param high: the greatest number.
    :param longest: the most characters.
    :param is_json: it is JSON in a column of text.
    :param may_be_empty: an empty text is a value like others.
    :param is_tame: it is a key, or more is asked of it than is understood here: the
        values are what nearly every condition takes.
    """

    choices: tuple[Any, ...] = ()
    low: float | None = None
    high: float | None = None
    longest: int | None = None
    is_json: bool = False
    may_be_empty: bool = True
    is_tame: bool = False

    def range(self, limit: float) -> tuple[float, float]:
        """Return the least and the greatest number for a type that ends at ``limit``."""
        low = self.low if self.low is not None else min(0.0, self.high or 0.0)
        return low, self.high if self.high is not None else limit

    def whole_range(self, limit: int) -> tuple[int, int]:
        """Return the least and the greatest whole number; the limit itself is allowed."""
        return self.scaled_range(limit, 0)

    def scaled_range(self, limit: int, scale: int) -> tuple[int, int]:
        """Return the same in units of the last of ``scale`` decimals."""
        high = limit if self.high is None else min(limit, math.floor(_scaled(self.high, scale)))
        low = min(0, high) if self.low is None else math.ceil(_scaled(self.low, scale))
        return low, max(low, high)

    def length(self, length: int) -> int:
        """Return the most characters for a type that has ``length`` of them."""
        return length if self.longest is None else min(length, self.longest)


def _scaled(number: float, scale: int) -> decimal.Decimal:
    return decimal.Decimal(repr(number)).scaleb(scale)


def each(value: Callable[[int], Any]) -> Maker:
    """Return what makes values with a function of one number."""
    return lambda numbers: [value(number) for number in numbers]


def of_choices(choices: Sequence[Any]) -> Maker:
    """Return what makes one of these values of a number."""
    return lambda numbers: [choices[number % len(choices)] for number in numbers]


NO_LIMITS = Limits()


def limits_of(checks: Iterable[str], names: Iterable[str] = ()) -> dict[str, Limits]:
    """Return the limits of a table's columns.

    :param checks: the conditions of the table's CHECKs, in SQL.
    :param names: of the table's columns.
    """
    found: dict[str, Limits] = {}
    names = list(names)
    for condition in checks:
        check = _CAST.sub("", condition)
        for name in _named(check, names):
            found[name] = replace(found.get(name, NO_LIMITS), is_tame=True)
        if re.search(r"\bOR\b|\bNOT\b(?!\s+NULL)|\bCASE\b", check, re.I):
            continue
        for name, more in _limits(check):
            found[name] = replace(found.get(name, NO_LIMITS), **more)
    return found


def _named(check: str, names: Iterable[str]) -> list[str]:
    """Return the columns that a condition names in more than what is understood as a whole."""
    rest = check
    if re.search(r"\bOR\b|\bCASE\b", check, re.I) is None:
        for pattern in (_AT_MOST, _AT_LEAST, _NOT_EMPTY):
            rest = pattern.sub(" ", rest)
    return [name for name in names if re.search(rf"\b{re.escape(name)}\b", rest, re.I)]


def _limits(check: str) -> Iterable[tuple[str, dict[str, Any]]]:
    for pattern in (_IN, _ANY):
        for match in pattern.finditer(check):
            items = _ITEM.findall(match["list"])
            choices = tuple(
                text.replace("''", "'").replace("\\'", "'") if not number else int(number)
                for text, number in items
            )
            yield match["name"], {"choices": choices}
    for match in _BETWEEN.finditer(check):
        yield match["name"], {"low": float(match[2]), "high": float(match[3])}
    for match in _LENGTH.finditer(check):
        yield match["name"], {"longest": int(float(match[3])) - (match["sign"] == "<")}
    for pattern in (_AT_LEAST, _NOT_EMPTY):
        for match in pattern.finditer(check):
            yield match["name"], {"may_be_empty": False}
    for match in _COMPARED.finditer(check):
        value, sign = float(match[3]), match["sign"]
        side = "low" if sign.startswith(">") else "high"
        beyond = {">": 1.0, "<": -1.0}.get(sign, 0.0)
        yield match["name"], {side: value + beyond}
    for match in _JSON.finditer(check):
        yield match["name"], {"is_json": True}
