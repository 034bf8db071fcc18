"""Rehearsals of upgrades as assertions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from qapla_db.application import DatabaseApplication
from qapla_db.database import Database
from qapla_db.errors import RehearsalFailed
from qapla_db.migrations.looking import command_for
from qapla_db.migrations.position import script_of
from qapla_db.migrations.rehearsal import Finding, Kind, Rehearsal
from qapla_db.migrations.rehearsal import rehearse as rehearse_upgrade

__all__ = ["Rehearse", "rehearse_with", "rehearsed"]

Rehearse = Callable[..., Rehearsal]

ROWS = 100
"""Rows for each table, unless another number is asked for: as many as the command makes."""


def rehearse_with(application: DatabaseApplication) -> Rehearse:
    """Return the function that the fixture ``rehearse`` is.

    ::

        def test_rows(rehearse):
            rehearse("main", start="git:main", rows=1000)

    It takes a database's name, and the ``start``, ``rows`` and ``seed`` of
    :func:`qapla_db.migrations.rehearsal.rehearse`, whose report it returns. Without a start
    it begins before the last revision. The test database is not touched.

    :param application: prepared for tests.
    :raises RehearsalFailed: (of the function) something is lost, or fails, that no revision
        declares.
    """

    def rehearse(
        name: str, *, start: str | None = None, rows: int = ROWS, seed: int = 0
    ) -> Rehearsal:
        __tracebackhide__ = True
        return rehearsed(application.dbs[name], start=start, rows=rows, seed=seed)

    return rehearse


def rehearsed(
    database: Database,
    *,
    start: str | None = None,
    rows: int = ROWS,
    seed: int = 0,
    but: Collection[Kind] = (),
) -> Rehearsal:
    """Rehearse the upgrade of a database, and raise where something is found.

    :param but: kinds of findings that are left to others.
    :raises RehearsalFailed: there are others that no revision declares.
    """
    __tracebackhide__ = True
    begin = start or _before_head(database)
    report = rehearse_upgrade(database, start=begin, rows=rows, seed=seed)
    found = [one for one in report.findings if one.declared is None and one.kind not in but]
    if found:
        raise RehearsalFailed("\n".join(_lines(database, report, found, begin)))
    return report


def _before_head(database: Database) -> str:
    """Return the revision before the last one, whatever the test database is at."""
    script = script_of(database)
    for head in sorted(script.get_heads()):
        down = script.get_revision(head).down_revision
        before = (down,) if isinstance(down, str) else tuple(down or ())
        if before:
            return before[0]
    return "base"


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
    yield (
        "Correct the revision, or let its file say what is meant, such as "
        "'# qapla: loses TABLE.COLUMN, REASON'. All of the report: "
        f"{command_for(database, 'rehearse', '--from', start)}"
    )
