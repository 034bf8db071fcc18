"""The command that makes the record of a database right."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from qapla_db.cli.options import Choice, Names
from qapla_db.cli.output import WrongUsage, ask_to_type, on_terminal, say, short
from qapla_db.errors import Refused

if TYPE_CHECKING:
    from qapla_db.database import Database
    from qapla_db.settings import DatabaseSettings

__all__ = ["COMMANDS"]


def rewrite_record(
    choice: Choice,
    names: Names = None,
    accept_edits: Annotated[
        bool,
        typer.Option(
            "--accept-edits", help="Take the files of revisions as they are for those applied."
        ),
    ] = False,
    yes: Annotated[
        str | None,
        typer.Option(
            "--yes",
            metavar="NAME@ENVIRONMENT",
            help="Do not ask; this is what the record says now.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Make the record of a database say what the settings say, after asking.

    For a copy that was restored elsewhere on purpose, or a name or environment that was changed.
    """
    databases = choice.databases(names, not names)
    if len(databases) > 1:
        known = ", ".join(one.name for one in databases)
        raise WrongUsage(f"the record of one database at a time is rewritten; name one of {known}")
    if accept_edits:
        _accept_edits(databases[0], yes)
    else:
        _rewrite(databases[0], yes)


def _rewrite(database: Database, yes: str | None) -> None:
    from qapla_db.cli.explain import explained
    from qapla_db.migrations.looking import record_table
    from qapla_db.record import recorded_as, rewrite_record

    settings = database.settings
    with explained(database):
        table = record_table(database).version_table
    if yes is None:
        found = [one for one in recorded_as(settings) if one.version_table == table]
        identity = found[0].identity if found else _identity(settings)
        if found and identity != _identity(settings):
            say(
                f"The record of the database {settings.name!r} at {settings.address} says "
                f"{identity}, the settings say {_identity(settings)}."
            )
            _confirm(settings, identity, "If the settings are right")
        yes = identity
    with explained(database):
        rewrite_record(database, confirm=yes, version_table=table)
    say(f"{settings.name}: recorded as {_identity(settings)}")


def _accept_edits(database: Database, yes: str | None) -> None:
    from qapla_db.cli.explain import explained
    from qapla_db.migrations import edits

    settings = database.settings
    with explained(database):
        found = edits.edits(database)
        if not found:
            say(f"{settings.name}: no file was edited after it was applied")
            return
        if yes is None:
            say(f"Edited since they were applied to {settings.name!r} at {settings.address}:")
            for one in found:
                say(f"  {short(one.script.path)}")
            yes = _identity(settings)
            _confirm(settings, yes, "If they do to a database what they did before")
        accepted = edits.accept_edits(database, confirm=yes)
    say(f"{settings.name}: {', '.join(accepted)} recorded as the files are")


def _identity(settings: DatabaseSettings) -> str:
    return f"{settings.name}@{settings.environment.strip()}"


def _confirm(settings: DatabaseSettings, identity: str, condition: str) -> None:
    """Let who is at the terminal type a name and environment.

    :raises Refused: there is no terminal, or something else was typed.
    """
    unchanged = f"the record of the database {settings.name!r} at {settings.address} is not changed"
    if not on_terminal():
        raise Refused(
            f"{unchanged}: there is no terminal to ask on; a script that means it says "
            f"--yes {identity}"
        )
    if not ask_to_type(identity, f"{condition} type {identity}:"):
        raise Refused(f"{unchanged}: {identity} was not typed")


COMMANDS: dict[str, Callable[..., None]] = {"rewrite-record": rewrite_record}
