"""What joins make of the rows of a table: they may repeat them, or leave them empty."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.elements import BinaryExpression, BooleanClauseList, ColumnElement, Grouping
from sqlalchemy.sql.operators import and_, eq
from sqlalchemy.sql.selectable import Alias, FromGrouping

__all__ = ["filled_tables", "is_looked_up", "is_never_null", "is_table"]


def filled_tables(sources: Iterable[Any]) -> set[Any]:
    """Return the tables, and aliases of tables, that every row of a select has a row of.

    :param sources: what stands in FROM.
    """
    filled: set[Any] = set()
    other: set[Any] = set()
    for source in sources:
        _sort(source, True, filled, other)
    return filled - other


def is_never_null(expression: Any, filled: set[Any]) -> bool:
    """Tell whether an expression is a column that is proven to have no NULL.

    :param expression: what is read.
    :param filled: the tables that every row has a row of.
    """
    return (
        isinstance(expression, sa.Column)
        and not expression.nullable
        and is_table(expression.table)
        and expression.table in filled
    )


def _sort(source: Any, inner: bool, filled: set[Any], other: set[Any]) -> None:
    if isinstance(source, FromGrouping):
        _sort(source.element, inner, filled, other)
    elif isinstance(source, sa.Join):
        _sort(source.left, inner and not source.full, filled, other)
        _sort(source.right, inner and not source.full and not source.isouter, filled, other)
    elif is_table(source):
        (filled if inner else other).add(source)


def is_looked_up(source: Any, condition: Any) -> bool:
    """Tell whether a join adds one row at most, as it compares all of what is unique.

    :param source: what is joined.
    :param condition: what it is joined by.
    """
    if not is_table(source):
        return False
    compared: list[Any] = []
    for one in _conjuncts(condition):
        if isinstance(one, BinaryExpression) and one.operator is eq:
            for side, other in ((one.left, one.right), (one.right, one.left)):
                if source not in other._from_objects:
                    compared.append(side)
    return any(
        all(any(side.compare(part) for side in compared) for part in key)
        for key in _unique_keys(source)
        if key
    )


def _unique_keys(source: Any) -> Iterator[list[ColumnElement[Any]]]:
    """Yield what is unique in a table or an alias of one, always and of all its rows."""
    if len(source.primary_key):
        yield list(source.primary_key)
    table: Any = source.element if isinstance(source, Alias) else source
    for constraint in table.constraints:
        if isinstance(constraint, sa.UniqueConstraint) and not constraint.deferrable:
            yield [source.c[column.key] for column in constraint.columns]
    for index in table.indexes:
        if index.unique and not _is_partial(index):
            yield [source.c[column.key] for column in index.columns]


def _is_partial(index: sa.Index) -> bool:
    if not all(isinstance(one, sa.Column) for one in index.expressions):
        return True
    options = index.dialect_kwargs
    return any(name.endswith("_where") and options[name] is not None for name in options)


def _conjuncts(condition: Any) -> Iterator[Any]:
    if isinstance(condition, Grouping):
        condition = condition.element
    if isinstance(condition, BooleanClauseList) and condition.operator is and_:
        for one in condition.clauses:
            yield from _conjuncts(one)
    else:
        yield condition


def is_table(selectable: Any) -> bool:
    """Tell whether a source of rows is a table or an alias of one."""
    if isinstance(selectable, Alias):
        selectable = selectable.element
    return isinstance(selectable, sa.Table)
