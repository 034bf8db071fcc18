"""Where a database stands among its revisions."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from alembic.script import Script, ScriptDirectory
from alembic.util import CommandError

from qapla_db.database import Database
from qapla_db.errors import MigrationError

__all__ = ["Position", "position", "refuse_dependent", "script_of"]


@dataclass(frozen=True)
class Position:
    """What of a directory's revisions is applied.

    :ivar current: what the version table holds.
    :ivar heads: the last revisions of the directory.
    :ivar pending: what an upgrade would apply, in its order; None when that cannot be told.
    :ivar unknown: those of ``current`` that the directory does not have.
    """

    current: tuple[str, ...]
    heads: tuple[str, ...]
    pending: tuple[str, ...] | None
    unknown: tuple[str, ...]


def script_of(database: Database) -> ScriptDirectory:
    """Return the revisions of a database; nothing is connected, ``env.py`` is not run.

    :raises MigrationError: there is no such directory.
    """
    try:
        return ScriptDirectory(str(Path(database.migrations_path).absolute()))
    except CommandError as error:
        raise MigrationError(
            f"the revisions of the database {database.name!r} cannot be found: {error} "
            f"({database.paths_key!r} in paths)"
        ) from error


def position(
    script: ScriptDirectory, current: Collection[str], recorded: Collection[str] = ()
) -> Position:
    """Return where a database stands.

    Newer code may have migrated it to revisions that this code does not have. Then
    its record tells what of ours is among the applied ones.

    :param script: the revisions.
    :param current: what the version table holds.
    :param recorded: the revisions of its record, if it has one.
    """
    every = {one.revision: one for one in script.walk_revisions()}
    heads = tuple(sorted(script.get_heads()))
    unknown = tuple(sorted(set(current) - set(every)))
    applied = {one.revision for one in ancestors(script, set(current) & set(every))}
    if unknown:
        applied |= set(recorded)
    can_tell = not unknown or set(unknown) <= set(recorded)
    steps = reversed(ancestors(script, heads))
    pending = tuple(one.revision for one in steps if one.revision not in applied)
    return Position(tuple(sorted(current)), heads, pending if can_tell else None, unknown)


def refuse_dependent(database: Database, heads: Collection[str]) -> None:
    """Raise MigrationError where of several heads one depends on another.

    Alembic writes a revision that follows both, and fails when it is applied.
    """
    name, script = database.name, script_of(database)
    wanted = {found.revision for one in heads for found in script.get_revisions(one) if found}
    for one in sorted(wanted):
        before = {found.revision for found in ancestors(script, [one])} - {one}
        for other in sorted(before & wanted):
            raise MigrationError(
                f"the heads of {name!r} cannot be joined in one revision: {one} depends on "
                f"{other}, and Alembic cannot apply a revision that follows both. Join {other} "
                f"with other heads first (qapla-db merge {name} {other} ...), or keep these two "
                f"and go to both: qapla-db upgrade {name} heads"
            )


def ancestors(script: ScriptDirectory, revisions: Iterable[str]) -> list[Script]:
    """Return revisions and all that they build upon, the last first."""
    # one by one: together, one that depends on another is an error
    wanted = {found for one in revisions for found in script.iterate_revisions(one, "base")}
    return [one for one in script.walk_revisions() if one in wanted]
