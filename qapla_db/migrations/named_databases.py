"""Which databases the text of SQL statements names.

No parser: what the server puts together by itself (``EXECUTE``, ``PREPARE``, ``DO``) is
not looked into.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from sqlalchemy.engine import Dialect

from qapla_db.migrations.sqltext import NAME, bare, names_of, split

__all__ = ["as_a_whole", "before_a_dot", "schema_is_database"]

_LIST = rf"(?P<names>{NAME}(?: ?, ?{NAME})*)"
_OF_POSTGRESQL = re.compile(
    r"(?:(?:CREATE|DROP|ALTER) DATABASE (?:IF (?:NOT )?EXISTS )?"
    r"|(?:GRANT|REVOKE|COMMENT|SECURITY LABEL|ALTER (?:ROLE|USER)) .*?\b(?:ON|IN) DATABASE )"
    rf"{_LIST}",
    re.IGNORECASE,
)
_OF_MYSQL = re.compile(
    r"(?:^USE |(?<!SHOW )\b(?:(?:CREATE(?: OR REPLACE)?|DROP) (?:DATABASE|SCHEMA) "
    r"(?:IF (?:NOT )?EXISTS )?|ALTER (?:DATABASE|SCHEMA) "
    # the name may be left away
    r"(?!(?:DEFAULT|CHARACTER|CHARSET|COLLATE|COMMENT)\b)))"
    rf"{_LIST}",
    re.IGNORECASE,
)

_FAR = 200
"""Characters before a name that are looked at."""

_NAME = r"(?:`[^`]+`|[^\W\d][\w$]*)"
_WORD = re.compile(rf"(?P<name>{_NAME})(?P<dot> ?\. ?(?=[`\w*]))?")
_AT_A_TABLE = re.compile(
    rf"\b(?:FROM|JOIN|INTO|(?<!KEY )UPDATE|TABLE|EXISTS|REFERENCES|INDEX {_NAME} ON) ?$",
    re.IGNORECASE,
)
_FROM_OF_A_FUNCTION = re.compile(r"\b((?:EXTRACT|TRIM|SUBSTR(?:ING)?) ?\([^()]*?)FROM ", re.I)

_WRITTEN_FOR_MYSQL = re.compile(
    r"""(?P<literal>'(?:[^'\\]|''|\\.)*')|(?P<quoted>"(?:[^"\\]|""|\\.)*")|(?P<name>`[^`]*`)"""
    r"""|(?P<space>/\*M?!\d*|\*/|/\*.*?\*/|(?:--\s|\#)[^\n]*)""",
    re.DOTALL,
)


def schema_is_database(dialect: Dialect) -> bool:
    """Tell whether what stands before a table's name is a database of its own."""
    return dialect.name in ("mysql", "mariadb")


def as_a_whole(sql: str, dialect: Dialect) -> Iterator[str]:
    """Yield the databases that statements make, drop or change, or change to."""
    expected = _OF_MYSQL if schema_is_database(dialect) else _OF_POSTGRESQL
    for statement in _statements(sql, dialect):
        found = expected.search(statement) if expected is _OF_MYSQL else expected.match(statement)
        if found:
            yield from names_of(found["names"])


def before_a_dot(sql: str, dialect: Dialect) -> Iterator[str]:
    """Yield what may be a database as something of it is named; on MySQL and MariaDB alone.

    What stands before a column is a table or its alias, which is named without it too.
    """
    if not schema_is_database(dialect):
        return
    for statement in _statements(sql, dialect):
        text = _FROM_OF_A_FUNCTION.sub(r"\1", statement)
        words, part = [*_WORD.finditer(text)], 0
        alone = {bare(one["name"]).casefold() for one in words if not one["dot"]}
        for one in words:
            is_first, part = one.start() != part, one.end() if one["dot"] else 0
            if not (one["dot"] and is_first):
                continue
            name, before = bare(one["name"]), text[max(0, one.start() - _FAR) : one.start()]
            if name.casefold() not in alone or _AT_A_TABLE.search(before):
                yield name.replace("\\_", "_")  # as GRANT has it


def _statements(sql: str, dialect: Dialect) -> list[str]:
    if not schema_is_database(dialect):
        return split(sql)
    names_are_quoted = dialect.identifier_preparer.initial_quote == '"'

    def plain(token: re.Match[str]) -> str:
        if token["space"]:
            return " "
        if token["name"]:
            return token["name"]
        if token["quoted"] and names_are_quoted:
            return f"`{token[0][1:-1]}`"
        return "''"

    return split(_WRITTEN_FOR_MYSQL.sub(plain, sql))
