"""Renames that the models say, where alembic by itself is about to drop and to create."""

from __future__ import annotations

from collections.abc import Iterator

from alembic.autogenerate import renderers
from alembic.autogenerate.api import AutogenContext
from alembic.operations import ops

from qapla_db.errors import Refused
from qapla_db.migrations.autogenerate.tables import OwnTables
from qapla_db.migrations.command_error import as_command_error
from qapla_db.migrations.renames.candidates import HINT
from qapla_db.migrations.renames.hints import changed_tables

__all__ = ["refuse_unhandled"]


class _Refusal(ops.OpContainer):
    """Does nothing, has no difference to show, and cannot be written into a revision."""

    def __init__(self, message: str) -> None:
        super().__init__()
        self.message = message


@renderers.dispatch_for(_Refusal)
def _refuse(_: AutogenContext, operation: _Refusal) -> str:
    raise as_command_error(Refused(operation.message))


def refuse_unhandled(database: str, script: ops.MigrationScript, tables: OwnTables) -> None:
    """Have a revision refused in which data is dropped that the models say is renamed.

    A rename is tried out before it is written, which only a shadow database is for. The
    comparison is left as it is for who only looks at it: the refusal comes when the
    revision is written.

    :param database: its name, for messages.
    :param script: what autogenerate has found, and hooks have made of it.
    :param tables: what it has looked at.
    """
    if script.upgrade_ops is None:
        return
    pairs = [*_tables(script.upgrade_ops, tables), *_columns(script.upgrade_ops, tables)]
    if not pairs:
        return
    said = ", ".join(f"{new} was renamed from {old}" for old, new in pairs)
    script.upgrade_ops.ops.append(
        _Refusal(
            f"no revision of {database!r} is written: the models say that {said}, but alembic by "
            "itself would drop the one with its data and make the other anew. 'qapla-db revision "
            f"{database} -m MESSAGE' writes the rename; if it is none, take '{HINT}' out of the "
            "models"
        )
    )


def _tables(upgrade: ops.UpgradeOps, tables: OwnTables) -> Iterator[tuple[str, str]]:
    """Yield the old and new names of tables."""
    models = {key: table for one in tables.metadata for key, table in one.tables.items()}
    for create in upgrade.ops:
        if not isinstance(create, ops.CreateTableOp):
            continue
        schema = f"{create.schema}." if create.schema else ""
        new = f"{schema}{create.table_name}"
        hint = str(models[new].info.get(HINT)) if new in models else ""
        for old in tables.left_alone & {hint, f"{schema}{hint}"}:
            yield old, new


def _columns(upgrade: ops.UpgradeOps, tables: OwnTables) -> Iterator[tuple[str, str]]:
    """Yield the old and new names of columns."""
    for table, group in changed_tables(upgrade, tables.metadata):
        gone = {one.column_name for one in group.ops if isinstance(one, ops.DropColumnOp)}
        new = {one.column.name for one in group.ops if isinstance(one, ops.AddColumnOp)}
        for column in table.columns:
            old = column.info.get(HINT)
            if column.name in new and old in gone:
                yield f"{table.key}.{old}", f"{table.key}.{column.name}"
