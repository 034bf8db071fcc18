"""The unique keys of a model, as its metadata declares them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.schema import SchemaItem

from qapla_db.errors import InvalidArgument, Unsupported
from qapla_db.query.fields import attribute, mapper_of

__all__ = ["check_only_key", "key_fields", "kind_of", "table_of", "unique_key", "unique_keys"]

_LIMITED = ("postgresql_where", "sqlite_where", "mysql_length", "mariadb_length")


def table_of(model: type[Any]) -> sa.Table:
    """Return the one table that a model is stored in.

    :raises Unsupported: there are several, or none of its own.
    """
    mapper = mapper_of(model)
    table = mapper.local_table
    if len(mapper.tables) == 1 and isinstance(table, sa.Table):
        return table
    names = ", ".join(repr(getattr(one, "name", str(one))) for one in mapper.tables)
    raise Unsupported(
        f"{model.__name__} is not stored in one table but in {names}: a row alone cannot be "
        "stored; add instances with session.add_all() instead"
    )


def kind_of(model: type[Any]) -> sa.ColumnElement[bool] | None:
    """Return what tells rows of a class from those of others in its table; None: all are of it."""
    mapper = mapper_of(model)
    if not mapper.single or mapper.polymorphic_on is None:
        return None
    kinds = [one.polymorphic_identity for one in mapper.self_and_descendants]
    # not IN, which takes no part in a statement for many rows
    return sa.or_(*(mapper.polymorphic_on == kind for kind in kinds))


def unique_keys(table: sa.Table) -> list[tuple[sa.Column[Any], ...]]:
    """Return the keys that hold for all rows at any time: no partial, no deferred ones."""
    return [columns for _, columns in _declared(table) if columns]


def key_fields(by: str | Sequence[str]) -> list[str]:
    """Return the fields of a key as a list.

    :raises InvalidArgument: there are none, which would mean every row.
    """
    names = [by] if isinstance(by, str) else list(by)
    if not names:
        raise InvalidArgument(f"by={by!r} names no field; name those that say which row is meant")
    return names


def unique_key(model: type[Any], by: str | Sequence[str]) -> tuple[sa.Column[Any], ...]:
    """Return the columns of the unique key that fields name, in the order of the fields.

    :param model: the mapped class.
    :param by: a field or several, whose columns are together unique.
    :raises InvalidArgument: there is no field.
    :raises UnknownField: the model has no such field.
    :raises Unsupported: no unique key has just these columns.
    """
    table = table_of(model)
    names = key_fields(by)
    columns = tuple(_column(model, name) for name in names)
    if any(set(columns) == set(key) for key in unique_keys(table)):
        return columns
    listed = ", ".join(repr(column.name) for column in columns)
    raise Unsupported(
        f"no unique key of the table {table.name!r} has just the columns of by={by!r}; without one "
        "two rows could be stored where one is meant. Declare "
        f"UniqueConstraint({listed}) in {model.__name__}, and migrate the database"
    )


def check_only_key(
    model: type[Any], key: Iterable[sa.Column[Any]] | None, given: Collection[sa.Column[Any]]
) -> None:
    """Raise Unsupported where rows could meet another unique key than the one that is meant.

    :param key: the columns of the key.
    :param given: the columns that the rows have values for.
    """
    item = other_key(model, key, given)
    if item is None:
        return
    columns: Iterable[sa.Column[Any]] = getattr(item, "columns", ())
    name = getattr(item, "name", None) or ", ".join(one.name for one in columns)
    raise Unsupported(
        f"this database cannot tell which unique key of {model.__name__} a row meets, and "
        f"would change the wrong row where it meets {name!r}; give the rows no value for that "
        "key, or look for existing rows first"
    )


def other_key(
    model: type[Any], key: Iterable[sa.Column[Any]] | None, given: Collection[sa.Column[Any]]
) -> SchemaItem | None:
    """Return another unique key than the one that is meant, which rows could meet, or None.

    :param key: the columns of the key that is meant.
    :param given: the columns that the rows have values for.
    """
    meant = set(key) if key is not None else None
    for item, columns in _declared(table_of(model)):
        if meant != set(columns) and not (columns and not _may_meet(columns, given)):
            return item
    return None


def _declared(table: sa.Table) -> list[tuple[SchemaItem, tuple[sa.Column[Any], ...]]]:
    """Return what is declared unique, with its columns; none where they do not tell it all."""
    found: list[tuple[SchemaItem, tuple[sa.Column[Any], ...]]] = []
    for constraint in table.constraints:
        if isinstance(constraint, sa.PrimaryKeyConstraint | sa.UniqueConstraint):
            columns = tuple(constraint.columns)
            if columns:
                found.append((constraint, () if constraint.deferrable else columns))
    for index in table.indexes:
        if index.unique:
            plain = all(isinstance(one, sa.Column) for one in index.expressions)
            limited = any(index.dialect_kwargs.get(name) is not None for name in _LIMITED)
            found.append((index, tuple(index.columns) if plain and not limited else ()))
    return found


def _may_meet(columns: Iterable[sa.Column[Any]], given: Collection[sa.Column[Any]]) -> bool:
    for column in columns:
        if column in given or column.default is not None or column.server_default is not None:
            continue
        if column.nullable or column is column.table.autoincrement_column:
            return False
    return True


def _column(model: type[Any], name: str) -> sa.Column[Any]:
    expression = getattr(attribute(model, name), "expression", None)
    columns = mapper_of(model).column_attrs
    if name in columns:
        expression = columns[name].columns[0]
    if not isinstance(expression, sa.Column):
        raise InvalidArgument(f"{model.__name__}.{name} is no column, and no part of a unique key")
    return expression
