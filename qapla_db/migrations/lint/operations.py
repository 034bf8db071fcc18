"""What is risky in the operations of a revision."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import sqlalchemy as sa
from alembic.operations import ops
from alembic.operations.ops import MigrateOperation
from sqlalchemy.engine import Dialect

from qapla_db.migrations.lint.rules import Risk, family
from qapla_db.migrations.lint.statements import risks_of_sql
from qapla_db.migrations.lint.table_changes import is_volatile
from qapla_db.migrations.lint.types import is_harmless
from qapla_db.migrations.offline import Call

__all__ = ["created_by", "risks_of"]


def created_by(call: Call) -> str | None:
    """Return the table that an operation creates."""
    if isinstance(call.operation, ops.CreateTableOp):
        return _table(call.operation)
    return None


def risks_of(call: Call, dialect: Dialect) -> Iterator[Risk]:
    """Yield what is risky in one operation, on some kind of database or other."""
    one = call.operation
    for kind, look in _LOOKS.items():
        if isinstance(one, kind):
            yield from look(one, call, dialect)


def _table(one: Any) -> str:
    name: str = one.table_name
    return f"{one.schema}.{name}" if getattr(one, "schema", None) else name


def _name(one: Any, name: object, *columns: str) -> str:
    return str(name) if name else f"{_table(one)} ({', '.join(columns)})"


def _drop_table(one: ops.DropTableOp, _: Call, __: Dialect) -> Iterator[Risk]:
    yield Risk("drop-table", _table(one), _table(one))


def _drop_column(one: ops.DropColumnOp, _: Call, __: Dialect) -> Iterator[Risk]:
    yield Risk("drop-column", _table(one), f"{_table(one)}.{one.column_name}")


def _rename_table(one: ops.RenameTableOp, _: Call, __: Dialect) -> Iterator[Risk]:
    yield Risk("rename-table", _table(one), f"{_table(one)} to {one.new_table_name}")


def _alter_column(one: ops.AlterColumnOp, _: Call, dialect: Dialect) -> Iterator[Risk]:
    table, what = _table(one), f"{_table(one)}.{one.column_name}"
    if one.modify_name is not None and one.modify_name != one.column_name:
        yield Risk("rename-column", table, f"{what} to {one.modify_name}")
    if one.modify_nullable is False and one.existing_nullable is not False:
        yield Risk("set-not-null", table, what)
    if one.modify_type is not None:
        after = sa.types.to_instance(one.modify_type)
        before = None if one.existing_type is None else sa.types.to_instance(one.existing_type)
        if not is_harmless(dialect, before, after):
            yield Risk("change-type", table, what)


def _add_column(one: ops.AddColumnOp, _: Call, dialect: Dialect) -> Iterator[Risk]:
    table, column = _table(one), one.column
    what = f"{table}.{column.name}"
    default = column.server_default
    stored = isinstance(default, sa.Computed) and default.persisted is not False
    serial = isinstance(default, sa.Identity | sa.Sequence) or _is_serial(column, dialect)
    if stored or serial or _is_volatile(default):
        yield Risk("rewrite", table, what)
    elif not column.nullable and default is None:
        yield Risk("add-not-null", table, what)
    if column.unique and not column.index:
        yield Risk("unique-constraint", table, f"of {what}")
    if column.index:
        yield Risk("create-index", table, f"of {what}")
    for key in column.foreign_keys:
        yield Risk("foreign-key", table, str(key.name or f"of {what}"))
    for constraint in column.constraints:
        if isinstance(constraint, sa.CheckConstraint):
            yield Risk("check", table, str(constraint.name or f"of {what}"))


def _is_serial(column: sa.Column[Any], dialect: Dialect) -> bool:
    return dialect.name == "postgresql" and "SERIAL" in str(column.type.compile(dialect)).upper()


def _is_volatile(default: object) -> bool:
    return isinstance(default, sa.DefaultClause) and is_volatile(str(default.arg))


def _create_index(one: ops.CreateIndexOp, call: Call, dialect: Dialect) -> Iterator[Risk]:
    what = str(one.index_name or _table(one))
    if family(dialect.name) == "mysql":
        if str(one.kw.get("mysql_prefix") or one.kw.get("mariadb_prefix") or ""):
            yield Risk("create-index", _table(one), what)
        return
    yield from _concurrent(one, call, "create-index", _table(one), what)


def _drop_index(one: ops.DropIndexOp, call: Call, dialect: Dialect) -> Iterator[Risk]:
    table = _table(one) if one.table_name else None
    yield from _concurrent(one, call, "drop-index", table, str(one.index_name))


def _concurrent(one: Any, call: Call, rule: str, table: str | None, what: str) -> Iterator[Risk]:
    if not one.kw.get("postgresql_concurrently"):
        yield Risk(rule, table, what)
    elif call.in_transaction:
        yield Risk("index-in-transaction", None, f"the index {what}")


def _foreign_key(one: ops.CreateForeignKeyOp, _: Call, __: Dialect) -> Iterator[Risk]:
    table = f"{one.kw['source_schema']}." if one.kw.get("source_schema") else ""
    table += one.source_table
    if not one.kw.get("postgresql_not_valid"):
        what = str(one.constraint_name or f"of {table} ({', '.join(one.local_cols)})")
        yield Risk("foreign-key", table, what)


def _check(one: ops.CreateCheckConstraintOp, _: Call, __: Dialect) -> Iterator[Risk]:
    if not one.kw.get("postgresql_not_valid"):
        yield Risk("check", _table(one), str(one.constraint_name or f"of {_table(one)}"))


def _unique(one: ops.CreateUniqueConstraintOp, _: Call, __: Dialect) -> Iterator[Risk]:
    yield Risk("unique-constraint", _table(one), _name(one, one.constraint_name, *one.columns))


def _primary_key(one: ops.CreatePrimaryKeyOp, _: Call, __: Dialect) -> Iterator[Risk]:
    yield Risk("primary-key", _table(one), _name(one, one.constraint_name, *one.columns))


def _drop_constraint(one: ops.DropConstraintOp, _: Call, __: Dialect) -> Iterator[Risk]:
    if one.constraint_type == "primary":
        yield Risk("drop-primary-key", _table(one), f"of {_table(one)}")


def _execute(one: ops.ExecuteSQLOp, call: Call, dialect: Dialect) -> Iterator[Risk]:
    text: Any = one.sqltext
    sql = text if isinstance(text, str) else str(text.compile(dialect=dialect))
    yield from risks_of_sql(sql, family(dialect.name), in_transaction=call.in_transaction)


_LOOKS: dict[type[MigrateOperation], Callable[[Any, Call, Dialect], Iterator[Risk]]] = {
    ops.DropTableOp: _drop_table,
    ops.DropColumnOp: _drop_column,
    ops.RenameTableOp: _rename_table,
    ops.AlterColumnOp: _alter_column,
    ops.AddColumnOp: _add_column,
    ops.CreateIndexOp: _create_index,
    ops.DropIndexOp: _drop_index,
    ops.CreateForeignKeyOp: _foreign_key,
    ops.CreateCheckConstraintOp: _check,
    ops.CreateUniqueConstraintOp: _unique,
    ops.CreatePrimaryKeyOp: _primary_key,
    ops.DropConstraintOp: _drop_constraint,
    ops.ExecuteSQLOp: _execute,
}
