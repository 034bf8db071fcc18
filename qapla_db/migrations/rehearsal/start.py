"""Where a rehearsal begins: a revision, what is deployed, or what another git branch has."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterable
from pathlib import Path

from alembic.script import Script, ScriptDirectory
from alembic.util import CommandError

from qapla_db.database import Database
from qapla_db.errors import InvalidArgument, MigrationError
from qapla_db.migrations.commands import current

__all__ = ["DEPLOYED", "GIT", "find_start"]

DEPLOYED = "@deployed"
GIT = "git:"

_WAIT = 60.0
"""Seconds that git may take."""


def find_start(database: Database, script: ScriptDirectory, start: str | None) -> tuple[str, ...]:
    """Return the revisions to begin with; none for an empty database.

    :param start: as for :func:`~qapla_db.migrations.rehearsal.rehearse`.
    :raises InvalidArgument: it is not known here.
    """
    if start is None:
        return _usual_start(database, script)
    if start == DEPLOYED:
        return _known(script, _deployed(database), f"the database {database.name!r}")
    if start.startswith(GIT):
        ref = start.removeprefix(GIT)
        return _known(script, _heads_in_git(Path(script.dir), ref), f"the git reference {ref!r}")
    if start == "base":
        return ()
    try:
        # of "-1" it may return the text "base" instead of a file, and None before that
        found: tuple[Script | str | None, ...] = script.get_revisions(start) if start else (None,)
        if None in found:
            raise CommandError("there is no such revision")
    except CommandError as error:
        raise InvalidArgument(
            f"a rehearsal of {database.name!r} cannot start from {start!r}: {error}. Name a "
            f"revision of {script.dir}, {DEPLOYED!r} or '{GIT}BRANCH'"
        ) from error
    return tuple(one.revision for one in found if isinstance(one, Script))


def _usual_start(database: Database, script: ScriptDirectory) -> tuple[str, ...]:
    """Return where the database is if it is behind head, else the revisions before head."""
    heads = set(script.get_heads())
    deployed = set(current(database)) if database.exists() else set()
    if deployed and deployed != heads and all(_has(script, one) for one in deployed):
        return tuple(sorted(deployed))
    before: set[str] = set()
    for head in script.get_revisions(tuple(heads)):
        down = head.down_revision if head is not None else None
        before.update((down,) if isinstance(down, str) else down or ())
    return tuple(sorted(before))


def _deployed(database: Database) -> tuple[str, ...]:
    name, address = database.name, database.settings.address
    if not database.exists():
        raise MigrationError(
            f"a rehearsal from {DEPLOYED!r} needs the database {name!r} at {address}, which does "
            "not exist; name a revision to start from"
        )
    found = current(database)
    if not found:
        raise MigrationError(
            f"the database {name!r} at {address} is at no revision, so there is nothing to "
            f"rehearse from {DEPLOYED!r}; name a revision to start from"
        )
    return found


def _known(script: ScriptDirectory, revisions: Iterable[str], where: str) -> tuple[str, ...]:
    found = tuple(sorted(revisions))
    missing = [one for one in found if not _has(script, one)]
    if missing:
        raise InvalidArgument(
            f"{where} is at {', '.join(missing)}, which {script.dir} does not have: the revision "
            "belongs to another branch, or its file was deleted. Bring the file back, or name a "
            "revision to start from"
        )
    return found


def _has(script: ScriptDirectory, revision: str) -> bool:
    try:
        found: Script | None = script.get_revision(revision)
    except CommandError:
        return False
    return found is not None and found.revision == revision


# --- git


def _heads_in_git(directory: Path, ref: str) -> tuple[str, ...]:
    """Return the heads of a migrations directory as a git reference has it.

    Nothing is checked out and no file of it is executed.
    """
    commit = _commit(directory, ref)
    listed = _git(directory, ref, "ls-tree", "-r", "--name-only", commit, ".")
    parents: dict[str, set[str]] = {}
    for name in listed.splitlines():
        if name.endswith(".py"):
            source = _git(directory, ref, "show", f"{commit}:./{name}")
            parents.update(_revision_in(source))
    if not parents:
        raise InvalidArgument(
            f"the git reference {ref!r} has no revisions in {directory}; name a revision, or "
            "'base' to rehearse from an empty database"
        )
    return tuple(set(parents) - set().union(*parents.values()))


def _commit(directory: Path, ref: str) -> str:
    # a reference that begins with a hyphen would be an option
    return _git(directory, ref, "rev-parse", "--verify", "--end-of-options", f"{ref}^{{commit}}")


def _git(directory: Path, ref: str, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=directory,
            capture_output=True,
            encoding="utf-8",
            timeout=_WAIT,
            check=False,
        )
    except FileNotFoundError as error:
        raise InvalidArgument(
            f"'{GIT}{ref}' needs the command git, which is not installed; name a revision"
        ) from error
    if done.returncode:
        reason = " ".join(done.stderr.split())
        raise InvalidArgument(
            f"git does not know '{GIT}{ref}' in {directory}: {reason}. Name a branch, tag or "
            "commit that it knows (git fetch brings others)"
        )
    return done.stdout.strip()


def _revision_in(source: str) -> dict[str, set[str]]:
    """Return a revision and its parents, read from its file without executing it."""
    values: dict[str, object] = {}
    for node in ast.parse(source).body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if isinstance(node, ast.AnnAssign):
            targets = [node.target]
        value = getattr(node, "value", None)
        for target in targets:
            if isinstance(target, ast.Name) and target.id in ("revision", "down_revision"):
                values[target.id] = ast.literal_eval(value) if value is not None else None
    revision, down = values.get("revision"), values.get("down_revision")
    if not isinstance(revision, str):
        return {}
    if isinstance(down, str):
        return {revision: {down}}
    return {revision: {str(one) for one in down} if isinstance(down, (tuple, list)) else set()}
