"""Reads the records of a live database, on a connection of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import pool
from sqlalchemy.engine import Connection

from qapla_db.errors import Refused, ServerError
from qapla_db.record_table import RECORD_TABLE, Record, records_in, table_in
from qapla_db.settings import DatabaseSettings

__all__ = ["be_impatient", "connected", "has_answered", "recorded_as", "tables_in"]

_ATTEMPTS = 3
"""To read a record: whoever drops the database meanwhile cuts those who are connected."""

_LOCK_NOT_AVAILABLE = "55P03"
"""SQLSTATE: postgresql.org/docs/current/errcodes-appendix.html"""

_IMPATIENT = {
    "postgresql": "SET LOCAL lock_timeout = 2000",
    "mysql": "SET SESSION lock_wait_timeout = 2",
    "mariadb": "SET SESSION lock_wait_timeout = 2",
}
_IMPATIENT_ARGS = {"sqlite": {"timeout": 2}}
"""Two seconds to wait for a table that somebody has locked."""


def recorded_as(settings: DatabaseSettings) -> list[Record]:
    """Return the records of a live database, of all its version tables.

    None are found where there is no database, or its server does not answer at all.

    :raises Refused: there is a record that cannot be read, or a database that cannot
        be connected to, which may have one.
    """
    backend, url = settings.backend, settings.url
    if backend.is_volatile(url) or not backend.name_of(url):
        return []
    for left in reversed(range(_ATTEMPTS)):
        try:
            return _read(settings)
        except (sa.exc.DBAPIError, ServerError) as error:
            if not _may_be_there(settings):
                return []
            if not left or _waited(settings, error):
                raise _unreadable(settings, error) from error
    raise AssertionError("the last attempt returns or raises")


def _read(settings: DatabaseSettings) -> list[Record]:
    with connected(settings) as connection:
        connection.execution_options(**settings.backend.read_only_options())
        return [one for table in tables_in(connection) for one in records_in(connection, table)]


def _waited(settings: DatabaseSettings, error: sa.exc.DBAPIError | ServerError) -> bool:
    """Tell whether a lock was waited for, which is not done again."""
    if isinstance(error, ServerError) or error.orig is None:
        return False
    backend = settings.backend
    return backend.is_retryable(error) or backend.error_code(error.orig) == _LOCK_NOT_AVAILABLE


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
        return backend.exists(settings.url, settings.default_url, settings.access)
    except sa.exc.DBAPIError:
        return True
    except ServerError as error:
        return not backend.is_server or has_answered(settings, error.__cause__)


def has_answered(settings: DatabaseSettings, error: BaseException | None) -> bool:
    """Tell whether it was the server that refused a connection: it may accept the next one."""
    original = getattr(error, "orig", None) or error
    code = None if original is None else settings.backend.error_code(original)
    if isinstance(code, int):
        return not 2000 <= code < 3000  # those are the client's own
    return code is not None or "FATAL:" in str(original)  # libpq gives no code of a connection


@contextmanager
def connected(settings: DatabaseSettings) -> Iterator[Connection]:
    """Yield a connection of its own to a live database; none is created by it.

    :raises ServerError: there is none, or it cannot be connected to.
    """
    backend = settings.backend
    connect_args = {**settings.connect_args, **_IMPATIENT_ARGS.get(backend.name, {})}
    options = {"poolclass": pool.NullPool, "connect_args": connect_args}
    url = _of_what_is_there(settings.url)
    engine = backend.create_engine(url, options, label=settings.name, key=settings.source)
    try:
        backend.check_present(settings.url, settings.access)
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def _of_what_is_there(url: sa.URL) -> sa.URL:
    """Return a URL with which SQLite makes no file, should somebody have dropped it just now."""
    database = url.database or ""
    if url.get_backend_name() != "sqlite" or database.startswith("file:"):
        return url
    return url.set(database=Path(database).absolute().as_uri()).update_query_dict(
        {"uri": "true", "mode": "rw"}
    )


def be_impatient(connection: Connection) -> None:
    """Wait two seconds for a table that somebody has locked, in this transaction."""
    limit = _IMPATIENT.get(connection.dialect.name)
    if limit is not None:
        connection.exec_driver_sql(limit)


def tables_in(connection: Connection) -> list[sa.Table]:
    """Return the tables with records, of all schemas; a lock is waited for two seconds."""
    # whoever empties the tables in an open transaction must not hold us for ever
    be_impatient(connection)
    if connection.dialect.name != "postgresql":
        return [table_in(None)] if sa.inspect(connection).has_table(RECORD_TABLE) else []
    schemas = sa.text(
        "SELECT nspname FROM pg_catalog.pg_class "
        "JOIN pg_catalog.pg_namespace AS n ON n.oid = relnamespace "
        "WHERE relname = :name AND relkind IN ('r', 'p') ORDER BY nspname"
    )
    return [table_in(one) for one in connection.scalars(schemas, {"name": RECORD_TABLE})]
