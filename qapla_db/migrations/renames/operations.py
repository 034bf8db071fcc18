"""Renames as operations of Alembic that can be executed, written down and undone.

Alembic writes no rename of a table, older versions of it none of a column either,
and undoing its change of a column forgets the column's new name.
"""

from __future__ import annotations

from typing import Any

from alembic.autogenerate import renderers
from alembic.autogenerate.api import AutogenContext
from alembic.operations import ops
from sqlalchemy.engine import Dialect

from qapla_db.migrations.sqltext import as_written

__all__ = [
    "Rename",
    "RenameColumn",
    "RenameTable",
    "Statement",
    "column_rename",
    "quoted",
    "quoted_table",
]


class RenameTable(ops.RenameTableOp):
    """``op.rename_table()``."""

    def reverse(self) -> RenameTable:
        """Return the way back."""
        return RenameTable(self.new_table_name, self.table_name, schema=self.schema)


class RenameColumn(ops.AlterColumnOp):
    """``op.alter_column(..., new_column_name=...)`` and nothing else."""

    def __init__(self, table: str, old: str, new: str, schema: str | None) -> None:
        super().__init__(table, old, schema=schema, modify_name=new)

    def reverse(self) -> RenameColumn:
        """Return the way back."""
        assert self.modify_name is not None
        return RenameColumn(self.table_name, self.modify_name, self.column_name, self.schema)


class Statement(ops.ExecuteSQLOp):
    """``op.execute()`` with a statement that undoes it."""

    def __init__(self, statement: str, undo: str) -> None:
        # in op.execute() a colon begins the name of a parameter
        super().__init__(statement.replace(":", "\\:"))
        self.statement = statement
        self.undo = undo

    def reverse(self) -> Statement:
        """Return the way back."""
        return Statement(self.undo, self.statement)


Rename = RenameTable | RenameColumn | Statement


@renderers.dispatch_for(RenameTable)
def _render_table(context: AutogenContext, operation: Any) -> str:
    prefix = context.opts["alembic_module_prefix"] or ""
    old, new = str(operation.table_name), str(operation.new_table_name)
    return f"{prefix}rename_table({old!r}, {new!r}{_schema(operation)})"


@renderers.dispatch_for(RenameColumn)
def _render_column(context: AutogenContext, operation: Any) -> str:
    prefix = context.opts["alembic_module_prefix"] or ""
    table, old = str(operation.table_name), str(operation.column_name)
    new = f"new_column_name={str(operation.modify_name)!r}"
    return f"{prefix}alter_column({table!r}, {old!r}, {new}{_schema(operation)})"


def _schema(operation: Any) -> str:
    return f", schema={str(operation.schema)!r}" if operation.schema else ""


def column_rename(
    dialect: Dialect, table: str, old: str, new: str, schema: str | None
) -> RenameColumn | Statement:
    """Return the operation that renames a column and changes nothing else about it."""
    if dialect.name not in ("mysql", "mariadb"):
        return RenameColumn(table, old, new, schema)
    # Alembic's is CHANGE, which needs the whole definition and loses what it is not told
    alter = f"ALTER TABLE {quoted_table(dialect, table, schema)} RENAME COLUMN"
    before, after = quoted(dialect, old), quoted(dialect, new)
    return Statement(f"{alter} {before} TO {after}", f"{alter} {after} TO {before}")


def quoted(dialect: Dialect, name: str) -> str:
    """Return a name as SQL has it."""
    return as_written(dialect, dialect.identifier_preparer.quote(name))


def quoted_table(dialect: Dialect, name: str, schema: str | None) -> str:
    """Return a table's name, with its schema, as SQL has it."""
    parts = (schema, name) if schema else (name,)
    return ".".join(quoted(dialect, part) for part in parts)
