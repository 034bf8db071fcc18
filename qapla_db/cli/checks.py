"""The commands whose answer is yes or no: exit code 0 or 1."""

from __future__ import annotations

from collections.abc import Callable

import typer

from qapla_db.cli.options import All, Choice, Json, Names, NamesAndRevision, one_revision
from qapla_db.cli.output import print_finding, print_json, say

__all__ = ["COMMANDS"]

NO = 1
"""Exit code: the answer is no."""


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


COMMANDS: dict[str, Callable[..., None]] = {"lint": lint, "doctor": doctor}
