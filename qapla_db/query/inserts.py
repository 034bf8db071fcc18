"""INSERT of many rows, and what it does where a row meets one that exists."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from qapla_db.errors import Unsupported
from qapla_db.query.conflicts import Rule
from qapla_db.query.faults import OtherKind
from qapla_db.query.keys import check_only_key
from qapla_db.query.rows import Row, Shape

if TYPE_CHECKING:
    from sqlalchemy.dialects import mysql, postgresql, sqlite

__all__ = ["PlainStore", "conflict_clause", "insert_of"]

_COUNTER = "@qapla_db_ignored"
_COUNTED: sa.ColumnElement[bool] = sa.literal_column(
    f"({_COUNTER} := {_COUNTER} + 1) IS NULL", sa.Boolean()
)


class PlainStore:
    """Stores rows by an INSERT that the driver runs for many rows, on any kind of database."""

    def __init__(self, connection: Connection, shape: Shape, rule: Rule) -> None:
        self._connection = connection
        self._shape = shape
        self._rule = rule
        self._is_mysql = connection.dialect.name in ("mysql", "mariadb")

    def store(self, fields: tuple[str, ...], rows: Sequence[Row]) -> int:
        """Store rows that have just these fields; return how many were inserted or updated."""
        shape = self._shape
        names = {field: shape.columns[field].key for field in fields}
        constants = {
            shape.columns[field].key: value
            for field, value in shape.constants.items()
            if field not in names
        }
        if constants or any(field != key for field, key in names.items()):
            rows = [
                {**constants, **{key: row[field] for field, key in names.items()}} for row in rows
            ]
        given = [shape.columns[field] for field in fields]
        statement = self._statement(given)
        counts_here = self._is_mysql and (
            self._rule.on_conflict == "ignore" or self._rule.kind is not None
        )
        if counts_here:
            self._connection.exec_driver_sql(f"SET {_COUNTER} = 0")
        result = self._connection.execute(
            statement,
            rows,
            execution_options={"preserve_rowcount": True},
        )
        taken = result.rowcount
        if counts_here:
            # told to count matched rows, the server counts ignored ones too
            ignored = self._connection.exec_driver_sql(f"SELECT {_COUNTER}").scalar_one()
            taken = len(rows) - int(ignored)
        if self._rule.on_conflict == "ignore":
            return taken
        if self._rule.kind is not None and taken < len(rows):
            raise OtherKind
        return len(rows)

    def _statement(self, given: Sequence[sa.Column[Any]]) -> sa.Insert:
        rule, table = self._rule, self._shape.table
        if rule.on_conflict == "error":
            return sa.insert(table)
        name = self._connection.dialect.name
        if name in ("postgresql", "sqlite"):
            return conflict_clause(insert_of(name, table), rule, given)
        if self._is_mysql:
            return self._on_duplicate_key(given)
        raise Unsupported(f"on_conflict={rule.on_conflict!r} is not known for {name} databases")

    def _on_duplicate_key(self, given: Sequence[sa.Column[Any]]) -> sa.Insert:
        rule, table = self._rule, self._shape.table
        if rule.key is not None:
            check_only_key(self._shape.model, rule.key, given)
        insert: mysql.Insert = insert_of("mysql", table)
        first = next(iter(table.primary_key), next(iter(table.columns)))
        changes: dict[str, Any] = {}
        if rule.on_conflict == "ignore":
            # never INSERT IGNORE, which stores values that it has cut
            changes[first.key] = sa.case((_COUNTED, first), else_=first)
        else:
            for key, value in _changes(rule, given, insert.inserted).items():
                changes[key] = self._without_parameter(value)
            if rule.kind is not None:
                kind = self._without_parameter(rule.kind)
                for key, value in changes.items():
                    changes[key] = sa.case((kind, value), else_=table.columns[key])
                changes[first.key] = sa.case((kind, first), (_COUNTED, first), else_=first)
        changes = changes or {first.key: first}
        self._check_names(changes)
        return insert.on_duplicate_key_update(changes)

    def _check_names(self, changes: Mapping[str, Any]) -> None:
        for key in changes:
            name = self._shape.table.columns[key].name
            if "%" in name:
                raise Unsupported(
                    f"the column {name!r} of {self._shape.model.__name__} has a percent sign in "
                    "its name, which cannot be said here about rows that exist; look for them first"
                )

    def _without_parameter(self, value: Any) -> Any:
        # the driver puts none into what follows the values of many rows
        if isinstance(value, sa.Column):
            return value
        shown = value.compile(self._connection, compile_kwargs={"literal_binds": True})
        return sa.literal_column(str(shown), value.type)


def insert_of(dialect: str, table: sa.Table) -> Any:
    """Return an INSERT that can have a clause for conflicts.

    Only the dialect that is in use is imported: each takes 50 ms.
    """
    return import_module(f"sqlalchemy.dialects.{dialect}").insert(table)


def conflict_clause(
    insert: postgresql.Insert | sqlite.Insert, rule: Rule, given: Sequence[sa.Column[Any]]
) -> sa.Insert:
    """Add to an INSERT what a rule says.

    :param given: the columns that the rows have values for; they are the ones to change.
    """
    if rule.on_conflict == "error":
        return insert
    if rule.on_conflict == "ignore":
        return insert.on_conflict_do_nothing(index_elements=rule.key)
    changes = _changes(rule, given, insert.excluded)
    if not changes and rule.kind is None:
        return insert.on_conflict_do_nothing(index_elements=rule.key)
    assert rule.key is not None
    # a row that nothing is to change in says by this that it is of the class
    changes = changes or {rule.key[0].key: rule.key[0]}
    return insert.on_conflict_do_update(index_elements=rule.key, set_=changes, where=rule.kind)


def _changes(
    rule: Rule, given: Collection[sa.Column[Any]], new: Mapping[str, Any] | Any
) -> dict[str, Any]:
    assert rule.key is not None
    kept = {*rule.key, *rule.key[0].table.primary_key}
    columns = rule.update
    if columns is None:
        columns = tuple(column for column in given if column not in kept)
    changes = {column.key: new[column.key] for column in columns}
    if changes:
        for column in rule.key[0].table.columns:
            if column.onupdate is not None and column not in given:
                changes[column.key] = _on_update(column)
    return changes


def _on_update(column: sa.Column[Any]) -> Any:
    default: Any = column.onupdate
    if default.is_clause_element:
        return default.arg
    value = default.arg(_NoRow(column)) if default.is_callable else default.arg
    return sa.literal(value, column.type)


class _NoRow:
    """What an ``onupdate`` that looks at its row gets, where one value is made for many rows."""

    def __init__(self, column: sa.Column[Any]) -> None:
        self._column = column

    def __getattr__(self, name: str) -> Any:
        raise Unsupported(
            f"the onupdate of the column {str(self._column)!r} looks at the row that is changed, "
            "of which a statement for many rows knows nothing; give the rows a value for it, or "
            "change instances"
        )
