"""Values of PostgreSQL's enums, compared by alembic-postgresql-enum where it is installed.

Autogenerate by itself compares no values, and creates no type for a column that
is added.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
from typing import Any

from alembic.operations import ops
from sqlalchemy.engine import Dialect

from qapla_db.migrations.renames.operations import Statement, quoted_table

__all__ = ["compare_enums", "write_plainly"]

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
    # from now on it looks at every database of this process, and warns of those of other kinds
    logging.getLogger(f"alembic.{PACKAGE}.compare_dispatch").addFilter(_is_no_complaint)


def _is_no_complaint(record: logging.LogRecord) -> bool:
    return "only supports postgresql" not in record.getMessage()


def write_plainly(dialect: Dialect, script: ops.MigrationScript) -> None:
    """Write how types are made as SQL; the package's way fails with ``--sql``."""
    for side in (script.upgrade_ops, script.downgrade_ops):
        if side is not None and PACKAGE in sys.modules:
            side.ops[:] = [_plain(dialect, one) for one in side.ops]


def _plain(dialect: Dialect, operation: ops.MigrateOperation) -> ops.MigrateOperation:
    kind = getattr(operation, "operation_name", "")
    if kind not in ("create_enum", "drop_enum"):
        return operation
    found: Any = operation
    schema = None if found.schema == dialect.default_schema_name else found.schema
    name = quoted_table(dialect, found.name, schema)
    values = ", ".join("'" + str(one).replace("'", "''") + "'" for one in found.enum_values)
    create, drop = f"CREATE TYPE {name} AS ENUM ({values})", f"DROP TYPE {name}"
    return Statement(create, drop) if kind == "create_enum" else Statement(drop, create)
