"""Values of PostgreSQL's enums, compared by alembic-postgresql-enum where it is installed.

Autogenerate by itself compares no values, and creates no type for a column that
is added.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
from collections.abc import Iterator, Sequence
from typing import Any, cast

import sqlalchemy as sa
from alembic.autogenerate.api import AutogenContext
from alembic.operations import ops
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeEngine

from qapla_db.migrations.renames.operations import Statement, quoted, quoted_table

__all__ = ["compare_enums", "made_elsewhere", "write_plainly"]

PACKAGE = "alembic_postgresql_enum"


def compare_enums(dialect: str) -> None:
    """Let autogenerate compare the values of enums, on PostgreSQL and where this is installed.

    Types without a column of the models are left alone, as tables without a model are. Who
    has configured the package in ``env.py`` has it so.
    """
    if dialect != "postgresql" or PACKAGE in sys.modules:
        return
    if importlib.util.find_spec(PACKAGE) is None:
        return
    package: Any = importlib.import_module(PACKAGE)
    package.set_configuration(package.Config(drop_unused_enums=False))
    # of the user's own classes it knows too little: it binds labels, and takes all for types
    declared: Any = importlib.import_module(f"{PACKAGE}.get_enum_data.declared_enums")
    vars(declared).update(column_type_is_enum=_is_type, get_enum_values=_labels)
    # from now on it looks at every database of this process, and warns of those of other kinds
    logging.getLogger(f"alembic.{PACKAGE}.compare_dispatch").addFilter(_is_no_complaint)


def _enum(found: TypeEngine[Any]) -> TypeEngine[Any]:
    return found.impl_instance if isinstance(found, sa.TypeDecorator) else found


def _is_type(found: TypeEngine[Any]) -> bool:
    """Tell whether the server has a type of its own for it."""
    enum = _enum(found)
    return isinstance(enum, sa.Enum) and enum.native_enum


def _labels(found: TypeEngine[Any]) -> tuple[str, ...]:
    enum = _enum(found)
    assert isinstance(enum, sa.Enum)
    return tuple(enum.enums)


def _is_no_complaint(record: logging.LogRecord) -> bool:
    return "only supports postgresql" not in record.getMessage()


def write_plainly(dialect: Dialect, script: ops.MigrationScript) -> None:
    """Write how types are made and get values as SQL, and how columns are cast to them.

    The package's way to make them fails with ``--sql``, its way to add a value before
    another one adds it after that, and it casts on the way there alone.
    """
    if dialect.name != "postgresql" or sys.modules.get(PACKAGE) is None:
        return
    for side in (script.upgrade_ops, script.downgrade_ops):
        if side is not None:
            side.ops[:] = [plain for one in side.ops for plain in _plain(dialect, one)]
            _cast(dialect, side.ops)


def _plain(dialect: Dialect, operation: ops.MigrateOperation) -> list[ops.MigrateOperation]:
    kind, found = getattr(operation, "operation_name", ""), cast(Any, operation)
    if kind not in ("create_enum", "drop_enum", "add_enum_value"):
        return [operation]
    schema = None if found.schema == dialect.default_schema_name else found.schema
    name = quoted_table(dialect, found.name, schema)
    if kind == "add_enum_value":
        return [
            ops.ExecuteSQLOp(f"ALTER TYPE {name} ADD VALUE {value}".replace(":", "\\:"))
            for value in _added(found.old_values, found.new_values)
        ]
    values = ", ".join(map(_literal, found.enum_values))
    create, drop = f"CREATE TYPE {name} AS ENUM ({values})", f"DROP TYPE {name}"
    return [Statement(create, drop) if kind == "create_enum" else Statement(drop, create)]


def _added(old: Sequence[str], new: Sequence[str]) -> Iterator[str]:
    """Yield the values that are new, in their order, each with its place."""
    for place, value in enumerate(new):
        if value not in old:
            next_one = next((one for one in new[place:] if one in old), None)
            yield _literal(value) + (f" BEFORE {_literal(next_one)}" if next_one else "")


def _literal(value: str) -> str:
    return "'" + str(value).replace("'", "''") + "'"


def _cast(dialect: Dialect, operations: Sequence[ops.MigrateOperation]) -> None:
    """Let columns of text and of other enums be cast to the enum that they get."""
    using: Any = importlib.import_module(f"{PACKAGE}.add_postgres_using_to_text")
    for group in operations:
        for one in group.ops if isinstance(group, ops.ModifyTableOps) else ():
            if not isinstance(one, ops.AlterColumnOp) or one.modify_type is None:
                continue
            enum = _enum(one.modify_type)
            if not isinstance(enum, sa.Enum) or not enum.native_enum or enum.name is None:
                continue
            if isinstance(one.existing_type, sa.String):  # an Enum is one too
                name = quoted_table(dialect, enum.name, enum.schema)
                column = quoted(dialect, one.column_name)
                one.kw["postgresql_using"] = f"{column}::text::{name}"
                one.__class__ = using.PostgresUsingAlterColumnOp


def made_elsewhere(found: TypeEngine[Any], context: AutogenContext) -> str | None:
    """Return an enum of the user's own class as a revision has it, without the making of its type.

    The package has that made before the table, and sees to it for the classes of SQLAlchemy
    only.
    """
    enum = _enum(found)
    if PACKAGE not in sys.modules or context.migration_context.dialect.name != "postgresql":
        return None
    if not isinstance(enum, sa.Enum) or not enum.native_enum:
        return None
    context.imports.add("from sqlalchemy.dialects import postgresql")
    options = {"name": enum.name, "schema": enum.schema, "create_type": False}
    said = [f"{key}={value!r}" for key, value in options.items() if value is not None]
    return f"postgresql.ENUM({', '.join([*map(repr, _labels(found)), *said])})"
