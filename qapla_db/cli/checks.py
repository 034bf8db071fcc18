"""The commands whose answer is yes or no: exit code 0 or 1."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from textwrap import indent
from typing import TYPE_CHECKING, Annotated

import typer

from qapla_db.cli.options import All, Choice, Json, Names, NamesAndRevision, one_revision
from qapla_db.cli.output import print_finding, print_json, print_table, say

if TYPE_CHECKING:
    from qapla_db.database import Database
    from qapla_db.migrations.plan import PlannedStep
    from qapla_db.migrations.status import DatabaseStatus

__all__ = ["COMMANDS"]

NO = 1
"""Exit code: the answer is no."""


def status(
    choice: Choice,
    names: Names = None,
    everything: All = False,
    drift: Annotated[
        bool, typer.Option(help="Compare the models with the databases, which takes longer.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Say where all databases stand; exit code 0 if this code can work with them.

    Without names it does so for all registered databases.
    """
    from qapla_db.migrations.status import status_of

    databases = choice.databases(names, everything or not names)
    found = [status_of(database, drift=drift) for database in databases]
    if as_json:
        print_json([one.as_json() for one in found])
    else:
        columns = ("database", "state", "current", "head", "pending", "server", "address")
        print_table(columns, [_status_row(one) for one in found])
        for database, one in zip(databases, found, strict=True):
            for note in _notes(database, one):
                say(f"{one.name}: {' '.join(note.split())}")
    if any(not one.ready or one.drift for one in found):
        raise typer.Exit(NO)


def check(
    choice: Choice,
    names: Names = None,
    everything: All = False,
    live: Annotated[
        bool, typer.Option("--database/--no-database", help="Look at the database itself too.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Say what must be put right before a change is merged; for CI.

    One head, the database at it, no applied file edited, a downgrade everywhere, the models as
    the migrations make them, and what lint says.
    """
    from qapla_db.cli.explain import explained
    from qapla_db.migrations.check import check as look
    from qapla_db.migrations.lint import lint as look_for_unsafe

    problems, findings = [], []
    for database in choice.databases(names, everything):
        with explained(database):
            problems += look(database, live=live)
            findings += [(database.name, one) for one in look_for_unsafe(database)]
    if as_json:
        unsafe = [{"database": name, **one.as_json()} for name, one in findings]
        print_json([*(one.as_json() for one in problems), *unsafe])
    else:
        for problem in problems:
            say(str(problem))
        for _, finding in findings:
            print_finding(finding)
    if problems or findings:
        raise typer.Exit(NO)


def plan(
    choice: Choice, words: NamesAndRevision = None, everything: All = False, as_json: Json = False
) -> None:
    """Show what upgrade would do: revisions, SQL and locks; nothing is run."""
    from qapla_db.cli.explain import explained
    from qapla_db.migrations.plan import plan as look

    databases, others = choice.databases_and_others(words, everything)
    target = one_revision(others, "head")
    found = []
    for database in databases:
        with explained(database, target):
            found.append((database.name, look(database, target)))
    if as_json:
        print_json(
            [{"database": name, **step.as_json()} for name, steps in found for step in steps]
        )
        return
    for name, steps in found:
        for step in steps:
            _print_step(name, step)
        if not steps:
            say(f"{name}: nothing to do")


def rehearse(
    choice: Choice,
    names: Names = None,
    everything: All = False,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="REVISION",
            help="Where it begins: an id, base, @deployed (where the database is), git:BRANCH.",
            show_default=False,
        ),
    ] = None,
    rows: Annotated[int, typer.Option("--rows", min=1, help="Rows for each table.")] = 100,
    as_json: Json = False,
) -> None:
    """Rehearse an upgrade on a scratch database with rows, there and back.

    Exit code 1 when anything is lost that no revision declares.
    """
    from qapla_db.cli.explain import explained
    from qapla_db.migrations.rehearsal import rehearse as run

    found = []
    for database in choice.databases(names, everything):
        with explained(database, start):
            found.append(run(database, start=start, rows=rows))
        if not as_json:
            say(str(found[-1]))
    if as_json:
        print_json([one.as_json() for one in found])
    if not all(one.ok for one in found):
        raise typer.Exit(NO)


def lint(
    choice: Choice, words: NamesAndRevision = None, everything: All = False, as_json: Json = False
) -> None:
    """Say what is unsafe in revisions, all or one, while the database is in use."""
    from qapla_db.cli.explain import explained
    from qapla_db.migrations.lint import lint as look

    databases, others = choice.databases_and_others(words, everything)
    revisions = [one_revision(others, None)] if others else None
    found = []
    for database in databases:
        with explained(database, " ".join(others)):
            found += [(database.name, one) for one in look(database, revisions)]
    if as_json:
        print_json([{"database": name, **one.as_json()} for name, one in found])
    for _, one in [] if as_json else found:
        print_finding(one)
    if found:
        raise typer.Exit(NO)


def doctor(
    choice: Choice, names: Names = None, everything: All = False, as_json: Json = False
) -> None:
    """Look at databases, their servers and their settings, and say what will hurt."""
    from qapla_db.cli.doctor import examine

    found = [examine(database) for database in choice.databases(names, everything)]
    if as_json:
        print_json([one.as_json() for one in found])
    for one in [] if as_json else found:
        say(f"{one.database}: {one.address}")
        width = max(map(len, one.facts))
        for name, value in one.facts.items():
            say(f"  {name:<{width}}  {value}")
        for complaint in one.complaints:
            say(f"  ! {' '.join(complaint.split())}")
        if not one.complaints:
            say("  nothing to complain about")
    if any(one.complaints for one in found):
        raise typer.Exit(NO)


def _status_row(status: DatabaseStatus) -> tuple[str, ...]:
    pending = "?" if status.pending is None else str(len(status.pending))
    return (
        status.name,
        _state(status),
        ", ".join(status.current) or ("base" if status.reachable else "?"),
        ", ".join(status.heads) or "base",
        pending,
        status.server or "?",
        status.address,
    )


def _state(status: DatabaseStatus) -> str:
    if status.exists is False:
        return "missing"
    if not status.reachable:
        return "unreachable"
    if status.migrating:
        return "migrating"
    if not status.ready:
        return "behind" if status.pending else "unknown"
    return "drifted" if status.drift else "ready"


def _notes(database: Database, status: DatabaseStatus) -> Iterator[str]:
    from qapla_db.migrations.looking import command_for

    if status.problem:
        yield status.problem
    if status.migrating:
        yield f"is being migrated by {status.migrating}"
    if status.pending and status.recorded:
        run = command_for(database, "upgrade")
        yield f"lacks {', '.join(status.pending)}; run: {run}"
    for difference in status.drift or ():
        yield f"drift: {difference}"


def _print_step(name: str, step: PlannedStep) -> None:
    say(f"{name}: {' '.join((step.revision, step.doc)).strip()}")
    for statement in step.statements:
        say(indent(f"{statement.sql};", "    "))
        for lock in statement.locks or ():
            say(f"        locks {lock}")
    for note in step.hidden:
        say(f"    -- {note}")


COMMANDS: dict[str, Callable[..., None]] = {
    "status": status,
    "check": check,
    "lint": lint,
    "plan": plan,
    "rehearse": rehearse,
    "doctor": doctor,
}
