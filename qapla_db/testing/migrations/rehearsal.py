"""Rehearsals of upgrades as assertions."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Protocol

from qapla_db.application import DatabaseApplication
from qapla_db.database import Database
from qapla_db.errors import RehearsalFailed
from qapla_db.migrations.looking import command_for
from qapla_db.migrations.position import script_of
from qapla_db.migrations.rehearsal import Finding, Kind, Rehearsal
from qapla_db.migrations.rehearsal import rehearse as rehearse_upgrade

__all__ = ["ROWS", "Rehearse", "before_head", "expect_nothing", "rehearse_with"]

ROWS = 100
"""Rows for each table, unless another number is asked for: as many as the command makes."""


class Rehearse(Protocol):
    """The type of the fixture ``rehearse``, for tests that are type-checked.

    ::

        from qapla_db.testing import Rehearse

        def test_rows(rehearse: Rehearse) -> None:
            report = rehearse("main", start="git:main", rows=1000)
    """

    def __call__(
        self, name: str, *, start: str | None = None, rows: int = ROWS, seed: int = 0
    ) -> Rehearsal:
        """Rehearse an upgrade to head on a scratch database; the test database is not touched.

        :param name: of the database.
        :param start: the revision to begin with: its id, ``base``, ``@deployed``, or
            ``git:REF`` for what a branch, tag or commit has. Without it the one before the
            last is taken.
        :param rows: how many are made for each table, at least one.
        :param seed: the same seed makes the same rows.
        :returns: the report: what was applied, and what was found and is declared.
        :raises RehearsalFailed: something is lost or changed, or a revision fails, and none
            declares that. It is an ``AssertionError`` too.
        :raises InvalidArgument: the start is not known, or there would be no rows.
        :raises MigrationError: the start cannot be reached.
        :raises ServerError: the scratch database cannot be made.
        """


def rehearse_with(application: DatabaseApplication) -> Rehearse:
    """Return the function that the fixture ``rehearse`` is.

    :param application: prepared for tests.
    """

    def rehearse(
        name: str, *, start: str | None = None, rows: int = ROWS, seed: int = 0
    ) -> Rehearsal:
        __tracebackhide__ = True
        database = application.dbs[name]
        begin = start or before_head(database)
        report = rehearse_upgrade(database, start=begin, rows=rows, seed=seed)
        expect_nothing(database, report, begin)
        return report

    return rehearse


def before_head(database: Database) -> str:
    """Return the revision before the last one, whatever the test database is at."""
    script = script_of(database)
    for head in sorted(script.get_heads()):
        down = script.get_revision(head).down_revision
        before = (down,) if isinstance(down, str) else tuple(down or ())
        if before:
            return before[0]
    return "base"


def expect_nothing(
    database: Database, report: Rehearsal, start: str, *, but: Collection[Kind] = ()
) -> None:
    """Raise where a rehearsal found what no revision declares.

    :param start: what the rehearsal was to begin with.
    :param but: kinds of findings that are left to others.
    :raises RehearsalFailed: there are others.
    """
    __tracebackhide__ = True
    found = [one for one in report.findings if one.declared is None and one.kind not in but]
    if found:
        raise RehearsalFailed("\n".join(_lines(database, report, found, start)))


def _lines(
    database: Database, report: Rehearsal, found: list[Finding], start: str
) -> Iterator[str]:
    begin, end = (", ".join(heads) or "base" for heads in (report.start, report.end))
    yield (
        f"{report.database}: the upgrade from {begin}, rehearsed with {report.rows} rows "
        f"(seed {report.seed}), came to {end}, and what no revision declares was found:"
    )
    for one in found:
        by = f" (by {one.revision})" if one.revision else ""
        yield f"  {one.kind}: {one.message}{by}"
        yield from (f"    {example}" for example in one.examples)
    yield from dict.fromkeys(_remedy(database, one) for one in found)
    yield f"All of the report: {command_for(database, 'rehearse', '--from', start)}"


def _remedy(database: Database, found: Finding) -> str:
    """Return what to do about a finding."""
    where = _where(database, found.revision)
    match found.kind:
        case "failed upgrade":
            return (
                f"Correct upgrade() of {where}. What runs on an empty database can fail on rows: "
                "fill a new column before it is NOT NULL, or give it a server_default, and put "
                "the rows right before a constraint is added"
            )
        case "failed downgrade":
            return (
                f"Correct downgrade() of {where}, or raise NotImplementedError there with the "
                "reason why there is no way back"
            )
        case "schema after downgrade":
            return "Let downgrade() of the revisions undo all of upgrade()"
        case "models":
            return f"Write a revision: qapla-db revision {database.name} -m '...'"
        case "declaration":
            return f"Correct the comment in {where}"
        case "not rehearsed":
            example = "skips TABLE.COLUMN"
        case "changed values":
            example = "changes TABLE.COLUMN"
        case "lost table":
            example = "loses TABLE"
        case "lost rows":
            example = "loses rows of TABLE"
        case _:
            example = "loses TABLE.COLUMN"
    return (
        f"Correct {where}, or let its file say what is meant, such as '# qapla: {example}, REASON'"
    )


def _where(database: Database, revision: str | None) -> str:
    if revision is None:
        return "the revision"
    script = script_of(database).get_revision(revision)
    return f"{revision} ({script.path})"
