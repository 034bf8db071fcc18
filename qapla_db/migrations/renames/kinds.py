"""Which types of columns may hold the same data."""

from __future__ import annotations

import re
from typing import Any

import sqlalchemy as sa
from alembic.runtime.migration import MigrationContext
from sqlalchemy.engine import Dialect

__all__ = ["may_be_same", "stored_kinds"]

_KINDS = {
    "number": "BIT BOOL BOOLEAN TINYINT SMALLINT MEDIUMINT INT INTEGER BIGINT SERIAL BIGSERIAL "
    "SMALLSERIAL NUMERIC DECIMAL FLOAT DOUBLE REAL MONEY YEAR",
    "text": "CHAR VARCHAR NCHAR NVARCHAR CHARACTER NATIONAL TEXT TINYTEXT MEDIUMTEXT LONGTEXT CLOB "
    "CITEXT ENUM SET JSON JSONB UUID",
    "time": "DATE DATETIME TIME TIMESTAMP INTERVAL YEAR",
    "bytes": "BINARY VARBINARY BLOB TINYBLOB MEDIUMBLOB LONGBLOB BYTEA UUID",
}
_WORD = re.compile(r"\w+")


def may_be_same(migration: MigrationContext, old: sa.Column[Any], new: sa.Column[Any]) -> bool:
    """Tell whether a column of the database may hold what one of the models is for.

    :param old: as the database has it.
    :param new: as the models have it.
    :returns: False only where both types are known and are for different things, such
        as numbers and text.
    """
    if not migration.impl.compare_type(old, new):
        return True
    kinds = [stored_kinds(migration.dialect, one.type) for one in (old, new)]
    return not all(kinds) or bool(kinds[0] & kinds[1])


def stored_kinds(dialect: Dialect, type_: sa.types.TypeEngine[Any]) -> frozenset[str]:
    """Return what a type is for, by what a dialect stores it as; nothing where that is unknown.

    A type of the models and the one that the database answers with have other classes:
    a Boolean of MariaDB is a TINYINT, a Uuid of SQLite a CHAR.
    """
    if isinstance(type_, sa.Enum):
        return frozenset({"text"})  # PostgreSQL's has a name of its own
    try:
        found = type_.compile(dialect=dialect)
    except sa.exc.CompileError:  # not reflected
        return frozenset()
    word = _WORD.match(found.upper())
    if word is None or found.endswith("]"):
        return frozenset()
    return frozenset(kind for kind, words in _KINDS.items() if word[0] in words.split())
