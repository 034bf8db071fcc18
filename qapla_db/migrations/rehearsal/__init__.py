"""The rehearsal of an upgrade: with rows, on a scratch database, there and back."""

from __future__ import annotations

from qapla_db.database import Database
from qapla_db.errors import InvalidArgument
from qapla_db.migrations.commands import Report
from qapla_db.migrations.position import script_of
from qapla_db.migrations.rehearsal.report import Finding, Kind, Rehearsal, RehearsedRevision
from qapla_db.migrations.rehearsal.run import Run
from qapla_db.migrations.rehearsal.start import DEPLOYED, find_start
from qapla_db.migrations.shadow import shadow

__all__ = ["DEPLOYED", "Finding", "Kind", "Rehearsal", "RehearsedRevision", "rehearse"]


def rehearse(
    database: Database,
    *,
    start: str | None = None,
    rows: int = 100,
    seed: int = 0,
    report: Report | None = None,
) -> Rehearsal:
    """Rehearse an upgrade: what would it do to the data?

    A scratch database is made at the old revision and filled with plausible
    rows; it is upgraded to head, and every cell of what is left is compared
    with what it was; the models are compared with the schema; it is downgraded
    again, and compared again. The database itself is not touched.

    A revision declares in its file what it loses or changes on purpose, and why::

        # qapla: loses airport.iata, nobody reads it since 3.2
        # qapla: changes airport.elevation, feet to metres

    A table that got no row is found too, unless a revision says that it may be so::

        # qapla: skips runway, no values are known for paths

    :param database: a prepared database; it need not exist.
    :param start: the old revision: its id, ``base``, ``@deployed`` for where the
        database is, or ``git:REF`` for the heads that a branch, tag or commit has.
        Without it, it is where the database is if that is behind head, and else
        the revision before head.
    :param rows: how many for each table.
    :param seed: the same seed gives the same rows.
    :param report: gets a line for each step.
    :raises InvalidArgument: the start is not known.
    :raises MigrationError: the old revision cannot be reached.
    :raises ServerError: the scratch database cannot be made.
    """
    if rows < 1:
        raise InvalidArgument(
            f"a rehearsal of the database {database.name!r} needs rows; {rows} is too few"
        )
    begin = find_start(database, script_of(database), start)
    with shadow(database, revision=None, report=report) as scratch:
        return Run(database, scratch, begin, rows, seed, report).run()
