"""Texts as people type them: long ones, empty ones, with blanks around, in odd letters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qapla_db.migrations.rows.limits import Limits, Maker, each

__all__ = ["WORDS", "string_maker"]

WORDS = (
    "Arlanda", "Barajas", "Changi", "Dorval", "Ezeiza", "Fiumicino", "Gatwick", "Haneda",
    "Incheon", "Jinnah", "Kloten", "Lech Wałęsa", "Malpensa", "Narita", "O'Hare", "Pulkovo",
    "Queen Alia", "Rygge", "Schiphol", "Tegel", "Ürümqi", "Vnukovo", "Wick", "Xiamen", "Yelahanka",
)  # fmt: skip

_SHORT = 8
"""Up to this length a text is a code of letters."""

_LONG = 1_000
"""Characters of a long text in a column that has no limit."""

_LONGEST = 4_000
"""What is made at most, also where more is allowed."""

_TINY = 200
"""What fits 255 bytes, of letters that may have several."""

# by the last digit of the number
_EMPTY, _BLANKS, _QUOTED, _FOREIGN, _FULL = 1, 2, 6, 7, 9


def string_maker(kind: Any, name: str, limits: Limits) -> Maker:
    """Return what makes texts.

    :param kind: the type of the column.
    :param name: of the column, in small letters.
    :param limits: what the column may hold; where a CHECK that is not understood speaks
        of it, or where it is the key, there are neither blanks around nor empty texts.
    """
    declared = getattr(kind, "length", None)
    if kind.__visit_name__ == "TINYTEXT":
        declared = _TINY
    length = limits.length(min(declared or _LONG, _LONGEST))
    if length <= _SHORT:
        return each(lambda number: _code(number, length, limits))
    base = _base(name)
    return each(lambda number: _text(base(number), number, length, limits))


def _base(name: str) -> Callable[[int], str]:
    if "mail" in name:
        return "User{}@example.org".format
    if "url" in name or "link" in name:
        return "https://example.org/Page/{}".format
    return lambda number: f"{WORDS[number % len(WORDS)]} {number}"


def _text(value: str, number: int, length: int, limits: Limits) -> str:
    """Return a text of at most ``length`` characters; of another number another one."""
    digit = number % 10
    if digit == _FULL:
        value = f"{value} ".ljust(length, "x")
    elif not limits.is_tame:
        if digit == _EMPTY and limits.may_be_empty:
            return ""
        value = _varied(value, digit)
    if len(value) <= length:
        return value
    blank = " " if digit == _BLANKS and not limits.is_tame else ""
    return f"{blank}{number:x} {value.strip()}"[:length].rstrip()


def _varied(value: str, digit: int) -> str:
    if digit == _BLANKS:
        return f"  {value} "
    if digit == _QUOTED:
        return f"{value} 100% \"'\\"
    if digit == _FOREIGN:
        return f"{value} ß€語"
    return value


def _code(number: int, length: int, limits: Limits) -> str:
    """Return letters that are others for other numbers, whatever their case."""
    digit = number % 10
    if limits.is_tame:
        return _letters(number, length)
    if digit == _EMPTY and limits.may_be_empty:
        return ""
    if digit == _BLANKS and length > 2:
        return f" {_letters(number, length - 1)}"
    return _letters(number, length).lower() if number % 3 == 0 else _letters(number, length)


def _letters(number: int, length: int) -> str:
    letters = ""
    for _ in range(length):
        number, letter = divmod(number, 26)
        letters = chr(65 + letter) + letters
    return letters
