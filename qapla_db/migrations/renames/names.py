"""Names of indexes and constraints that follow a rename, as the naming convention has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import sqlalchemy as sa
from alembic.operations import ops
from alembic.runtime.migration import MigrationContext
from sqlalchemy.engine import Dialect, Inspector

from qapla_db.migrations.renames.operations import Statement, quoted, quoted_table
from qapla_db.migrations.sqltext import as_written

__all__ = ["constraint_names", "index_names"]


def index_names(migration: MigrationContext, upgrade: ops.UpgradeOps) -> list[Statement]:
    """Return renames for the indexes and unique constraints that differ in nothing but their names.

    SQLite cannot rename one; there it is made anew.

    :param upgrade: what autogenerate has found.
    """
    assert migration.dialect is not None
    if migration.dialect.name not in ("postgresql", "mysql", "mariadb"):
        return []
    found: list[Statement] = []
    for group in upgrade.ops:
        if isinstance(group, ops.ModifyTableOps):
            found += _index_pairs(migration, group)
            found += _unique_pairs(migration, group)
    return found


def _index_pairs(migration: MigrationContext, group: ops.ModifyTableOps) -> Iterator[Statement]:
    drops = [one for one in group.ops if isinstance(one, ops.DropIndexOp)]
    creates = [one for one in group.ops if isinstance(one, ops.CreateIndexOp)]
    gone = {str(one.index_name) for one in drops}
    for drop in drops:
        for create in creates:
            if str(create.index_name) in gone:
                continue  # two that swap their names: one of them must go first
            new, old = create.to_index(migration), drop.to_index(migration)
            if migration.impl.compare_indexes(new, old).is_equal:
                creates.remove(create)
                name = _formatted(migration.dialect, new)
                yield _index(migration.dialect, group, str(drop.index_name), name)
                break


def _unique_pairs(migration: MigrationContext, group: ops.ModifyTableOps) -> Iterator[Statement]:
    drops = [
        one
        for one in group.ops
        if isinstance(one, ops.DropConstraintOp)
        and one.constraint_type == "unique"
        and one.constraint_name
    ]
    creates = [
        one
        for one in group.ops
        if isinstance(one, ops.CreateUniqueConstraintOp) and one.constraint_name
    ]
    gone = {str(one.constraint_name) for one in drops}
    for drop in drops:
        for create in creates:
            if str(create.constraint_name) in gone:
                continue
            new, old = create.to_constraint(migration), drop.to_constraint()
            assert isinstance(old, sa.UniqueConstraint)
            if migration.impl.compare_unique_constraint(new, old).is_equal:
                creates.remove(create)
                rename = _constraint if migration.dialect.name == "postgresql" else _index
                name = _formatted(migration.dialect, new)
                yield rename(migration.dialect, group, str(drop.constraint_name), name)
                break


def constraint_names(
    migration: MigrationContext, tables: Mapping[sa.Table, str]
) -> Iterator[Statement]:
    """Yield renames of primary keys, foreign keys and checks, which autogenerate does not compare.

    On PostgreSQL only: MySQL's primary keys have no names and its foreign keys
    cannot be renamed, and SQLite renames none.

    :param tables: table of the models -> name that it has had before.
    """
    if migration.dialect.name != "postgresql":
        return
    inspector = sa.inspect(migration.connection)
    assert isinstance(inspector, Inspector)
    for table, before in tables.items():
        if not inspector.has_table(table.name, schema=table.schema):
            continue
        for old, constraint in _named(inspector, table, before):
            if constraint.name is None:
                continue
            new = _formatted(migration.dialect, constraint)
            if new != quoted(migration.dialect, old):
                yield _constraint(migration.dialect, table, old, new)


def _named(
    inspector: Inspector, table: sa.Table, before: str
) -> Iterator[tuple[str, sa.Constraint]]:
    """Yield (name in the database, constraint of the models)."""
    key = inspector.get_pk_constraint(table.name, schema=table.schema)
    columns = [column.name for column in table.primary_key]
    if key["name"] and key["constrained_columns"] == columns:
        yield key["name"], table.primary_key
    ours = {_signature(one): one for one in table.foreign_key_constraints}
    for found in inspector.get_foreign_keys(table.name, schema=table.schema):
        same = ours.pop(_reflected_signature(found), None)
        if same is not None and found["name"]:
            yield found["name"], same
    checks = {one["name"] for one in inspector.get_check_constraints(table.name, table.schema)}
    for constraint in table.constraints:
        if isinstance(constraint, sa.CheckConstraint) and constraint.name is not None:
            old = str(constraint.name).replace(table.name, before, 1)
            if old in checks:
                yield old, constraint


def _signature(constraint: sa.ForeignKeyConstraint) -> tuple[Any, ...]:
    elements = constraint.elements
    return (
        tuple(one.parent.name for one in elements),
        constraint.referred_table.name,
        tuple(one.column.name for one in elements),
    )


def _reflected_signature(found: Any) -> tuple[Any, ...]:
    return (
        tuple(found["constrained_columns"]),
        found["referred_table"],
        tuple(found["referred_columns"]),
    )


def _formatted(dialect: Dialect, named: sa.Constraint | sa.Index) -> str:
    """Return a name as SQL has it: cut to the server's limit, and quoted."""
    preparer = dialect.identifier_preparer
    if isinstance(named, sa.Index):
        return as_written(dialect, preparer.format_index(named))
    return as_written(dialect, preparer.format_constraint(named) or "")


def _index(dialect: Dialect, group: ops.ModifyTableOps, old: str, new: str) -> Statement:
    """Rename an index.

    :param new: quoted already.
    """
    old = quoted(dialect, old)
    if dialect.name == "postgresql":
        schema = f"{quoted(dialect, group.schema)}." if group.schema else ""
        return Statement(
            f"ALTER INDEX {schema}{old} RENAME TO {new}",
            f"ALTER INDEX {schema}{new} RENAME TO {old}",
        )
    alter = f"ALTER TABLE {quoted_table(dialect, group.table_name, group.schema)} RENAME INDEX"
    return Statement(f"{alter} {old} TO {new}", f"{alter} {new} TO {old}")


def _constraint(dialect: Dialect, table: Any, old: str, new: str) -> Statement:
    old = quoted(dialect, old)
    name = table.name if isinstance(table, sa.Table) else table.table_name
    alter = f"ALTER TABLE {quoted_table(dialect, name, table.schema)} RENAME CONSTRAINT"
    return Statement(f"{alter} {old} TO {new}", f"{alter} {new} TO {old}")
