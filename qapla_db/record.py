"""What a database says about itself: its name, its environment, who migrated it when."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Protocol

import sqlalchemy as sa
from sqlalchemy import pool
from sqlalchemy.engine import Connection

from qapla_db.backends.base import Access
from qapla_db.errors import Refused, ServerError
from qapla_db.record_table import (
    PRODUCTION,
    RECORD_TABLE,
    VERSION_TABLE,
    Applied,
    Record,
    RecordTable,
    checksum_of,
    mismatch,
    plain,
    records_in,
    table_in,
)
from qapla_db.settings import DatabaseSettings

__all__ = [
    "RECORD_TABLE",
    "Applied",
    "Record",
    "RecordTable",
    "check_record",
    "checksum_of",
    "is_production",
    "record_of",
    "recorded_as",
    "refuse_recorded_as_another",
    "refuse_recorded_production",
    "rewrite_record",
]

_IMPATIENT = {
    "postgresql": "SET LOCAL lock_timeout = 2000",
    "mysql": "SET SESSION lock_wait_timeout = 2",
    "mariadb": "SET SESSION lock_wait_timeout = 2",
}
_IMPATIENT_ARGS = {"sqlite": {"timeout": 2}}
"""Two seconds to wait for a record that somebody has locked."""


class HasSettings(Protocol):
    """What is asked of a :class:`~qapla_db.database.Database`."""

    @property
    def settings(self) -> DatabaseSettings: ...


def record_of(
    connection: Connection, *, version_table: str = VERSION_TABLE, schema: str | None = None
) -> Record | None:
    """Return what a database says about itself; None when it was never migrated by us.

    :param version_table: of several names on one database each has its own.
    :param schema: ``version_table_schema``, where ``env.py`` sets it.
    """
    return RecordTable(version_table, schema).read(connection)


def check_record(
    connection: Connection,
    settings: DatabaseSettings,
    *,
    version_table: str = VERSION_TABLE,
    schema: str | None = None,
) -> None:
    """Raise where a database is another one than the settings say.

    :raises RecordMismatch: its record has another name or another environment.
    """
    RecordTable(version_table, schema).check(connection, settings)


def is_production(database: HasSettings) -> bool:
    """Tell whether a database is of the environment ``production``, by settings or record.

    :raises Refused: there is a record that cannot be read.
    """
    settings = database.settings
    if plain(settings.environment) == PRODUCTION:
        return True
    return any(one.is_production for one in recorded_as(settings))


def recorded_as(settings: DatabaseSettings) -> list[Record]:
    """Return the records of a live database, of all its version tables.

    None are found where there is no database, or its server does not answer at all.

    :raises Refused: there is a record that cannot be read, or a database that cannot
        be connected to, which may have one.
    """
    backend, url = settings.backend, settings.url
    if backend.is_volatile(url) or not backend.name_of(url):
        return []
    with ExitStack() as stack:
        try:
            connection = stack.enter_context(_connected(settings))
        except (sa.exc.DBAPIError, ServerError) as error:
            if not _may_be_there(settings):
                return []
            raise _unreadable(settings, error) from error
        connection.execution_options(**backend.read_only_options())
        try:
            return [one for table in _tables(connection) for one in records_in(connection, table)]
        except sa.exc.DBAPIError as error:
            raise _unreadable(settings, error) from error


def _unreadable(settings: DatabaseSettings, error: sa.exc.DBAPIError | ServerError) -> Refused:
    cause = error.message if isinstance(error, ServerError) else str(error.orig)
    return Refused(
        f"the record of the database {settings.name!r} at {settings.address} (table "
        f"{RECORD_TABLE}) cannot be read: {' '.join(cause.split()).rstrip('.')}. Let its user "
        "connect to the database and read the table, or end what has locked it"
    )


def _may_be_there(settings: DatabaseSettings) -> bool:
    """Tell whether a database that cannot be connected to exists, or may do so."""
    backend = settings.backend
    try:
        return backend.exists(settings.url, settings.default_url, _access(settings))
    except sa.exc.DBAPIError:
        return True
    except ServerError as error:
        return not backend.is_server or _has_answered(settings, error.__cause__)


def _has_answered(settings: DatabaseSettings, error: BaseException | None) -> bool:
    """Tell whether it was the server that refused a connection: it may accept the next one."""
    original = getattr(error, "orig", None) or error
    code = None if original is None else settings.backend.error_code(original)
    if isinstance(code, int):
        return not 2000 <= code < 3000  # those are the client's own
    return code is not None or "FATAL:" in str(original)  # libpq gives no code of a connection


def _access(settings: DatabaseSettings) -> Access:
    return Access(settings.connect_args, settings.name, settings.source)


@contextmanager
def _connected(settings: DatabaseSettings) -> Iterator[Connection]:
    backend = settings.backend
    connect_args = {**settings.connect_args, **_IMPATIENT_ARGS.get(backend.name, {})}
    options = {"poolclass": pool.NullPool, "connect_args": connect_args}
    engine = backend.create_engine(settings.url, options, label=settings.name, key=settings.source)
    try:
        backend.check_present(engine.url, _access(settings))
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def _tables(connection: Connection) -> list[sa.Table]:
    # whoever empties the tables in an open transaction must not hold us for ever
    limit = _IMPATIENT.get(connection.dialect.name)
    if limit is not None:
        connection.exec_driver_sql(limit)
    if connection.dialect.name != "postgresql":
        return [table_in(None)] if sa.inspect(connection).has_table(RECORD_TABLE) else []
    schemas = sa.text(
        "SELECT nspname FROM pg_catalog.pg_class "
        "JOIN pg_catalog.pg_namespace AS n ON n.oid = relnamespace "
        "WHERE relname = :name AND relkind IN ('r', 'p') ORDER BY nspname"
    )
    return [table_in(one) for one in connection.scalars(schemas, {"name": RECORD_TABLE})]


# --- making it right


def rewrite_record(database: HasSettings, *, confirm: str) -> None:
    """Make the record of a database say what the settings say.

    It is for a copy of production that was restored elsewhere on purpose, and for
    an application that gave its database another name. Of a record that says
    ``production`` nothing is changed while others are connected, as they are to
    production and not to a copy.

    :param database: a prepared database.
    :param confirm: what the record says now, ``name@environment``, from a caller who
        knows that this is right.
    :raises Refused: it says something else, there is no record, or the database is in use.
    """
    settings = database.settings
    where = f"the record of the database {settings.name!r} at {settings.address}"
    with _connected(settings) as connection, connection.begin():
        tables = _tables(connection)
        records = [one for table in tables for one in records_in(connection, table)]
        if confirm not in [one.identity for one in records]:
            said = ", ".join(one.identity for one in records) or "nothing"
            raise Refused(f"{where} is not changed: it says {said}, which is not {confirm!r}")
        if any(one.is_production for one in records):
            _refuse_in_use(connection, where)
        renamed = confirm.rpartition("@")[0]
        if settings.name in [one.name for one in records]:
            renamed = settings.name
        for table in tables:
            connection.execute(
                sa.update(table).values(
                    environment=settings.environment,
                    name=sa.case((table.c.name == renamed, settings.name), else_=table.c.name),
                )
            )


def _refuse_in_use(connection: Connection, where: str) -> None:
    query = _OTHERS.get(connection.dialect.name)
    others = connection.exec_driver_sql(query).scalar() if query else 0
    if others:
        raise Refused(
            f"{where} is not changed: it says {PRODUCTION!r}, and {others} other connections use "
            "the database, as they use production and not a copy. If it is a copy, stop what is "
            "connected to it and try again"
        )


_OTHERS = {
    "postgresql": "SELECT count(*) FROM pg_catalog.pg_stat_activity "
    "WHERE datname = pg_catalog.current_database() AND pid <> pg_catalog.pg_backend_pid() "
    "AND backend_type = 'client backend'",
    "mysql": "SELECT count(*) FROM information_schema.processlist "
    "WHERE db = DATABASE() AND id <> CONNECTION_ID()",
}
_OTHERS["mariadb"] = _OTHERS["mysql"]


def refuse_recorded_production(settings: DatabaseSettings) -> None:
    """Refuse to drop a live database whose record says ``production``.

    :raises Refused: it does, or it cannot be read.
    """
    for one in recorded_as(settings):
        if one.is_production:
            raise Refused(
                f"the database {settings.name!r} at {settings.address} is of the environment "
                f"{PRODUCTION!r}, as its own record says (table {RECORD_TABLE}: {one.identity}; "
                f"the settings say {settings.environment!r}), and is never dropped from here. "
                f"{one.remedy(settings)}"
            )


def refuse_recorded_as_another(
    settings: DatabaseSettings, sharing: Iterable[DatabaseSettings]
) -> None:
    """Refuse to drop a live database that is recorded as another one than the settings mean.

    :param sharing: of all names of the application that are on this database.
    :raises RecordMismatch: a record has a name of none of them, or another environment.
    :raises Refused: a record cannot be read.
    """
    environments = {one.name: plain(one.environment) for one in sharing}
    for one in recorded_as(settings):
        # production has an error of its own
        if not one.is_production and environments.get(one.name) != plain(one.environment):
            raise mismatch(one, settings)
