"""The commands that write revisions and list them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qapla_db.cli.options import All, Choice, Json, Names, NamesAndRevision, one_revision
from qapla_db.cli.output import (
    WrongUsage,
    on_terminal,
    print_finding,
    print_json,
    print_table,
    say,
    short,
    yes_or_no,
)

if TYPE_CHECKING:
    from alembic.script import Script

    from qapla_db.database import Database

__all__ = ["COMMANDS"]

Models = Annotated[
    list[str] | None,
    typer.Option(
        "--models",
        metavar="[NAME=]MODULE:BASE",
        help="The declarative base of a database's models, where it is not found.",
        show_default=False,
    ),
]


def init(
    choice: Choice, names: Names = None, everything: All = False, models: Models = None
) -> None:
    """Write alembic.ini and the migrations directories; nothing is overwritten.

    Without names it does so for all registered databases.
    """
    from qapla_db.cli.first import write_scaffold

    found = choice.find()
    databases = found.databases(names or [], everything or not names)
    write_scaffold(found, databases, models or [])


def revision(
    choice: Choice,
    names: Names = None,
    everything: All = False,
    message: Annotated[
        str, typer.Option("-m", "--message", help="What the revision does, in a few words.")
    ] = "changes",
    empty: Annotated[
        bool, typer.Option("--empty", help="Without operations, to be written by hand.")
    ] = False,
    rename: Annotated[
        list[str] | None,
        typer.Option(
            "--rename",
            metavar="OLD:NEW",
            help="What was renamed: a table (users:people) or a column (users.age:height).",
            show_default=False,
        ),
    ] = None,
    no_rename: Annotated[
        bool, typer.Option("--no-rename", help="Nothing else was renamed; do not ask.")
    ] = False,
) -> None:
    """Write a revision of what differs between the models and the migrations.

    A scratch database beside the real one is migrated and compared; the real one is not touched.
    """
    from qapla_db.cli.explain import explained
    from qapla_db.migrations.lint import lint
    from qapla_db.migrations.revisions import make_revision

    for database in choice.databases(names, everything):
        with explained(database):
            path = make_revision(
                database,
                message,
                empty=empty,
                renames=rename or [],
                other_renames=not no_rename,
                ask=yes_or_no if on_terminal() else None,
                report=say,
            )
        if path is None:
            continue
        say(f"{database.name}: wrote {short(path)}")
        for finding in lint(database, ["head"]):
            print_finding(finding)


def merge(
    choice: Choice,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME REVISIONS",
            help="The database, and the revisions to join; all heads if none is named.",
            show_default=False,
        ),
    ] = None,
    everything: All = False,
    message: Annotated[
        str, typer.Option("-m", "--message", help="What the revision is for.")
    ] = "merge",
) -> None:
    """Write a revision that joins several heads."""
    from qapla_db.cli.explain import explained, script_of
    from qapla_db.cli.first import merge_heads

    databases, others = choice.databases_and_others(words, everything)
    for database in databases:
        with explained(database, " ".join(others)):
            heads = others or sorted(script_of(database).get_heads())
            if len(heads) < 2:
                say(f"{database.name}: nothing to merge, the head is {', '.join(heads) or 'base'}")
                continue
            say(f"{database.name}: wrote {merge_heads(database, heads, message)}")


def history(
    choice: Choice, words: NamesAndRevision = None, everything: All = False, as_json: Json = False
) -> None:
    """List the revisions, the newest first; A:B for a part of them."""
    from qapla_db.cli.explain import explained, script_of

    databases, others = choice.databases_and_others(words, everything)
    wanted = one_revision(others, "base:heads")
    if ":" not in wanted:
        raise WrongUsage(f"{wanted!r} is no range; write FROM:TO, such as base:head")
    lower, _, upper = wanted.partition(":")
    found = []
    for database in databases:
        with explained(database, wanted):
            scripts = script_of(database).walk_revisions(lower or "base", upper or "heads")
            found += [_as_dict(database, script) for script in scripts]
    if as_json:
        print_json(found)
        return
    columns = ("database", "revision", "after", "message")
    rows = [
        (
            one["database"],
            one["revision"] + (" (head)" if one["is_head"] else ""),
            ", ".join(one["after"]),
            " ".join(one["message"].split()),
        )
        for one in found
    ]
    print_table(columns, rows)


def current(
    choice: Choice, names: Names = None, everything: All = False, as_json: Json = False
) -> None:
    """Say at which revision databases are."""
    from qapla_db.cli.explain import refuse_missing
    from qapla_db.migrations.commands import current as look

    def ask(database: Database) -> Iterable[str]:
        refuse_missing(database)
        return look(database)

    _print_revisions(choice.databases(names, everything), ask, as_json)


def heads(
    choice: Choice, names: Names = None, everything: All = False, as_json: Json = False
) -> None:
    """Say what the newest revisions are; no server is asked."""
    from qapla_db.cli.explain import script_of

    def ask(database: Database) -> Iterable[str]:
        return script_of(database).get_heads()

    _print_revisions(choice.databases(names, everything), ask, as_json)


def _print_revisions(
    databases: list[Database], ask: Callable[[Database], Iterable[str]], as_json: bool
) -> None:
    from qapla_db.cli.explain import explained

    found: list[dict[str, Any]] = []
    for database in databases:
        with explained(database):
            found.append({"database": database.name, "revisions": sorted(ask(database))})
    if as_json:
        print_json(found)
        return
    for one in found:
        say(f"{one['database']}: {', '.join(one['revisions']) or 'base'}")


def _as_dict(database: Database, script: Script) -> dict[str, Any]:
    after = script.down_revision or ()
    return {
        "database": database.name,
        "revision": script.revision,
        "after": [after] if isinstance(after, str) else list(after),
        "message": script.doc,
        "path": script.path,
        "is_head": script.is_head,
    }


COMMANDS: dict[str, Callable[..., None]] = {
    "init": init,
    "revision": revision,
    "make_migrations": revision,
    "merge": merge,
    "history": history,
    "current": current,
    "heads": heads,
}
