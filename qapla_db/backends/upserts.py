"""The statement that inserts a row, or changes the one that has its key already."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql, sqlite

from qapla_db.errors import Unsupported

__all__ = ["KEY_IS_NAMED", "upsert_statement"]

Columns: TypeAlias = Sequence[sa.Column[Any]]

KEY_IS_NAMED = frozenset({"postgresql", "sqlite"})
"""Dialects whose statement names the key; elsewhere it acts on whatever key is hit."""


def upsert_statement(
    dialect: str, table: sa.Table, key: Columns, update: Columns, fixed: Mapping[str, Any]
) -> sa.Insert:
    """Return an INSERT that changes an existing row instead of failing.

    :param dialect: name of the dialect.
    :param table: the table.
    :param key: the columns of a unique key.
    :param update: columns that take their value from the new row; none leave the old row alone.
    :param fixed: key of a column to what else is stored in it then.
    :raises Unsupported: no such statement is known for the dialect.
    """
    if dialect not in _STATEMENTS:
        raise Unsupported(
            f"the dialect {dialect!r} has no upsert here; use get_or_create() and update()"
        )
    return _STATEMENTS[dialect](table, key, update, fixed)


def _on_conflict(insert: Callable[[sa.Table], Any]) -> Callable[..., sa.Insert]:
    def statement(
        table: sa.Table, key: Columns, update: Columns, fixed: Mapping[str, Any]
    ) -> sa.Insert:
        made = insert(table)
        values = {column.key: made.excluded[column.key] for column in update}
        done: sa.Insert = (
            made.on_conflict_do_update(index_elements=list(key), set_={**values, **fixed})
            if values
            else made.on_conflict_do_nothing(index_elements=list(key))
        )
        return done

    return statement


def _on_duplicate_key(
    table: sa.Table, key: Columns, update: Columns, fixed: Mapping[str, Any]
) -> sa.Insert:
    made = mysql.insert(table)
    values = {column.key: made.inserted[column.key] for column in update}
    if not values:  # INSERT IGNORE would store what does not fit, cut to size
        return made.on_duplicate_key_update({key[0].key: key[0]})
    return made.on_duplicate_key_update({**values, **fixed})


_STATEMENTS: dict[str, Callable[..., sa.Insert]] = {
    "postgresql": _on_conflict(postgresql.insert),
    "sqlite": _on_conflict(sqlite.insert),
    "mysql": _on_duplicate_key,
    "mariadb": _on_duplicate_key,
}
