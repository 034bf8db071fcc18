"""AlembicEnv: what runs in the ``env.py`` of every migrations directory."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import sqlalchemy as sa
from alembic import context
from alembic.config import Config
from alembic.operations.ops import MigrationScript
from alembic.runtime.migration import MigrationContext
from sqlalchemy.engine import Connection

from qapla_db.backends import Backend, get_backend, safe_url
from qapla_db.backends.postgresql import PostgreSQLBackend
from qapla_db.database import Database
from qapla_db.errors import (
    InvalidArgument,
    MigrationError,
    QaplaError,
    SettingMissing,
)
from qapla_db.migrations.autogenerate.defaults import write_percents_once
from qapla_db.migrations.autogenerate.enums import compare_enums, write_plainly
from qapla_db.migrations.autogenerate.tables import (
    OwnTables,
    drop_empty,
    metadata_of,
    plugins,
    without_constraints_of_types,
)
from qapla_db.migrations.autogenerate.types import with_imports
from qapla_db.migrations.command_error import as_command_error, not_to_end_here
from qapla_db.migrations.confinement import confined
from qapla_db.migrations.connections import connected, migration_engine
from qapla_db.migrations.directory import (
    COMPLETED,
    expect_run,
    require_section,
    require_template,
)
from qapla_db.migrations.preparing import asked_for_tests, prepare
from qapla_db.migrations.recording import Recording
from qapla_db.migrations.renames import refuse_unhandled
from qapla_db.migrations.runner import Runner
from qapla_db.record import RecordTable, usual_version_table
from qapla_db.registry import Host

__all__ = ["DIRECTIVES", "MODELS", "OPTIONS", "AlembicEnv"]

MODELS = "qapla_db.models"
"""Key in ``config.attributes``: a list that gets the metadata, and nothing else is done."""

DIRECTIVES = "qapla_db.directives"
"""Key in ``config.attributes``: a function that changes what autogenerate has found."""

OPTIONS = "qapla_db.options"
"""Key in ``config.attributes``: a dict that gets what ``context.configure`` would get,
and nothing else is done."""


class AlembicEnv:
    """The environment of the migrations of one database.

    In ``migrations/main/env.py``::

        from qapla_db.env import AlembicEnv
        from rotarran import main
        from rotarran.application.db import Model

        AlembicEnv(main, Model, "main").run()

    :param app: the application; it is prepared for ``command``, or for ``tests``
        with ``-x is_test=true`` or ``is_test = true`` in the ini file, unless it
        is prepared already.
    :param model: declarative base of the database's models, a MetaData, or a list of them.
    :param name: the database's name.
    :param lock_wait: seconds to wait for another migration run and for tables in use.
    :param lock_timeout: seconds that one statement waits for a table in use before
        it lets others through and tries again (PostgreSQL); None for no limit.
    :param configure: keywords of Alembic's ``context.configure``; they win over ours.

    ``config.attributes`` may hold an ``application`` to use instead of ``app``, a
    ``url`` instead of the one of the settings, a ``connection`` (the caller owns
    its transaction and sees to it that nobody else migrates), and a function
    ``report`` that gets a line for each step.
    """

    def __init__(
        self,
        app: Host,
        model: object,
        name: str,
        *,
        lock_wait: float = 60.0,
        lock_timeout: float | None = 2.0,
        **configure: Any,
    ) -> None:
        self.app = app
        self.name = name
        self.lock_wait = lock_wait
        self.lock_timeout = lock_timeout
        self.configure = configure
        self.tables = OwnTables(metadata_of(model))
        expect_run(name)

    def run(self) -> None:
        """Run the Alembic command that is under way.

        :raises MigrationError: and others of ours; each is a
            :class:`alembic.util.CommandError` too, which the command ``alembic``
            shows as one line.
        """
        try:
            self._run(context.config)
        except QaplaError as error:
            shown = as_command_error(error).with_traceback(error.__traceback__)
            raise shown from error.__cause__
        except SystemExit as error:
            ended = not_to_end_here(error, self.name, context.script.dir)
            raise as_command_error(ended) from error
        context.config.attributes[COMPLETED] = self.name

    def _run(self, config: Config) -> None:
        require_section(config)
        host: Host = config.attributes.get("application", self.app)
        prepare(host, asked_for_tests(config))
        database = host.dbs[self.name]
        self._check_directory(database, config.attributes.get("database"))
        if MODELS in config.attributes:
            config.attributes[MODELS].extend(self.tables.metadata)
            return
        if OPTIONS in config.attributes:
            dialect = database.settings.url.get_backend_name()
            config.attributes[OPTIONS].update(self._options(database, dialect))
            return
        require_template(config, context.script.dir)
        given: Connection | None = config.attributes.get("connection")
        backend, url = self._target(database, config.attributes.get("url"))
        if context.is_offline_mode():
            with confined(database, None):
                self._write_sql(database, backend, url)
        elif given is not None:
            with confined(database, url):
                self._runner(database, given, backend, url, owned=False).run()
        else:
            address = safe_url(url)
            with (
                migration_engine(database, backend, url, self.lock_wait) as engine,
                connected(engine, database, address) as connection,
                confined(database, url),
            ):
                self._runner(database, connection, backend, url, owned=True).run()

    def _check_directory(self, database: Database, expected: str | None) -> None:
        """Refuse the revisions of another database: an ``env.py`` that was copied, say."""
        here = context.script.dir
        if expected not in (None, self.name):
            raise MigrationError(
                f"{here}/env.py is run for the database {expected!r}, but hands {self.name!r} to "
                f"AlembicEnv; correct the name there, or the path {database.paths_key!r}"
            )
        try:
            path = database.migrations_path
        except SettingMissing:
            return
        if os.path.isdir(path) and not os.path.samefile(path, here):
            raise MigrationError(
                f"{here}/env.py is of the database {self.name!r}, but its migrations directory is "
                f"{path} ({database.paths_key!r} in paths); correct the name there, or the path"
            )

    def _target(self, database: Database, given: str | sa.URL | None) -> tuple[Backend, sa.URL]:
        settings = database.settings
        if given is None:
            return settings.backend, settings.url
        url = sa.make_url(given)
        backend = get_backend(url)
        if backend is None:
            raise InvalidArgument(
                f"config.attributes['url'] for the database {self.name!r} names the unknown kind "
                f"of database {url.drivername!r}"
            )
        return backend, backend.complete(url)

    def _runner(
        self,
        database: Database,
        connection: Connection,
        backend: Backend,
        url: sa.URL,
        *,
        owned: bool,
    ) -> Runner:
        options = self._options(database, connection.dialect.name)
        is_its_own = url == database.settings.url  # else nothing of its server is started
        sandboxed = is_its_own and getattr(database.engine.pool, "sandboxed", False)
        return Runner(
            name=self.name,
            address=safe_url(url),
            backend=backend,
            connection=connection,
            owned=owned,
            sandboxed=sandboxed,
            options=options,
            recording=Recording(
                RecordTable(options["version_table"], options.get("version_table_schema")),
                replace(database.settings, url=url, backend=backend),
                database.host,
                context.script,
            ),
            safe_defaults=options["compare_server_default"] is True,
            lock_wait=self.lock_wait,
            lock_timeout=self.lock_timeout,
            say=_say,
        )

    def _write_sql(self, database: Database, backend: Backend, url: sa.URL) -> None:
        if isinstance(backend, PostgreSQLBackend):
            url = sa.URL.create("postgresql+psycopg")  # nothing is started or connected
        options = self._options(database, url.get_backend_name())
        context.configure(
            url=url, literal_binds=True, dialect_opts={"paramstyle": "named"}, **options
        )
        with context.begin_transaction():
            context.run_migrations()

    def _options(self, database: Database, dialect: str) -> dict[str, Any]:
        compare_enums(dialect)
        given = self.configure
        metadata = self.tables.metadata
        sqlite = dialect == "sqlite"
        options: dict[str, Any] = {
            "target_metadata": metadata[0] if len(metadata) == 1 else metadata,
            "version_table": usual_version_table(database),
            "include_schemas": any(schema for schema in self.tables.schemas),
            "compare_type": True,
            "compare_server_default": dialect in ("postgresql", "sqlite"),
            "transaction_per_migration": not sqlite,
            "render_as_batch": sqlite,
            **({"transactional_ddl": True} if sqlite else {}),
            **plugins(metadata, dialect),
            **given,
        }
        applied = given.get("on_version_apply", ())
        options["on_version_apply"] = (applied,) if callable(applied) else tuple(applied)
        options["include_name"] = self.tables.filter(given.get("include_name"))
        options["include_object"] = without_constraints_of_types(given.get("include_object"))
        options["render_item"] = with_imports(given.get("render_item"))
        options["process_revision_directives"] = self._process_directives
        return options

    def _process_directives(
        self, migration: MigrationContext, revision: Any, directives: list[MigrationScript]
    ) -> None:
        ours = context.config.attributes.get(DIRECTIVES)
        if ours is not None:
            ours(migration, directives[0], self.tables)
        write_plainly(migration.dialect, directives[0])
        write_percents_once(migration)
        theirs = self.configure.get("process_revision_directives")
        if theirs is not None:
            theirs(migration, revision, directives)
        if ours is None and directives:
            refuse_unhandled(self.name, directives[0], self.tables)
        note = self.tables.report()
        if note is not None:
            _say(f"{self.name}: {note}")
        # "alembic check" needs the directives, empty or not
        if getattr(context.config.cmd_opts, "autogenerate", False) and drop_empty(directives):
            _say(f"{self.name}: the models and the database agree, no revision is written")


def _say(line: str) -> None:
    config = context.config
    report: Callable[[str], object] | None = config.attributes.get("report")
    if report is not None:
        report(line)
        return
    config.print_stdout(line)
    with suppress(OSError):  # as print_stdout: nobody reads any more
        config.stdout.flush()  # into a pipe it would come only at the end
