"""The commands that make databases and take them away."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qapla_db.cli.options import All, Choice, Names
from qapla_db.cli.output import ask_to_type, on_terminal, print_table, say
from qapla_db.errors import Refused, ServerError

if TYPE_CHECKING:
    from sqlalchemy import TableClause
    from sqlalchemy.engine import Connection

    from qapla_db.database import Database

__all__ = ["COMMANDS"]

_POLL = 0.5
"""Seconds between two looks at a server that is starting."""

_COUNTED = 100_000
"""How many rows of a table are counted at most: a big table shall not keep anybody waiting."""

_REFUSALS = ("authentication failed", "access denied", "does not exist")
"""What a server says that runs, and will say again."""

Wait = Annotated[
    float,
    typer.Option(
        "--wait", min=0, metavar="SECONDS", help="Wait so long for a server that is starting."
    ),
]


def create(choice: Choice, names: Names = None, everything: All = False) -> None:
    """Make databases that are not there yet, empty."""
    for database in choice.databases(names, everything):
        _create(database)


def ensure(choice: Choice, names: Names = None, everything: All = False, wait: Wait = 0.0) -> None:
    """Make databases that are missing, and migrate all of them."""
    from qapla_db.cli.explain import explained
    from qapla_db.migrations.commands import migrate

    for database in choice.databases(names, everything):
        _wait_for(database, wait)
        _create(database)
        with explained(database):
            migrate(database, report=say)


def initdb(choice: Choice, names: Names = None, everything: All = False) -> None:
    """Give empty databases their whole schema, by their migrations.

    Where there is no migrations directory it is written, with a first revision from the models.
    """
    from qapla_db.cli.first import initialize

    found = choice.find()
    for database in found.databases(names or [], everything):
        initialize(found, database)


def drop(
    choice: Choice,
    names: Names = None,
    everything: All = False,
    yes: Annotated[
        list[str] | None,
        typer.Option(
            "--yes",
            metavar="NAME",
            help="Do not ask for the database of this name; once for each one.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Delete databases with everything in them, after asking."""
    from qapla_db.migrations.looking import expect_answer

    databases = choice.databases(names, everything)
    _refuse_other_names(yes or [], databases)
    for database in databases:
        expect_answer(database)
        database.check_droppable(confirm=database.name)
    # nothing is dropped before everything is confirmed
    for database in databases:
        if database.exists():
            _tell_other_names(database)
            if database.name not in (yes or []):
                _ask(database)
    for database in databases:
        dropped = database.drop(confirm=database.name)
        address = database.settings.address
        say(f"{database.name}: " + (f"dropped {address}" if dropped else f"{address} is not there"))


def recreate(choice: Choice, names: Names = None, everything: All = False) -> None:
    """Make the databases of the tests anew: drop, create, migrate."""
    from dataclasses import replace

    from qapla_db.cli.explain import explained
    from qapla_db.migrations.commands import recreate as run
    from qapla_db.migrations.looking import expect_answer

    for database in replace(choice, tests=True).databases(names, everything):
        with explained(database, makes=True):
            expect_answer(database)
            run(database)
        say(f"{database.name}: made {database.settings.address} anew")


def _create(database: Database) -> None:
    from qapla_db.migrations.looking import expect_answer

    expect_answer(database)
    address = database.settings.address
    if database.create():
        say(f"{database.name}: created {address}")


def _wait_for(database: Database, seconds: float) -> None:
    """Wait for the server of a database to answer.

    :raises ServerError: it does not in time, or it answers with a refusal.
    """
    from qapla_db.migrations.looking import expect_answer

    deadline = time.monotonic() + seconds
    told = False
    while True:
        try:
            expect_answer(database)
            database.exists()
            return
        except ServerError as error:
            refused = any(text in error.message.lower() for text in _REFUSALS)
            if refused or time.monotonic() >= deadline:
                raise
        if not told:
            say(f"{database.name}: waiting for the server of {database.settings.address}")
            told = True
        time.sleep(min(_POLL, max(0.0, deadline - time.monotonic())))


# --- drop


def _refuse_other_names(yes: list[str], databases: list[Database]) -> None:
    names = [one.name for one in databases]
    others = [name for name in yes if name not in names]
    if others:
        raise Refused(
            f"no database was dropped: --yes {' --yes '.join(others)} is for none of those that "
            f"were to be, {', '.join(names)}; a script that means it says "
            f"--yes {' --yes '.join(names)}"
        )


def _tell_other_names(database: Database) -> None:
    from qapla_db.record import sharing

    others = [one.name for one in sharing(database) if one is not database]
    if others:
        say(f"{database.name}: {', '.join(others)} is on the same database and goes with it")


def _ask(database: Database) -> None:
    """Show what would be lost, and let who is at the terminal type the name.

    :raises Refused: there is no terminal, or something else was typed.
    """
    name, address = database.name, database.settings.address
    if not on_terminal():
        raise Refused(
            f"the database {name!r} at {address} was not dropped: there is no terminal to ask "
            f"on; a script that means it says --yes {name}"
        )
    say(f"The database {name!r} at {address} has")
    rows = _row_counts(database)
    if rows:
        print_table(["table", "rows"], rows)
    else:
        say("no tables.")
    if not ask_to_type(name, f"To drop it with everything in it type its name, {name}:"):
        raise Refused(f"the database {name!r} at {address} was not dropped: {name} was not typed")


def _row_counts(database: Database) -> list[tuple[str, str]]:
    import sqlalchemy as sa

    from qapla_db.record import RECORD_TABLE
    from qapla_db.record_reader import be_impatient
    from qapla_db.record_table import VERSION_TABLE

    with database.session(read_only=True) as session:
        connection = session.connection()
        be_impatient(connection)
        inspector = sa.inspect(connection)
        found = []
        for schema in _schemas(inspector):
            for table in sorted(inspector.get_table_names(schema=schema)):
                if table.startswith((VERSION_TABLE, RECORD_TABLE)):
                    continue
                shown = _count(connection, sa.table(table, schema=schema))
                found.append((f"{schema}.{table}" if schema else table, shown))
        return found


def _count(connection: Connection, table: TableClause) -> str:
    """Return how many rows a table has; somebody may have locked it, or not let us read it."""
    import sqlalchemy as sa

    some = sa.select(sa.literal(1)).select_from(table).limit(_COUNTED + 1).subquery()
    try:
        with connection.begin_nested():
            count = connection.scalar(sa.select(sa.func.count()).select_from(some)) or 0
    except sa.exc.DBAPIError as error:
        if error.connection_invalidated:
            raise
        return "not known"
    return f"more than {_COUNTED:,}" if count > _COUNTED else f"{count:,}"


def _schemas(inspector: Any) -> list[str | None]:
    """Return the schemas of a database besides the server's own; None is the default one."""
    if inspector.dialect.name != "postgresql":
        return [None]  # elsewhere a schema is another database
    own = {"information_schema", inspector.default_schema_name}
    others = (name for name in inspector.get_schema_names() if not name.startswith("pg_"))
    return [None, *sorted(name for name in others if name not in own)]


COMMANDS: dict[str, Callable[..., None]] = {
    "ensure": ensure,
    "create": create,
    "drop": drop,
    "recreate": recreate,
    "initdb": initdb,
}
