"""The first steps of migrations: the files, the first revision, the first schema."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from qapla_db.cli.explain import config_of, explained, script_of
from qapla_db.cli.find import Found
from qapla_db.cli.output import WrongUsage, say, short
from qapla_db.cli.standalone import SettingsApplication
from qapla_db.database import Database
from qapla_db.errors import ConfigurationError, InvalidArgument, Refused
from qapla_db.migrations.bases import Symbol
from qapla_db.migrations.commands import current, migrate, run_alembic
from qapla_db.migrations.looking import command_for, expect_answer
from qapla_db.migrations.models import models_of
from qapla_db.migrations.position import refuse_dependent
from qapla_db.migrations.scaffold import Application, scaffold

__all__ = ["initialize", "merge_heads", "write_scaffold"]


def write_scaffold(found: Found, databases: Sequence[Database], models: Sequence[str]) -> None:
    """Write the files that migrations begin with, and say which.

    :param models: ``module:Base``, or ``name=module:Base``.
    :raises WrongUsage: ``models`` names no database.
    """
    names = [database.name for database in databases]
    given = _models_by_name(models, names)
    if isinstance(found.host, SettingsApplication) and not given:
        given = _models_in_settings(found, databases[0])
    done = scaffold(databases, _application(found), found.root, given)
    for path in done.written:
        say(f"wrote {short(path)}")
    if not done.written:
        say("nothing to write, all is there")
    if done.to_add:
        say("to be added by you:")
        for line in done.to_add:
            say(f"  {line}")


def _models_in_settings(found: Found, database: Database) -> dict[str, str]:
    if found.host.models:
        return {database.name: str(found.host.models)}
    if (Path(database.migrations_path) / "env.py").exists():
        return {}
    raise ConfigurationError(
        f'{found.origin} names no models; add "MODELS": "module:Base" to "SQL" in DB_CONFIG, or '
        "say --models module:Base"
    )


def _models_by_name(models: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    given = {}
    for text in models:
        name, equals, symbol = text.rpartition("=")
        if not equals and len(names) > 1:
            raise WrongUsage(
                f"--models {text}: of which database? Write --models {names[0]}={text}"
            )
        if equals and name not in names:
            raise WrongUsage(f"--models {text}: no database is named {name!r}: {', '.join(names)}")
        try:
            Symbol.parse(symbol)
        except InvalidArgument as error:
            raise WrongUsage(f"--models {text}: {error}") from None
        given[name or names[0]] = symbol
    return given


def _application(found: Found) -> Application:
    if found.text is None:
        lines = (
            "from pathlib import Path",
            "from qapla_db.cli.standalone import settings_application",
        )
        return Application(lines, "settings_application(Path(__file__).parents[2])", None)
    symbol = Symbol.parse(found.text)
    expression = f"{symbol.attribute}()" if found.called else symbol.attribute
    return Application((symbol.line,), expression, symbol.module)


def merge_heads(database: Database, heads: Sequence[str], message: str) -> str:
    """Write a revision that follows all of several, and return its file.

    :raises MigrationError: one depends on another, and no revision that follows both
        can be applied.
    """
    refuse_dependent(database, heads)
    config = config_of(database)
    config.cmd_opts = Namespace(quiet=True)
    script = command.merge(config, list(heads), message=message)
    assert script is not None
    return short(script.path)


def initialize(found: Found, database: Database) -> None:
    """Make the whole schema of an empty database, by its migrations.

    :raises Refused: it has tables of the models, and no version.
    """
    if not (Path(database.migrations_path) / "env.py").is_file():
        write_scaffold(found, [database], [])
    expect_answer(database)
    if database.create():
        say(f"{database.name}: created {database.settings.address}")
    with explained(database):
        if not current(database):
            _refuse_tables(database)
        if not script_of(database).get_heads():
            _write_first_revision(database)
        migrate(database, report=say)


def _refuse_tables(database: Database) -> None:
    inspector = sa.inspect(database.engine)
    there = sorted(
        table.fullname
        for metadata in models_of(database)
        for table in metadata.sorted_tables
        if inspector.has_table(table.name, schema=table.schema)
    )
    if there:
        stamp = command_for(database, "stamp", "REVISION")
        raise Refused(
            f"the database {database.name!r} at {database.settings.address} has tables of the "
            f"models ({', '.join(there)}) and no version, so its migrations do not know where to "
            f"begin; if its schema is that of a revision: {stamp}"
        )


def _write_first_revision(database: Database) -> None:
    def run(config: Config) -> None:
        config.cmd_opts = Namespace(quiet=True, autogenerate=True, x=None)
        for script in _listed(command.revision(config, "first", autogenerate=True)):
            say(f"{database.name}: wrote {short(script.path)}")

    run_alembic(database, run, report=say)


def _listed(found: Any) -> list[Any]:
    return found if isinstance(found, list) else [found] if found else []
