"""The statement that inserts a row, or changes the one that has its key already."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, TypeAlias

import sqlalchemy as sa

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
    package, add = _STATEMENTS[dialect]
    # only the dialect that is in use is imported, which takes long
    made = import_module(f"sqlalchemy.dialects.{package}").insert(table)
    return add(made, key, update, fixed)


def _on_conflict(made: Any, key: Columns, update: Columns, fixed: Mapping[str, Any]) -> sa.Insert:
    values = {column.key: made.excluded[column.key] for column in update}
    done: sa.Insert = (
        made.on_conflict_do_update(index_elements=list(key), set_={**values, **fixed})
        if values
        else made.on_conflict_do_nothing(index_elements=list(key))
    )
    return done


def _on_duplicate_key(
    made: Any, key: Columns, update: Columns, fixed: Mapping[str, Any]
) -> sa.Insert:
    values = {column.key: made.inserted[column.key] for column in update}
    # INSERT IGNORE would store what does not fit, cut to size
    changes = {**values, **fixed} if values else {key[0].key: key[0]}
    done: sa.Insert = made.on_duplicate_key_update(changes)
    return done


_STATEMENTS: dict[str, tuple[str, Callable[..., sa.Insert]]] = {
    "postgresql": ("postgresql", _on_conflict),
    "sqlite": ("sqlite", _on_conflict),
    "mysql": ("mysql", _on_duplicate_key),
    "mariadb": ("mysql", _on_duplicate_key),
}
