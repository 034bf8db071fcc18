"""Filters and orders, given as data or as SQL expressions.

As data they mean the same on every kind of database: a mapping of field to
value, and names of fields with a ``-`` before the descending ones. SQL
expressions are the way out for what data cannot say.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import sqlalchemy as sa
from sqlalchemy.ext.hybrid import HybridExtensionType
from sqlalchemy.orm import QueryableAttribute, RelationshipProperty
from sqlalchemy.sql.elements import ColumnElement

from qapla_db.errors import InvalidArgument
from qapla_db.query.comparing import comparable
from qapla_db.query.fields import attribute, check_fields, mapper_read

__all__ = ["FilterBy", "OrderBy", "conditions", "order_clauses"]

FilterBy: TypeAlias = Mapping[str, Any] | ColumnElement[bool] | None
"""A mapping of field to value (None: IS NULL, a list: IN), an SQL expression, or nothing."""

OrderBy: TypeAlias = str | ColumnElement[Any] | QueryableAttribute[Any] | Sequence[Any] | None
"""A field's name (``-`` before it: descending), an SQL expression, or a list of these."""

_LISTS = (list, tuple, set, frozenset, range)

_MOST = 65_000
"""Values of a filter; PostgreSQL takes 65,535 parameters, of which some are left to the rest."""


def conditions(model: type[Any], filter_by: FilterBy) -> list[ColumnElement[bool]]:
    """Return the clauses of a filter, which all have to hold.

    :param model: the mapped class whose fields a mapping names.
    :param filter_by: a mapping or an SQL expression.
    :raises UnknownField: the model has no such field.
    :raises InvalidArgument: it is neither a mapping nor an SQL expression, a value is of a
        type that the field's column is not compared with, or there are more than 65,000 values.
    """
    if filter_by is None:
        return []
    if isinstance(filter_by, Mapping):
        _check_number(model, filter_by)
        return [_equals(_usable(model, name), value) for name, value in filter_by.items()]
    element = getattr(filter_by, "__clause_element__", lambda: filter_by)()
    if isinstance(element, ColumnElement):
        return [element]
    raise InvalidArgument(
        f"filter_by of {model.__name__} is a mapping of field to value or an SQL expression, "
        f"not {type(filter_by).__name__}"
    )


def _check_number(model: type[Any], filter_by: Mapping[str, Any]) -> None:
    number = sum(len(value) for value in filter_by.values() if isinstance(value, _LISTS))
    if number > _MOST:
        raise InvalidArgument(
            f"filter_by of {model.__name__} compares with {number:,} values, and a statement takes "
            f"{_MOST:,} at most; read in parts, or put the values into a table and filter by a "
            "select of it: Model.field.in_(select(...))"
        )


def _usable(model: type[Any], name: str) -> QueryableAttribute[Any]:
    check_fields(model, [name])
    if (
        mapper_read(model).all_orm_descriptors[name].extension_type
        is HybridExtensionType.HYBRID_METHOD
    ):
        raise InvalidArgument(
            f"{model.__name__}.{name} is a method, which data cannot filter or order by; pass an "
            f"SQL expression, such as {model.__name__}.{name}(...)"
        )
    try:
        return attribute(model, name)
    except Exception as error:  # of the model's own code
        raise InvalidArgument(
            f"{model.__name__}.{name} has no SQL expression to filter or order by: {error}"
        ) from error


def _equals(field: QueryableAttribute[Any], value: Any) -> ColumnElement[bool]:
    if _is_relationship(field):
        return _relates(field, value)
    if value is None:
        return field.is_(None)
    if not isinstance(value, _LISTS):
        return _compare(field, comparable(field, (value,))[0])
    values = [one for one in comparable(field, value) if one is not None]
    if len(values) == len(value):
        return field.in_(values)
    return sa.or_(field.is_(None), field.in_(values)) if values else field.is_(None)


def _relates(field: QueryableAttribute[Any], value: Any) -> ColumnElement[bool]:
    if isinstance(value, _LISTS) or field.property.uselist:
        raise InvalidArgument(
            f"{field} is a relationship, and a filter compares it with one instance or None; "
            "filter by the foreign key, or pass an SQL expression"
        )
    return _compare(field, value)


def _compare(field: QueryableAttribute[Any], value: Any) -> ColumnElement[bool]:
    clause: ColumnElement[bool] = field == value
    return clause


def order_clauses(
    model: type[Any], order_by: OrderBy, *, nulls_sort_last: bool
) -> list[ColumnElement[Any]]:
    """Return the clauses of an order.

    Nulls come first where a field's name orders ascending, last where it orders
    descending, on every kind of database. SQL expressions are left as they are.

    :param model: the mapped class whose fields are named.
    :param order_by: what to order by, the most significant first.
    :param nulls_sort_last: whether the database takes a null for the largest value.
    :raises UnknownField: the model has no such field.
    :raises InvalidArgument: a part is neither a field's name nor an SQL expression.
    """
    if order_by is None:
        return []
    parts: Iterable[Any] = order_by if isinstance(order_by, list | tuple) else [order_by]
    return [_ordered(model, part, nulls_sort_last) for part in parts]


def _ordered(model: type[Any], part: Any, nulls_sort_last: bool) -> ColumnElement[Any]:
    if not isinstance(part, str):
        element = getattr(part, "__clause_element__", lambda: part)()
        if isinstance(element, ColumnElement):
            return element
        raise InvalidArgument(
            f"order_by of {model.__name__} is a field's name, '-' before it for descending, "
            f"an SQL expression, or a list of these; not {part!r}"
        )
    descending = part.startswith("-")
    field = _usable(model, part.removeprefix("-"))
    expression = getattr(field, "expression", None)
    if not isinstance(expression, ColumnElement) or _is_relationship(field):
        raise InvalidArgument(
            f"{model.__name__} cannot be ordered by {part.removeprefix('-')!r}; its fields to "
            f"order by are {', '.join(_orderable(model))}"
        )
    clause: ColumnElement[Any] = field.desc() if descending else field.asc()
    # a column without nulls can do without, and an index can then be used
    if nulls_sort_last and getattr(expression, "nullable", True):
        return clause.nulls_last() if descending else clause.nulls_first()
    return clause


def _is_relationship(field: QueryableAttribute[Any]) -> bool:
    return isinstance(getattr(field, "property", None), RelationshipProperty)


def _orderable(model: type[Any]) -> list[str]:
    known = mapper_read(model).all_orm_descriptors
    hybrid = HybridExtensionType.HYBRID_PROPERTY
    names = (name for name, one in known.items() if one.extension_type is hybrid)
    return sorted({*mapper_read(model).column_attrs.keys(), *names})
