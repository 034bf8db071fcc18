"""Shadow databases: a scratch database beside the real one, gone at the end.

Of the real database nothing but its record is read, nothing is written, and none but a
shadow is dropped.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from sqlalchemy.engine import Engine

from qapla_db.backends import Backend, safe_url
from qapla_db.backends.base import Access
from qapla_db.database import Database
from qapla_db.errors import MigrationError, QaplaError, Refused, ServerError
from qapla_db.migrations.commands import Report, run_alembic
from qapla_db.migrations.connections import connected, migration_engine
from qapla_db.migrations.looking import expect_answer
from qapla_db.migrations.models import models_of
from qapla_db.owners import TOKEN_PARTS, is_abandoned, new_token
from qapla_db.record import is_production

__all__ = ["Shadow", "shadow"]

log = logging.getLogger("qapla_db")

MARK = "_shadow_"
DIRECTORY = "qapla_db" + MARK

_WAIT = 30.0
"""Seconds to wait for a SQLite file; nobody else should use it."""

_NAMES = {
    "postgresql": "SELECT datname FROM pg_catalog.pg_database",
    "mysql": "SELECT schema_name FROM information_schema.schemata",
    "mariadb": "SELECT schema_name FROM information_schema.schemata",
}
_CURRENT = {
    "postgresql": "SELECT pg_catalog.current_database()",
    "mysql": "SELECT DATABASE()",
    "mariadb": "SELECT DATABASE()",
    "sqlite": "SELECT file FROM pragma_database_list WHERE name = 'main'",
}
_MAY_CREATE = {
    "postgresql": "ALTER ROLE ... CREATEDB",
    "mysql": "GRANT ALL ON `NAME\\_shadow\\_%`.* TO ...",
    "mariadb": "GRANT ALL ON `NAME\\_shadow\\_%`.* TO ...",
}


@dataclass(frozen=True)
class Shadow:
    """A scratch database.

    :ivar url: where it is.
    :ivar engine: connects to it; it has no pool and is closed at the end.
    :ivar address: the URL without password, for people.
    """

    url: sa.URL = field(repr=False)
    engine: Engine = field(repr=False)
    address: str


@contextmanager
def shadow(
    database: Database,
    *,
    revision: str | None = "head",
    report: Report | None = None,
    allow_production: bool = False,
) -> Iterator[Shadow]:
    """Make a scratch database beside a database, and drop it at the end of the block.

    It is ``<name>_shadow_<token>`` on the same server, for SQLite a file in the
    directory for temporary files. What processes that were killed have left
    there is dropped too.

    :param database: a prepared database; it need not exist.
    :param revision: migrate the shadow to this revision; None leaves it empty.
    :param report: gets a line for each step.
    :param allow_production: make one on a server of the environment ``production`` too.
    :raises Refused: the environment is ``production`` by the settings or by the database's
        own record, that cannot be read, or the models or settings would lead the
        migrations out of the shadow.
    :raises ServerError: it cannot be created.
    :raises MigrationError: a revision failed on it.
    """
    expect_answer(database)
    _check(database, allow_production=allow_production)
    backend = database.backend
    with _place(database, backend) as url, migration_engine(database, backend, url, _WAIT) as found:
        _check_place(database, backend, found, url)
        if revision is not None:
            wanted = revision
            run_alembic(
                database, lambda config: command.upgrade(config, wanted), report=report, url=url
            )
        yield Shadow(url, found, safe_url(url))


def _check(database: Database, *, allow_production: bool) -> None:
    """Refuse a shadow beside production, and migrations that would leave their shadow."""
    name, settings = database.name, database.settings
    if not allow_production and is_production(database):
        raise Refused(
            f"no shadow database is made beside {name!r} at {settings.address}, which is of the "
            f"environment 'production' ('db:{name}:environment', or its own record); use the "
            "settings of a development machine (a program: allow_production=True)"
        )
    if database.backend.name not in ("mysql", "mariadb"):
        return
    # there a schema is a database of its own
    elsewhere = {str(one) for models in models_of(database) for one in _schemas(models)}
    if elsewhere:
        raise Refused(
            f"no shadow database is made of {name!r}: its models are in the schemas "
            f"{', '.join(sorted(elsewhere))}, which are other databases on this kind of server, "
            "and the migrations would change them. Leave the schema away in the models and "
            "register each database under a name of its own"
        )


def _schemas(models: sa.MetaData) -> set[str | None]:
    return {table.schema for table in models.tables.values()} - {None}


# --- where it is


@contextmanager
def _place(database: Database, backend: Backend) -> Iterator[sa.URL]:
    if backend.name == "sqlite":
        with _file(database.settings.url) as url:
            yield url
        return
    settings = database.settings
    access = settings.access
    _sweep_server(database, backend, access)
    url = _beside(backend, settings.url)
    backend.check_name(url)
    made = True  # as long as it is not known: the name is nobody else's
    try:
        made = _create(database, backend, url, access)
        yield url
    finally:
        if made:
            _drop(backend, url, settings.default_url, access)


def _beside(backend: Backend, url: sa.URL) -> sa.URL:
    return backend.renamed(url, shadow_name(backend, backend.name_of(url), new_token()))


def shadow_name(backend: Backend, base: str, token: str) -> str:
    """Return the name of a shadow: the base is cut to fit the server's limit, never the token."""
    return backend.fitting_name(base, MARK + token)


