"""What is tested of the migrations of a database, and what is said where it is wrong."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.script.revision import RevisionError
from alembic.util import CommandError

from qapla_db.database import Database
from qapla_db.errors import QaplaError
from qapla_db.migrations.looking import command_for
from qapla_db.migrations.position import script_of
from qapla_db.migrations.rehearsal import rehearse
from qapla_db.testing.migrations.offline import sql_of, unwritable
from qapla_db.testing.migrations.rehearsal import ROWS, before_head, expect_nothing
from qapla_db.testing.migrations.trials import Trials

__all__ = ["CHECKS", "explained"]

_REFUSED_FILES = "Revision .+ is (not present|present more than once)"
"""Alembic's warnings of files that do not fit together, after which it fails without words."""


@contextmanager
def explained(trials: Trials, check: str) -> Iterator[None]:
    """Let the test fail with what an error of the block says, without a traceback of ours.

    What another test of the database has said is not said again: the line names that test.

    :param check: the test's name.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("error", _REFUSED_FILES, UserWarning)
        try:
            yield
        except Exception as error:
            message = _message(trials.database, error)
            first = trials.told.setdefault(message or repr(error), check)
            if first != check:
                message = f"{trials.database.name}: the same error as {first}, which failed first"
            elif message is None:
                raise
            raise pytest.fail.Exception(message, pytrace=False) from None


def _message(database: Database, error: Exception) -> str | None:
    """Return what an error says; None where it is nobody's we know."""
    name, directory = database.name, database.migrations_path
    notes = (one.removeprefix(f"{name}: ") for one in getattr(error, "__notes__", ()))
    said = ". ".join(one.rstrip(".") for one in (str(error), *notes))
    if said.startswith(f"{name}: "):
        return said
    if isinstance(error, QaplaError | CommandError):
        return f"{name}: {said}"
    if isinstance(error, RevisionError | UserWarning):
        return (
            f"{name}: the revisions in {directory} do not fit together: {said}. "
            "Bring a missing file back, or correct revision or down_revision"
        )
    if isinstance(error, sa.exc.DBAPIError):
        said = " ".join(str(error.orig).split())
    place = _place(error, Path(directory).absolute())
    return None if place is None else f"{name}: {place}: {type(error).__name__}: {said}"


def _place(error: Exception, directory: Path) -> str | None:
    """Return the line of a migrations directory that an error comes from."""
    frames = traceback.extract_tb(error.__traceback__)
    places = [(one.filename, one.lineno) for one in frames]
    if isinstance(error, SyntaxError):
        places.append((str(error.filename), error.lineno))
    inside = [one for one in places if Path(one[0]).absolute().is_relative_to(directory)]
    return f"{inside[-1][0]}, line {inside[-1][1]}" if inside else None


def _fail(message: str, *lines: str, remedy: str) -> None:
    pytest.fail("\n".join([message, *(f"  {line}" for line in lines), remedy]), pytrace=False)


def _single_head(trials: Trials) -> None:
    database = trials.database
    heads = sorted(script_of(database).get_heads())
    if len(heads) > 1:
        _fail(
            f"{database.name}: there are {len(heads)} heads: {', '.join(heads)}",
            remedy=f"Merge them: qapla-db merge {database.name}",
        )


def _from_nothing(trials: Trials) -> None:
    trials.online()


def _models_match(trials: Trials) -> None:
    name = trials.database.name
    found = trials.differences()
    if found:
        _fail(
            f"{name}: the models are not what the revisions make; they want:",
            *found,
            remedy=f"Write a revision: qapla-db revision {name} -m '...'",
        )


def _up_down_up(trials: Trials) -> None:
    name = trials.database.name
    found = trials.round_trip()
    if found.problems:
        _fail(
            f"{name}: to head, to base and to head again leaves traces:",
            *(f"{revision or 'all'}: {what}" for revision, what in found.problems),
            remedy="Let downgrade() of the revision undo all of upgrade(), or raise "
            "NotImplementedError there with the reason why there is no way back",
        )
    if found.irreversible:
        reasons = (f"{revision}: {why}" for revision, why in found.irreversible.items())
        pytest.skip(f"{name}: there is no way back from {'; '.join(reasons)}")


def _offline_sql(trials: Trials) -> None:
    database = trials.database
    command = command_for(database, "sql", "base:head")
    leave_out = "or leave this test out: migration_tests(..., skip=['offline_sql'])"
    sql, found = _written(trials)
    if found:
        if database.backend.name == "sqlite" and all("is made anew" in one for one in found):
            pytest.skip(
                f"{database.name}: SQLite changes tables by copying them, which no SQL says"
            )
        _fail(
            f"{database.name}: these revisions cannot be written down as SQL ({command}):",
            *found,
            remedy="Let them ask context.is_offline_mode() and do without what the database "
            f"holds, {leave_out}",
        )
    found = trials.offline(sql)
    if found:
        _fail(
            f"{database.name}: the SQL of the revisions ({command}) makes another database than "
            "the upgrade:",
            *found,
            remedy="Look at what revisions do differently in context.is_offline_mode() or past "
            f"op, {leave_out}",
        )


def _written(trials: Trials) -> tuple[list[str], list[str]]:
    """Return the SQL of all revisions, or else what cannot be written down."""
    database = trials.database
    try:
        return sql_of(database), []
    except Exception:
        trials.online()  # what fails in any case is told as such
        found = unwritable(database)
        if not found:
            raise
        return [], found


def _rehearsal(trials: Trials) -> None:
    database = trials.database
    start = before_head(database)
    try:
        report = rehearse(database, start=start, rows=ROWS)
    except Exception:
        trials.online()  # what fails without rows too is told as such
        raise
    if any(one.kind == "failed upgrade" for one in report.findings):
        trials.online()
    # what the models want is told by another test
    expect_nothing(database, report, start, but=["models"])


CHECKS: Mapping[str, Callable[[Trials], None]] = {
    "single_head": _single_head,
    "from_nothing": _from_nothing,
    "models_match": _models_match,
    "up_down_up": _up_down_up,
    "offline_sql": _offline_sql,
    "rehearsal": _rehearsal,
}
"""The tests by name, in the order in which they are run."""
