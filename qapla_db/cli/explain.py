"""What Alembic's errors mean for somebody with several databases and a git repository."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.script.revision import MultipleHeads, ResolutionError, RevisionError
from alembic.util import CommandError

from qapla_db.cli.output import short
from qapla_db.database import Database
from qapla_db.errors import MigrationError, QaplaError, ServerError
from qapla_db.migrations.commands import FILE_TEMPLATE
from qapla_db.migrations.looking import command_for, expect_answer, expect_present

__all__ = ["config_of", "explained", "refuse_missing", "script_of"]

_GIT_WAIT = 10.0
"""Seconds that git may take."""

_NOT_LET_IN = re.compile(
    'authentication failed|access denied|no password supplied|role ".*" does not exist'
    "|no pg_hba.conf entry",
    re.IGNORECASE,
)
"""What PostgreSQL, MariaDB and MySQL say of a user or a password."""

_GAP = re.compile(r"Revision (?P<revision>.+) referenced from .+ is not present", re.DOTALL)
"""Alembic's warning of a revision that another one follows and no file has."""


def config_of(database: Database) -> Config:
    """Return Alembic's configuration for what asks no database.

    :raises MigrationError: the database has no migrations directory.
    """
    path = Path(database.migrations_path).absolute()
    if not path.is_dir():
        raise _no_directory(database, path)
    config = Config(stdout=io.StringIO())
    config.set_main_option("script_location", str(path).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.set_main_option("file_template", FILE_TEMPLATE)
    return config


def script_of(database: Database) -> ScriptDirectory:
    """Return the revisions of a database, without connecting to it.

    :raises MigrationError: it has no migrations directory.
    """
    return ScriptDirectory.from_config(config_of(database))


@contextmanager
def explained(
    database: Database, asked: str | None = None, *, makes: bool = False
) -> Iterator[None]:
    """Say of errors of the block what to do about them.

    :param asked: the revision that the user has named.
    :param makes: the block makes the database, so that it is no advice to do so.
    """
    with warnings.catch_warnings():
        # Alembic warns of it, and then fails with a bare KeyError
        warnings.filterwarnings("error", _GAP.pattern, UserWarning)
        try:
            yield
        except (CommandError, RevisionError, QaplaError, UserWarning) as error:
            better = _better(error, database, asked, makes)
            if better is None:
                raise
            raise better from error


def refuse_missing(database: Database) -> None:
    """Refuse a database that is not there, also where connecting would create it.

    :raises ServerError: it is a file of SQLite, and missing (a server says so itself), or
        its server does not answer.
    :raises MigrationError: it has no migrations directory, which is to be written first.
    """
    config_of(database)
    with explained(database):
        expect_present(database)
        expect_answer(database)


def _better(
    error: BaseException, database: Database, asked: str | None, makes: bool
) -> QaplaError | None:
    causes = list(_causes(error))
    for cause in causes:
        gap = _GAP.fullmatch(str(cause)) if isinstance(cause, UserWarning) else None
        if gap is not None:
            return _missing_file(Path(database.migrations_path), gap["revision"], database.name)
        if isinstance(cause, ResolutionError):
            return _cannot_locate(database, str(cause.argument), asked)
        if isinstance(cause, MultipleHeads):
            return _two_heads(database)
    if isinstance(error, ServerError) and not makes and not _is_there(database):
        return ServerError(
            f"the database {database.name!r} at {database.settings.address} is not there; "
            f"'{command_for(database, 'ensure')}' makes and migrates it, as 'upgrade --create' does"
        )
    if isinstance(error, ServerError) and _NOT_LET_IN.search(error.message):
        return _not_let_in(database, error)
    path = Path(database.migrations_path).absolute()
    if isinstance(error, MigrationError) and not (path / "env.py").is_file():
        return _no_directory(database, path)
    if isinstance(error, CommandError | RevisionError) and not isinstance(error, QaplaError):
        return MigrationError(f"the migrations of the database {database.name!r}: {error}")
    return None


def _not_let_in(database: Database, error: ServerError) -> ServerError:
    settings = database.settings
    original = getattr(error.__cause__, "orig", None) or error
    return ServerError(
        f"the server of the database {database.name!r} at {settings.address} runs, but refuses the "
        f"user or the password: {' '.join(str(original).split())}. Correct them in "
        f"{settings.source!r}, or give the user access on the server"
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_there(database: Database) -> bool:
    try:
        expect_answer(database)
        return database.exists()
    except QaplaError:
        return True  # who knows; the first error is the better one


def _no_directory(database: Database, path: Path) -> MigrationError:
    return MigrationError(
        f"the migrations directory {path} of the database {database.name!r} is not there or has "
        f"no env.py; 'qapla-db init {database.name}' writes it, and 'qapla-db initdb "
        f"{database.name}' makes the first revision and the database too"
    )


def _two_heads(database: Database) -> MigrationError:
    heads = ", ".join(sorted(script_of(database).get_heads()))
    return MigrationError(
        f"the migrations of the database {database.name!r} have several heads ({heads}): two "
        f"revisions follow the same one. 'qapla-db merge {database.name}' joins them"
    )


# --- a revision that no file has


def _cannot_locate(database: Database, revision: str, asked: str | None) -> MigrationError:
    directory = database.migrations_path
    if asked is not None and revision in asked:
        problem = f"there is no revision {revision!r} in {directory}"
    else:
        problem = (
            f"the database {database.name!r} at {database.settings.address} is at the revision "
            f"{revision!r}, which no file in {directory} has"
        )
    where = _elsewhere(database, revision) or _in_git(Path(directory), revision)
    if where is None and asked is not None and revision in asked:
        names = ", ".join(database.host.dbs)
        where = f"'qapla-db history {database.name}' lists what there is (databases: {names})"
    stamp = (
        "Bring the file back, or note the revision that the schema has: "
        f"{command_for(database, 'stamp', 'REVISION', '--purge')}"
    )
    return MigrationError(f"{problem}. {where or stamp}")


def _missing_file(directory: Path, revision: str, name: str) -> MigrationError:
    files = sorted(path for path in directory.rglob("*.py") if revision in _followed(path))
    needed = ", ".join(map(short, files)) or "another one"
    where = _in_git(directory, revision) or "Bring the file back, or change what follows it"
    return MigrationError(
        f"the revision {revision!r} of the database {name!r} is needed by {needed} and its file "
        f"is missing. {where}"
    )


def _followed(path: Path) -> set[object]:
    """Return the revisions that the one in a file comes after."""
    try:
        body = ast.parse(path.read_bytes()).body
    except (SyntaxError, ValueError):
        return set()
    found: set[object] = set()
    for one in body:
        if isinstance(one, ast.Assign | ast.AnnAssign) and one.value is not None:
            targets = one.targets if isinstance(one, ast.Assign) else [one.target]
            names = {target.id for target in targets if isinstance(target, ast.Name)}
            if names & {"down_revision", "depends_on"}:
                values = ast.walk(one.value)
                found |= {value.value for value in values if isinstance(value, ast.Constant)}
    return found


def _elsewhere(database: Database, revision: str) -> str | None:
    """Say which other registered database has a revision."""
    for other in database.host.dbs.values():
        if other is database:
            continue
        try:
            script_of(other).get_revision(revision)
        except (CommandError, RevisionError, QaplaError, UserWarning):
            continue
        return (
            f"It belongs to the database {other.name!r}: name that one, or see whether "
            f"'db:{database.name}:url' leads to the database of {other.name!r}"
        )
    return None


def _in_git(directory: Path, revision: str) -> str | None:
    """Say where git has a file with a revision: deleted here, or on another branch."""
    log = ["log", "--all", "--format=%h", "--diff-filter=A", "--name-only", "-1"]
    # other files have it too, as what they follow
    line = f"^revision( *:[^=]*)? *= *[\"']{re.escape(revision)}[\"']"
    added = _git(directory, *log, "-G", line, "--", ".").split()
    if len(added) < 2:
        return None
    commit, path = added[0], added[-1]
    gone = _git(directory, "log", "--format=%h", "--diff-filter=D", "-1", "--", f":/{path}").strip()
    if gone:
        return (
            f"Its file {path} was deleted in the commit {gone}; to have it back: git checkout "
            f"{gone}~1 -- :/{path}"
        )
    containing = _git(
        directory, "branch", "--all", "--contains", commit, "--format=%(refname:short)"
    )
    branches = containing.split()
    here = _git(directory, "branch", "--show-current").strip()
    if here in branches:
        return f"Its file {path} is in the commit {commit}: git checkout {commit} -- :/{path}"
    if not branches:
        return None
    return (
        f"Its file {path} is on the branch {branches[0]!r}: go back there to downgrade before "
        "you change branches, or merge it"
    )


def _git(directory: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(directory), *arguments],
            capture_output=True,
            text=True,
            timeout=_GIT_WAIT,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
