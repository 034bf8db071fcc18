"""Renames that the models say: what they cannot mean is an error."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

import sqlalchemy as sa
from alembic.operations import ops

from qapla_db.errors import InvalidArgument
from qapla_db.migrations.renames.candidates import HINT, Candidate

__all__ = ["changed_tables", "check_columns", "check_tables"]


def check_tables(database: str, candidates: Iterable[Candidate], decided: Collection[str]) -> None:
    """Refuse hints of several new tables at the same old one.

    :param database: its name, for messages.
    :param decided: old and new names of tables that the caller has said renames of.
    :raises InvalidArgument: there are such.
    """
    hinted = [one for one in candidates if one.is_hinted and not {one.old, one.new} & set(decided)]
    _check_one_each(database, [(one.new, one.old) for one in hinted])


def check_columns(
    database: str,
    upgrade: ops.UpgradeOps,
    metadata: Iterable[sa.MetaData],
    decided: Collection[str],
) -> None:
    """Refuse hints of new columns at what is not gone, and of several at the same column.

    Hints of columns that are there already are those of earlier revisions.

    :param database: its name, for messages.
    :param upgrade: what autogenerate has found.
    :param decided: old and new names of columns that the caller has said renames of.
    :raises InvalidArgument: there are such.
    """
    hints: list[tuple[str, str]] = []
    for table, group in changed_tables(upgrade, metadata):
        gone = {one.column_name for one in group.ops if isinstance(one, ops.DropColumnOp)}
        new = {one.column.name for one in group.ops if isinstance(one, ops.AddColumnOp)}
        for column in table.columns:
            old = column.info.get(HINT)
            ours, theirs = f"{table.key}.{column.name}", f"{table.key}.{old}"
            if old is None or column.name not in new or {ours, theirs} & set(decided):
                continue
            if old not in gone:
                raise InvalidArgument(
                    f"no revision of {database!r} is written: the models say that {ours} was "
                    f"renamed from {old!r}, but {_why_not(table, old)}. Correct 'renamed_from' in "
                    f"the info of {ours}"
                )
            hints.append((ours, theirs))
    _check_one_each(database, hints)


def changed_tables(
    upgrade: ops.UpgradeOps, metadata: Iterable[sa.MetaData]
) -> Iterator[tuple[sa.Table, ops.ModifyTableOps]]:
    """Yield each table of the models that something is changed of, with the changes."""
    models = {key: table for one in metadata for key, table in one.tables.items()}
    for group in upgrade.ops:
        if isinstance(group, ops.ModifyTableOps):
            key = f"{group.schema}.{group.table_name}" if group.schema else group.table_name
            if key in models:
                yield models[key], group


def _why_not(table: sa.Table, old: object) -> str:
    if any(one.name == old for one in table.columns):
        return f"{table.key}.{old} is still in the models"
    return f"the migrations have no column {table.key}.{old}"


def _check_one_each(database: str, hints: Iterable[tuple[str, str]]) -> None:
    """Refuse several new names of one old one; hints are pairs of new and old."""
    first: dict[str, str] = {}
    for new, old in hints:
        other = first.setdefault(old, new)
        if other != new:
            raise InvalidArgument(
                f"no revision of {database!r} is written: the models say that both {other} and "
                f"{new} were renamed from {old}. Leave 'renamed_from' in the info of one of them"
            )
