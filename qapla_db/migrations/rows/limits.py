"""What the simple CHECKs of a table say about its columns.

What is not understood costs rows only: the database refuses those that do not fit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

__all__ = ["NO_LIMITS", "Limits", "limits_of"]

_NAME = r"[\"`\[(]*(?P<name>\w+)[\"`\])]*(?:::[\w ]+)?\)*"
_NUMBER = r"[('\s]*(-?\d+(?:\.\d+)?)"
_IN = re.compile(rf"{_NAME}\s+IN\s*\((?P<list>[^()]*)\)", re.I)
_ANY = re.compile(rf"{_NAME}\s*=\s*ANY\s*\(+\s*ARRAY\[(?P<list>[^\]]*)\]", re.I)
_BETWEEN = re.compile(rf"{_NAME}\s+BETWEEN\s+{_NUMBER}[)':\w]*\s+AND\s+{_NUMBER}", re.I)
_LENGTH = re.compile(rf"(?:char_)?length\({_NAME}\)*\s*(?P<sign><=|<|=)\s*{_NUMBER}", re.I)
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
    """

    choices: tuple[Any, ...] = ()
    low: float | None = None
    high: float | None = None
    longest: int | None = None
    is_json: bool = False

    @property
    def is_bounded(self) -> bool:
        return self.low is not None or self.high is not None

    def range(self, limit: float) -> tuple[float, float]:
        """Return the least and the greatest number for a type that ends at ``limit``."""
        low = self.low if self.low is not None else min(0.0, self.high or 0.0)
        return low, self.high if self.high is not None else limit

    def whole_range(self, limit: int) -> tuple[int, int]:
        """Return the same for whole numbers; the limit itself is out."""
        low, high = self.range(float(min(limit - 1, 1 << 53)))
        return int(-(-low // 1)), int(high)

    def length(self, length: int) -> int:
        """Return the most characters for a type that has ``length`` of them."""
        return length if self.longest is None else min(length, self.longest)


NO_LIMITS = Limits()


def limits_of(checks: Iterable[str]) -> dict[str, Limits]:
    """Return the limits of a table's columns.

    :param checks: the conditions of the table's CHECKs, in SQL.
    """
    found: dict[str, Limits] = {}
    for check in checks:
        if re.search(r"\bOR\b|\bNOT\b(?!\s+NULL)|\bCASE\b", check, re.I):
            continue
        for name, more in _limits(check):
            found[name] = replace(found.get(name, NO_LIMITS), **more)
    return found


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
    for match in _COMPARED.finditer(check):
        value, sign = float(match[3]), match["sign"]
        side = "low" if sign.startswith(">") else "high"
        beyond = {">": 1.0, "<": -1.0}.get(sign, 0.0)
        yield match["name"], {side: value + beyond}
    for match in _JSON.finditer(check):
        yield match["name"], {"is_json": True}
