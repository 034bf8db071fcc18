"""What an SQL text does, as far as it can be seen from its words."""

from __future__ import annotations

import re

__all__ = ["text_writes"]

_NOTHING = r"(?>\s+|--[^\n]*|/\*.*?\*/|\()*+"
_WRITES = re.compile(
    rf"{_NOTHING}(?:insert|update|delete|merge|replace|truncate|create|alter|drop)\b",
    re.IGNORECASE | re.DOTALL,
)
_CHANGE = r"(?:insert\s+into|update\s+.*\sset|delete\s+from|merge\s+into)\b"
_MAY_WRITE = re.compile(
    rf"{_NOTHING}(?:with\b.*\b{_CHANGE}|explain\b.*\banalyze\b.*\b{_CHANGE}"
    r"|copy\s+(?!\().*\bfrom\b|(?:call|do|load)\b)",
    re.IGNORECASE | re.DOTALL,
)


def text_writes(text: str, *, for_sure: bool) -> bool:
    """Tell whether a statement changes data.

    :param text: the statement.
    :param for_sure: say no where a literal may look the same as a change.
    """
    if _WRITES.match(text):
        return True
    return not for_sure and _MAY_WRITE.match(text) is not None
