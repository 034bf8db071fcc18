"""Migrations from within a program: no ``alembic.ini`` is read, nothing is printed.

Alembic's ``context`` and ``op`` are globals of their modules, so one process
migrates one database at a time; another thread waits for its turn.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError

from qapla_db.database import Database
from qapla_db.errors import MigrationError, QaplaError
from qapla_db.migrations.directory import COMPLETED, nothing_done
from qapla_db.record import sharing

__all__ = ["current", "downgrade", "migrate", "recreate", "run_alembic"]

Report = Callable[[str], object]

FILE_TEMPLATE = "%%(year)d%%(month).2d%%(day).2d_%%(rev)s_%%(slug)s"
"""Names of the files of new revisions, as ``alembic.ini`` has it: in the order of their days."""

_turn = threading.RLock()
_running: list[str] = []


def migrate(database: Database, revision: str = "head", *, report: Report | None = None) -> None:
    """Upgrade a database to a revision.

    :param database: a prepared database.
    :param revision: as for ``alembic upgrade``: ``head``, ``heads``, an id, ``+1``.
    :param report: gets a line for each step, such as ``print``.
    :raises MigrationError: it did not get there; the message says why and what is left.
    :raises ServerError: the database cannot be reached.
    """
    run_alembic(database, lambda config: command.upgrade(config, revision), report=report)


def downgrade(database: Database, revision: str, *, report: Report | None = None) -> None:
    """Take a database back to an earlier revision.

    :param revision: as for ``alembic downgrade``: ``base``, an id, ``-1``.
    :param report: gets a line for each step.
    :raises MigrationError: it did not get there.
    """
    run_alembic(database, lambda config: command.downgrade(config, revision), report=report)


def current(database: Database) -> tuple[str, ...]:
    """Return the revisions that a database is at: none, one, or one for each branch."""
    heads: list[str] = []

    def look(found: Any, context: object) -> list[Any]:
        heads.extend(found)
        return []

    def run(config: Config) -> None:
        script = ScriptDirectory.from_config(config)
        with EnvironmentContext(config, script, fn=look, dont_mutate=True):
            script.run_env()

    run_alembic(database, run)
    return tuple(sorted(heads))


def recreate(database: Database, *, confirm: str | None = None) -> None:
    """Drop a database, create it again and migrate it.

    Other names of the same database are migrated too, for their tables were
    dropped with it.

    :param confirm: the name of this database, from a caller who means it; not
        needed for a test database of an application prepared for tests.
    :raises Refused: it could be somebody's data; see :meth:`Database.drop`.
    :raises MigrationError: its migrations directory is not there, or a test's
        sandbox is on.
    """
    databases = sharing(database)
    for one in databases:
        _directory(one)  # found missing later, the data would be gone already
    if getattr(database.engine.pool, "sandboxed", False):
        raise MigrationError(
            f"the database {database.name!r} is in the sandbox of a test and cannot be made anew; "
            "call recreate() outside of the sandbox"
        )
    database.drop(confirm=confirm)
    database.create()
    for one in databases:
        one.dispose()
        migrate(one)


def run_alembic(
    database: Database,
    run: Callable[[Config], object],
    *,
    report: Report | None = None,
    url: sa.URL | None = None,
    stdout: TextIO | None = None,
    **attributes: Any,
) -> None:
    """Run a command of Alembic on a database's migrations.

    :param database: a prepared database.
    :param run: gets Alembic's Config and calls what is to be done with it, such as
        ``lambda config: command.upgrade(config, "head")``.
    :param report: gets a line for each step.
    :param url: another database to run on than the one of the settings.
    :param stdout: gets what Alembic prints; nothing is printed if it is not given.
    :param attributes: more for ``config.attributes``, where ``env.py`` finds it.
    :raises MigrationError: it failed, or ``env.py`` ran nothing.
    :raises ServerError: the database cannot be reached.
    """
    with _alone(database.name):
        config = _config(database, report, stdout)
        config.attributes.update(attributes)
        if url is not None:
            config.attributes["url"] = url
        try:
            run(config)
        except CommandError as error:
            if isinstance(error, QaplaError):
                raise
            raise MigrationError(
                f"the database {database.name!r} cannot be migrated: {error} "
                f"(migrations directory: {database.migrations_path})"
            ) from error
        if COMPLETED not in config.attributes:
            raise nothing_done(database.name, database.migrations_path)


@contextmanager
def _alone(name: str) -> Iterator[None]:
    with _turn:
        if _running:
            raise MigrationError(
                f"a migration of the database {name!r} was started inside the migration of "
                f"{_running[-1]!r}; Alembic runs one at a time in a process: start it afterwards"
            )
        _running.append(name)
        try:
            yield
        finally:
            _running.pop()


def _config(database: Database, report: Report | None, stdout: TextIO | None) -> Config:
    config = Config(stdout=stdout or io.StringIO())
    # ConfigParser takes a single % for the beginning of a reference
    config.set_main_option("script_location", str(_directory(database)).replace("%", "%%"))
    config.set_main_option("file_template", FILE_TEMPLATE)
    config.attributes.update(
        application=database.host, database=database.name, report=report or _quiet
    )
    return config


def _directory(database: Database) -> Path:
    path = Path(database.migrations_path).absolute()
    if not (path / "env.py").is_file():
        raise MigrationError(
            f"the migrations directory {path} of the database {database.name!r} "
            f"({database.paths_key!r} in paths) has no env.py; write it there: "
            f"AlembicEnv(app, Model, {database.name!r}).run()"
        )
    return path


def _quiet(line: str) -> None:
    pass
