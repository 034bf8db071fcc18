"""The commands that take databases from one revision to another."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from qapla_db.cli.options import All, Choice, NamesAndRevision, one_revision
from qapla_db.cli.output import say

if TYPE_CHECKING:
    from alembic.config import Config

    from qapla_db.database import Database

__all__ = ["COMMANDS"]


def upgrade(
    choice: Choice,
    words: NamesAndRevision = None,
    everything: All = False,
    create: Annotated[
        bool, typer.Option("--create", help="Make databases that are missing first.")
    ] = False,
) -> None:
    """Migrate databases to a revision, head if none is named."""
    from qapla_db.cli.explain import explained, refuse_missing
    from qapla_db.migrations.commands import migrate
    from qapla_db.migrations.looking import expect_answer

    databases, others = choice.databases_and_others(words, everything)
    revision = one_revision(others, "head")
    for database in databases:
        if create:
            expect_answer(database)
            if database.create():
                say(f"{database.name}: created {database.settings.address}")
        refuse_missing(database)
        with explained(database, revision):
            migrate(database, revision, report=say)


def downgrade(choice: Choice, words: NamesAndRevision = None, everything: All = False) -> None:
    """Take databases back to an earlier revision: an id, base, -1."""
    from qapla_db.cli.explain import explained, refuse_missing
    from qapla_db.migrations.commands import downgrade as run

    databases, others = choice.databases_and_others(words, everything)
    revision = one_revision(others, None)
    for database in databases:
        refuse_missing(database)
        with explained(database, revision):
            run(database, revision, report=say)


def stamp(
    choice: Choice,
    words: NamesAndRevision = None,
    everything: All = False,
    purge: Annotated[
        bool, typer.Option("--purge", help="Forget first where they are: no file may have it.")
    ] = False,
) -> None:
    """Note that databases are at a revision, head if none is named, and run nothing."""
    from alembic import command

    from qapla_db.cli.explain import refuse_missing

    databases, others = choice.databases_and_others(words, everything)
    revision = one_revision(others, "head")
    for database in databases:
        refuse_missing(database)
        _alembic(database, partial(command.stamp, revision=revision, purge=purge), revision)


def sql(choice: Choice, words: NamesAndRevision = None, everything: All = False) -> None:
    """Print the SQL of the revisions that are pending, or from A to B (A:B); run nothing."""
    from qapla_db.cli.explain import explained, refuse_missing
    from qapla_db.migrations.commands import current as ask

    databases, others = choice.databases_and_others(words, everything)
    wanted = one_revision(others, "head")
    for database in databases:
        if len(databases) > 1:
            say(f"-- {database.name}: {database.settings.address}\n")
        revision = wanted
        if ":" not in wanted:
            refuse_missing(database)
            with explained(database, wanted):
                revision = f"{','.join(ask(database)) or 'base'}:{wanted}"
        _alembic(database, partial(_write_sql, revision, written := io.StringIO()), wanted)
        say(written.getvalue().rstrip())


def _write_sql(revision: str, buffer: io.StringIO, config: Config) -> None:
    from alembic import command

    config.output_buffer = buffer  # half of it, before an error, is of no use to anybody
    command.upgrade(config, revision, sql=True)


def _alembic(database: Database, run: Callable[[Config], object], revision: str) -> None:
    from qapla_db.cli.explain import explained
    from qapla_db.migrations.commands import run_alembic

    with explained(database, revision):
        run_alembic(database, run, report=say)


COMMANDS: dict[str, Callable[..., None]] = {
    "upgrade": upgrade,
    "migrate": upgrade,
    "downgrade": downgrade,
    "stamp": stamp,
    "sql": sql,
}
