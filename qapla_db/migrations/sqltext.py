"""The text of SQL statements, taken apart as far as the plain cases need it.

No parser: what is not understood is left alone by who asks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from sqlalchemy.engine import Dialect

__all__ = [
    "ALTER_TABLE",
    "CREATE_TABLE",
    "NAME",
    "TRUNCATE",
    "actions_of",
    "as_written",
    "bare",
    "created_in",
    "names_of",
    "outside_parentheses",
    "pattern",
    "split",
]

_PART = r'(?:"(?:[^"]|"")+"|`[^`]+`|[^\W\d][\w$]*)'
NAME = rf"{_PART}(?:\.{_PART})*"
"""Pattern of a name: quoted or not, with its schema or not."""

_TOKEN = re.compile(
    r"""(?P<literal>'(?:[^']|'')*'|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$)"""
    r"""|(?P<name>"(?:[^"]|"")*"|`[^`]*`)"""
    r"""|(?P<comment>--[^\n]*|/\*.*?\*/)"""
    r"""|(?P<end>;)|(?P<space>\s+)""",
    re.DOTALL,
)


def as_written(dialect: Dialect, sql: str) -> str:
    """Undo the doubling of percent signs in what a dialect has compiled, or quoted."""
    doubled = dialect.paramstyle in ("format", "pyformat")
    return sql.replace("%%", "%") if doubled else sql


def pattern(text: str) -> re.Pattern[str]:
    """Compile a pattern for statements of :func:`split`, in which NAME is a group for a name."""
    return re.compile(re.sub(r"\bNAME\b", lambda _: f"({NAME})", text), re.IGNORECASE)


def split(sql: str) -> list[str]:
    """Return the statements of a text, without comments, on one line, with emptied literals."""
    found, parts, position = list[str](), list[str](), 0
    for token in _TOKEN.finditer(sql):
        parts.append(sql[position : token.start()])
        position = token.end()
        if token["end"]:
            found.append("".join(parts))
            parts.clear()
        else:
            parts.append(_kept(token))
    found.append("".join([*parts, sql[position:]]))
    return [statement for one in found if (statement := re.sub(r" +", " ", one).strip())]


def _kept(token: re.Match[str]) -> str:
    if token["literal"]:
        return "''"
    return token["name"] or " "


def actions_of(text: str) -> Iterator[str]:
    """Yield what stands between the commas of a list, parentheses kept together."""
    depth, start = 0, 0
    for match in re.finditer(r'"(?:[^"]|"")*"|[(),]', text):
        depth += {"(": 1, ")": -1}.get(match[0], 0)
        if match[0] == "," and depth == 0:
            yield text[start : match.start()].strip()
            start = match.end()
    yield text[start:].strip()


def outside_parentheses(text: str) -> str:
    """Return a statement with emptied parentheses."""
    inner = re.compile(r"\((?:[^()]|\(\))+\)")
    while inner.search(text):
        text = inner.sub("()", text)
    return text


def bare(name: str) -> str:
    """Return a name without its quotes; one without quotes in small letters."""
    return ".".join(
        part[1:-1].replace('""', '"') if part[0] in '"`' else part.lower()
        for part in re.findall(_PART, name)
    )


def names_of(text: str) -> list[str]:
    """Return the names of a list such as ``ONLY a, "B" *``."""
    found = (re.match(rf"(?:ONLY )?({NAME})", one, re.IGNORECASE) for one in actions_of(text))
    return [bare(match[1]) for match in found if match]


ALTER_TABLE = pattern(r"ALTER TABLE (?:IF EXISTS )?(?:ONLY )?NAME\*? (.+)$")
TRUNCATE = pattern(
    r"TRUNCATE (?:TABLE )?(?:ONLY )?(.+?)"
    r"(?: (?:RESTART|CONTINUE) IDENTITY)?(?: CASCADE| RESTRICT)?$"
)
CREATE_TABLE = pattern(
    r"CREATE (?:(?:GLOBAL |LOCAL )?TEMP(?:ORARY)? |UNLOGGED )?TABLE (?:IF NOT EXISTS )?NAME"
)


def created_in(sql: str) -> set[str]:
    """Return the tables that statements create."""
    found = (CREATE_TABLE.match(statement) for statement in split(sql))
    return {bare(match[1]) for match in found if match}
