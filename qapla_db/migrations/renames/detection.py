"""Renames as they are put into a revision: executed in a shadow, and compared again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import sqlalchemy as sa
from alembic.autogenerate import produce_migrations
from alembic.operations import Operations, ops
from alembic.runtime.migration import MigrationContext

from qapla_db.errors import MigrationError
from qapla_db.migrations.autogenerate.defaults import write_percents_once
from qapla_db.migrations.autogenerate.tables import OwnTables
from qapla_db.migrations.renames.answers import Answers
from qapla_db.migrations.renames.candidates import (
    Candidate,
    column_candidates,
    table_candidates,
)
from qapla_db.migrations.renames.hints import check_columns, check_tables
from qapla_db.migrations.renames.names import constraint_names, index_names
from qapla_db.migrations.renames.operations import Rename

__all__ = ["Detection"]


class Detection:
    """Puts renames into a revision that autogenerate is about to write.

    The database is changed for it: it must be a shadow.
    """

    def __init__(self, answers: Answers) -> None:
        self.answers = answers

    def __call__(
        self, migration: MigrationContext, script: ops.MigrationScript, tables: OwnTables
    ) -> None:
        """Change the operations of a script.

        :param script: what autogenerate has found.
        :param tables: what it has looked at.
        :raises Refused: somebody must decide, and nobody can be asked.
        :raises InvalidArgument: a rename that was said, or that the models say, fits nothing.
        :raises MigrationError: a rename cannot be executed.
        """
        write_percents_once(migration)
        trial = _Trial(self.answers.database, migration, script, tables)
        found = list(table_candidates(migration, trial.upgrade, tables.left_alone, tables.metadata))
        check_tables(self.answers.database, found, self._decided(found))
        chosen = self.answers.choose(found)
        before = {key: key for key in tables.names} | {one.new: one.old for one in chosen}
        trial.add(one.operation for one in chosen)
        trial.compare_again()
        found = list(column_candidates(migration, trial.upgrade, tables.metadata, before))
        check_columns(self.answers.database, trial.upgrade, tables.metadata, self._decided(found))
        columns = self.answers.choose(found)
        trial.add(one.operation for one in columns)
        trial.compare_again()
        self.answers.check_used()
        trial.expect({one.new for one in (*chosen, *columns)})
        touched = {one.table for one in (*chosen, *columns)}
        trial.add(index_names(migration, trial.upgrade))
        trial.add(constraint_names(migration, _with_neighbours(tables.metadata, touched, before)))
        trial.compare_again()
        trial.finish()

    def _decided(self, candidates: Iterable[Candidate]) -> set[str]:
        """Return what was renamed and to what, of what the caller has said."""
        said = [one for one in candidates if one.flags & set(self.answers.said)]
        return {name for one in said for name in (one.old, one.new)}


class _Trial:
    """Renames as they are executed in the shadow, and what is left to do afterwards."""

    def __init__(
        self,
        name: str,
        migration: MigrationContext,
        script: ops.MigrationScript,
        tables: OwnTables,
    ) -> None:
        assert script.upgrade_ops is not None
        self.name = name
        self.migration = migration
        self.script = script
        self.tables = tables
        self.renames: list[Rename] = []
        self.upgrade: ops.UpgradeOps = script.upgrade_ops
        self._is_stale = False

    def add(self, renames: Iterable[Rename]) -> None:
        """Execute renames."""
        for one in renames:
            try:
                Operations(self.migration).invoke(one)
            except sa.exc.DBAPIError as error:
                raise MigrationError(
                    f"no revision of {self.name!r} is written: its shadow database refuses the "
                    f"rename {error.statement!r}: {' '.join(str(error.orig).split())}. Write it by "
                    "hand, in a revision made with --empty"
                ) from error
            self.renames.append(one)
            self._is_stale = True

    def compare_again(self) -> None:
        """Run autogenerate again, if anything was renamed."""
        if not self._is_stale:
            return
        self._is_stale = False
        self.tables.left_alone.clear()
        found = produce_migrations(self.migration, self.migration.opts["target_metadata"])
        assert found.upgrade_ops is not None
        self.upgrade = found.upgrade_ops

    def expect(self, names: set[str]) -> None:
        """Fail where something is new though it was renamed: its data would be lost."""
        new = {name for one in self.upgrade.ops for name in _created(one)}
        if new & names:
            raise MigrationError(
                f"no revision of {self.name!r} is written: after a rename "
                f"{', '.join(sorted(new & names))} was not there. Write it by hand, in a revision "
                "made with --empty"
            )

    def finish(self) -> None:
        """Write renames and what is left to do into the script, and the way back."""
        if not self.renames:
            return
        assert self.script.upgrade_ops is not None
        assert self.script.downgrade_ops is not None
        operations = [*self.renames, *self.upgrade.ops]
        self.script.upgrade_ops.ops[:] = operations
        self.script.downgrade_ops.ops[:] = [one.reverse() for one in reversed(operations)]


def _created(operation: ops.MigrateOperation) -> Iterator[str]:
    """Yield tables and columns that an operation makes, as candidates name them."""
    if isinstance(operation, ops.CreateTableOp):
        schema = f"{operation.schema}." if operation.schema else ""
        yield f"{schema}{operation.table_name}"
    elif isinstance(operation, ops.ModifyTableOps):
        schema = f"{operation.schema}." if operation.schema else ""
        for one in operation.ops:
            if isinstance(one, ops.AddColumnOp):
                yield f"{schema}{operation.table_name}.{one.column.name}"


def _with_neighbours(
    metadata: Iterable[sa.MetaData], touched: set[str], before: dict[str, str]
) -> dict[sa.Table, str]:
    """Return tables that were renamed, or have such columns, and those that refer to them.

    :returns: table -> its name before, without schema.
    """
    found: dict[sa.Table, str] = {}
    for one in metadata:
        for key, table in one.tables.items():
            referred = {other.referred_table.key for other in table.foreign_key_constraints}
            if touched & {key, *referred}:
                found[table] = before[key].rpartition(".")[2]
    return found