def _create(database: Database, backend: Backend, url: sa.URL, access: Access) -> bool:
    where = f"the shadow database {safe_url(url)} of {database.name!r}"
    try:
        made = backend.create(url, database.settings.default_url, access)
    except sa.exc.DBAPIError as error:
        right = _MAY_CREATE.get(backend.name, "the right to create databases")
        raise ServerError(
            f"{where} cannot be created: {' '.join(str(error.orig).split())}. Give the user of "
            f"{access.key!r} the right to create databases on its development server ({right}), "
            "or a server of its own"
        ) from error
    if not made:
        raise MigrationError(f"{where} is there already, made by somebody else; try again")
    return made


def _drop(backend: Backend, url: sa.URL, maintenance: sa.URL | None, access: Access) -> None:
    try:
        backend.drop(url, maintenance, access)
    except (QaplaError, sa.exc.DBAPIError) as error:
        # whatever went on in the block is worth more than this
        log.warning(
            "the shadow database %s could not be dropped; it is dropped by the next one that is "
            "made after this process has ended: %s",
            safe_url(url),
            " ".join(str(error).split()),
        )


@contextmanager
def _file(real: sa.URL) -> Iterator[sa.URL]:
    _sweep_directories()
    directory = Path(tempfile.mkdtemp(prefix=f"{DIRECTORY}{new_token()}_"))
    try:
        yield sa.URL.create(real.drivername, database=str(directory / "shadow.sqlite3"))
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _check_place(database: Database, backend: Backend, engine: Engine, url: sa.URL) -> None:
    """Refuse to go on where a connection leads elsewhere than to the shadow.

    An option such as ``creator`` or a name in ``connect_args`` wins over the URL.
    """
    dialect = engine.dialect.name
    if dialect not in _CURRENT:
        return
    with connected(engine, database, safe_url(url)) as connection:
        where = str(connection.exec_driver_sql(_CURRENT[dialect]).scalar() or "")
    if dialect == "sqlite":
        is_right = os.path.realpath(where) == os.path.realpath(url.database or "")
    else:
        is_right = where.casefold() == backend.name_of(url).casefold()
    if not is_right:
        raise Refused(
            f"no shadow database is used for {database.name!r}: a connection to {safe_url(url)} "
            f"led to {where!r}, so what is meant for the shadow would happen there. Take "
            f"'creator' and the database's name out of 'db:{database.name}:options'"
        )


# --- what others have left


def _sweep_server(database: Database, backend: Backend, access: Access) -> None:
    """Drop the shadows of this database whose processes are gone.

    :raises ServerError: nobody can connect, so no shadow can be made either.
    """
    settings = database.settings
    base = backend.name_of(settings.url)
    with backend.administration(settings.url, settings.default_url, access) as connection:
        query = _NAMES.get(connection.dialect.name)
        names = connection.exec_driver_sql(query).scalars().all() if query else ()
    try:
        for name in map(str, names):
            _, mark, token = name.rpartition(MARK)
            is_ours = mark and name.casefold() == shadow_name(backend, base, token).casefold()
            if is_ours and is_abandoned(token):
                backend.drop(backend.renamed(settings.url, name), settings.default_url, access)
    except (QaplaError, sa.exc.DBAPIError) as error:
        reason = " ".join(str(error).split())
        log.warning("an abandoned shadow of %r could not be dropped: %s", database.name, reason)


def _sweep_directories() -> None:
    for path in Path(tempfile.gettempdir()).glob(f"{DIRECTORY}*"):
        # behind the token are letters by chance, "_" among them
        token = "_".join(path.name.removeprefix(DIRECTORY).split("_")[:TOKEN_PARTS])
        if is_abandoned(token):
            shutil.rmtree(path, ignore_errors=True)
