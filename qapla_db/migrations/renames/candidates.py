"""What could be a rename: a table or column that is gone and one that is new and like it."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from alembic.operations import ops
from alembic.runtime.migration import MigrationContext
from sqlalchemy.engine import Inspector

from qapla_db.migrations.renames.kinds import may_be_same, stored_kinds
from qapla_db.migrations.renames.operations import Rename, RenameTable, column_rename

__all__ = ["HINT", "Candidate", "column_candidates", "table_candidates"]

_LIKE_ENOUGH = 0.5
"""Share of the columns that two tables have in common; more speaks for it than against."""

HINT = "renamed_from"
"""Key in the ``info`` of a table or column: what it was called before."""


@dataclass(frozen=True)
class Candidate:
    """What may have been renamed.

    :ivar table: key of the table of the models.
    :ivar old: what is gone, for people: ``users`` or ``users.age``.
    :ivar new: what is new: ``people`` or ``users.height``.
    :ivar flags: how a caller may say that it is one; the first is what messages show.
    :ivar operation: what renames it.
    :ivar score: how much speaks for it, up to 1.
    :ivar is_likely: whether it is worth a question.
    :ivar is_hinted: whether the models say that it is one.
    """

    table: str
    old: str
    new: str
    flag: str
    flags: frozenset[str]
    operation: Rename
    score: float
    is_likely: bool
    is_hinted: bool

    @property
    def question(self) -> str:
        """The question to ask a person."""
        return f"Was {self.old} renamed to {self.new}?"

    def competes_with(self, other: Candidate) -> bool:
        """Tell whether not both can be true."""
        return self.old == other.old or self.new == other.new


# --- tables


def table_candidates(
    migration: MigrationContext,
    upgrade: ops.UpgradeOps,
    left_alone: Iterable[str],
    metadata: Iterable[sa.MetaData],
) -> Iterator[Candidate]:
    """Yield each pair of a table without a model and a model without a table.

    :param upgrade: what autogenerate has found.
    :param left_alone: tables of the shadow that no model has.
    """
    created = [one for one in upgrade.ops if isinstance(one, ops.CreateTableOp)]
    if not created:
        return
    models = {key: table for one in metadata for key, table in one.tables.items()}
    retargeted = set(_retargeted(upgrade))
    for old_key in sorted(left_alone):
        schema, _, name = old_key.rpartition(".")
        old: sa.Table | None = None
        for create in created:
            if (create.schema or "") != schema:
                continue
            if old is None:
                old = _reflected(migration, name, schema or None)
            new_key = f"{schema}.{create.table_name}" if schema else str(create.table_name)
            new = models.get(new_key)
            if new is None:
                continue
            score = _likeness(migration, old, new) + 0.4 * ((old_key, new_key) in retargeted)
            flag = f"{old_key}:{new.name}"
            yield Candidate(
                table=new_key,
                old=old_key,
                new=new_key,
                flag=flag,
                flags=frozenset({flag}),
                operation=RenameTable(name, new.name, schema=schema or None),
                score=min(score, 1.0),
                is_likely=score >= _LIKE_ENOUGH,
                is_hinted=new.info.get(HINT) in (name, old_key),
            )


def _reflected(migration: MigrationContext, name: str, schema: str | None) -> sa.Table:
    return sa.Table(
        name,
        sa.MetaData(),
        schema=schema,
        autoload_with=migration.connection,
        resolve_fks=False,
    )


def _likeness(migration: MigrationContext, old: sa.Table, new: sa.Table) -> float:
    """Return the share of columns in common, by name and type, or of types alone."""
    ours = {one.name: one for one in new.columns}
    common = sum(
        one.name in ours and may_be_same(migration, one, ours[one.name]) for one in old.columns
    )
    share = common / (len(old.columns) + len(new.columns) - common or 1)
    kinds = [
        sorted(sorted(stored_kinds(migration.dialect, one.type)) for one in table.columns)
        for table in (old, new)
    ]
    return share + 0.2 * (kinds[0] == kinds[1])


def _retargeted(upgrade: ops.UpgradeOps) -> Iterator[tuple[str, str]]:
    """Yield (old, new) for foreign keys of a table to one table that are now to another."""
    for group in upgrade.ops:
        if not isinstance(group, ops.ModifyTableOps):
            continue
        dropped = [
            one.to_constraint()
            for one in group.ops
            if isinstance(one, ops.DropConstraintOp) and one.constraint_type == "foreignkey"
        ]
        for create in group.ops:
            if not isinstance(create, ops.CreateForeignKeyOp):
                continue
            schema = create.kw.get("referent_schema")
            new = f"{schema}.{create.referent_table}" if schema else str(create.referent_table)
            for one in dropped:
                assert isinstance(one, sa.ForeignKeyConstraint)
                yield one.elements[0].target_fullname.rpartition(".")[0], new


# --- columns


def column_candidates(
    migration: MigrationContext,
    upgrade: ops.UpgradeOps,
    metadata: Collection[sa.MetaData],
    before: Mapping[str, str],
) -> Iterator[Candidate]:
    """Yield each pair of a column that is gone and a new one of the same table.

    :param upgrade: what autogenerate has found.
    :param before: table of the models -> its name before this revision.
    """
    models = {key: table for one in metadata for key, table in one.tables.items()}
    for group in upgrade.ops:
        if not isinstance(group, ops.ModifyTableOps):
            continue
        gone = [one.to_column() for one in group.ops if isinstance(one, ops.DropColumnOp)]
        new = [one.column for one in group.ops if isinstance(one, ops.AddColumnOp)]
        key = f"{group.schema}.{group.table_name}" if group.schema else group.table_name
        if gone and new and key in models:
            order = _Order(migration, models[key])
            ours = {column.name: column for column in models[key].columns}
            for old in gone:
                for one in new:
                    found = ours[one.name]
                    yield _column(migration, key, before.get(key, key), old, found, order)


class _Order:
    """Where columns stand: in the database and in the models."""

    def __init__(self, migration: MigrationContext, table: sa.Table) -> None:
        inspector = sa.inspect(migration.connection)
        assert isinstance(inspector, Inspector)
        found = inspector.get_columns(table.name, schema=table.schema)
        self.stored = [one["name"] for one in found]
        self.ours = [one.name for one in table.columns]

    def is_same(self, old: str, new: str) -> bool:
        return self.stored.index(old) == self.ours.index(new)


def _column(
    migration: MigrationContext,
    key: str,
    before: str,
    old: sa.Column[Any],
    new: sa.Column[Any],
    order: _Order,
) -> Candidate:
    schema, _, table = key.rpartition(".")
    score = 0.25 * difflib.SequenceMatcher(None, old.name, new.name).ratio()
    score += 0.4 * (not migration.impl.compare_type(old, new))
    score += 0.15 * (bool(old.nullable) == bool(new.nullable))
    score += 0.2 * order.is_same(old.name, new.name)
    return Candidate(
        table=key,
        old=f"{key}.{old.name}",
        new=f"{key}.{new.name}",
        flag=f"{key}.{old.name}:{new.name}",
        flags=frozenset(f"{one}.{old.name}:{new.name}" for one in (key, before)),
        operation=column_rename(migration.dialect, table, old.name, new.name, schema or None),
        score=score,
        is_likely=may_be_same(migration, old, new),
        is_hinted=new.info.get(HINT) == old.name,
    )
