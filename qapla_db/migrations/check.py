"""What must be right before a change of the models or the migrations is merged."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from alembic.script import Script, ScriptDirectory

from qapla_db.database import Database
from qapla_db.migrations.drift import differences
from qapla_db.migrations.edits import edits_in
from qapla_db.migrations.looking import command_for, look_at
from qapla_db.migrations.position import script_of
from qapla_db.migrations.shadow import shadow
from qapla_db.migrations.status import DatabaseStatus, status_of
from qapla_db.record import Applied

__all__ = ["Problem", "check"]

_DOWNGRADE = "downgrade"
_UPGRADE = "upgrade"


@dataclass(frozen=True)
class Problem:
    """Something that is wrong with the migrations of a database.

    :ivar database: its name.
    :ivar rule: ``heads``, ``downgrade``, ``models``; of the database itself
        ``unreachable``, ``record``, ``unknown``, ``behind``, ``edited``, ``deleted``.
    :ivar message: what is wrong.
    :ivar remedy: the next step.
    :ivar revision: of which revision, where it is about one.
    :ivar path: its file.
    """

    database: str
    rule: str
    message: str
    remedy: str
    revision: str | None = None
    path: str | None = None

    def __str__(self) -> str:
        return f"{self.database}: {self.message}. {self.remedy}"

    def as_json(self) -> dict[str, Any]:
        """Return it in types that JSON has."""
        return asdict(self)


def check(database: Database, *, live: bool = True) -> list[Problem]:
    """Return what is wrong with a database and its migrations; nothing when all is well.

    There is one head; the database is at it; every revision has a downgrade; no
    file was edited or deleted after it was applied; and what the revisions make
    of an empty database is what the models say.

    :param database: a prepared database.
    :param live: ask the database itself too; without it only the directory and the
        models are checked, on a scratch database of the same server.
    :raises MigrationError: the revisions cannot be run on an empty database.
    :raises ServerError: no scratch database can be made.
    :raises Refused: it is of the environment ``production``, beside which none is made.
    """
    script = script_of(database)
    problems = [*_heads(database, script), *_downgrades(database, script)]
    if live:
        status = status_of(database)
        problems += _position(database, status)
        if status.reachable:
            problems += _files(database, script)
    if not any(one.rule == "heads" for one in problems):
        problems += _models(database)
    return problems


# --- the directory


def _heads(database: Database, script: ScriptDirectory) -> Iterator[Problem]:
    heads = sorted(script.get_heads())
    if len(heads) > 1:
        yield Problem(
            database.name,
            "heads",
            f"there are {len(heads)} heads: {', '.join(heads)}",
            f"Merge them: qapla-db merge {database.name}",
        )


def _downgrades(database: Database, script: ScriptDirectory) -> Iterator[Problem]:
    for one in reversed(list(script.walk_revisions())):
        if _lacks_downgrade(one):
            yield Problem(
                database.name,
                _DOWNGRADE,
                f"the revision {one.revision} has an upgrade, but its downgrade does nothing",
                f"Write downgrade() in {one.path}, or raise an error there that says why there "
                "is no way back",
                one.revision,
                one.path,
            )


def _lacks_downgrade(script: Script) -> bool:
    with suppress(OSError, SyntaxError, ValueError):  # as of compiled files
        tree = ast.parse(Path(script.path).read_bytes())
        functions = {one.name: one for one in tree.body if isinstance(one, ast.FunctionDef)}
        if _UPGRADE in functions and not _does_nothing(functions[_UPGRADE]):
            there = functions.get(_DOWNGRADE)
            return not hasattr(script.module, _DOWNGRADE) if there is None else _does_nothing(there)
    return False


def _does_nothing(function: ast.FunctionDef) -> bool:
    """Tell whether there are only ``pass``, ``...``, texts and ``return``."""
    return all(
        isinstance(one, ast.Pass)
        or (isinstance(one, ast.Return) and one.value is None)
        or (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant))
        for one in function.body
    )


# --- the database


def _position(database: Database, status: DatabaseStatus) -> Iterator[Problem]:
    name, problem = status.name, (status.problem or "it does not answer").rstrip(".")
    if not status.reachable:
        yield Problem(name, "unreachable", problem, "Or check without the database")
    elif status.pending is None:
        yield Problem(name, "unknown", problem, "Until then it cannot be upgraded")
    elif status.problem is not None:
        yield Problem(name, "record", problem, "Until then it cannot be upgraded")
    if status.pending:
        yield Problem(
            name,
            "behind",
            f"the database at {status.address} is at {', '.join(status.current) or 'base'} and "
            f"lacks {', '.join(status.pending)}",
            f"Run: {command_for(database, 'upgrade')}",
        )


def _files(database: Database, script: ScriptDirectory) -> Iterator[Problem]:
    record = look_at(database).record
    if record is None:
        return
    here = {one.revision for one in script.walk_revisions()}
    for revision, applied in record.revisions.items():
        if revision not in here:
            yield Problem(
                database.name,
                "deleted",
                f"the revision {revision} was applied{_when(applied)}, but has no file here",
                "Bring the file back, or update this code: newer code may have applied it",
                revision,
            )
    for one in edits_in(script, record):
        revision, path = one.script.revision, one.script.path
        yield Problem(
            database.name,
            "edited",
            f"the file of the revision {revision} was edited after it was "
            f"applied{_when(one.applied)}",
            f"Undo the change in {path} and write a new revision for it; if it does to a database "
            f"what it did before: {command_for(database, 'rewrite-record', '--accept-edits')}",
            revision,
            path,
        )


def _when(applied: Applied) -> str:
    """Return when and by whom a revision was applied, where that is known."""
    when = f" on {applied.applied_at:%Y-%m-%d %H:%M} UTC" if applied.applied_at else ""
    return f"{when} by {applied.applied_by}" if applied.applied_by else when


# --- the models


def _models(database: Database) -> Iterator[Problem]:
    with shadow(database) as scratch:
        found = differences(database, url=scratch.url)
    if found:
        yield Problem(
            database.name,
            "models",
            f"the models are not what the revisions make: {'; '.join(found)}",
            f"Write a revision: qapla-db revision {database.name} -m '...'",
        )
