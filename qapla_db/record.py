"""What a database says about itself: its name, its environment, who migrated it when."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

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
    "is_production",
    "record_of",
    "recorded_as",
    "refuse_recorded_as_another",
    "refuse_recorded_production",
    "rewrite_record",
]

_TESTS = "tests"
"""The environment of a database of the tests, where none is set."""

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
"""Two seconds to wait for a record that somebody has locked."""


class HasSettings(Protocol):
    """What is asked of a :class:`~qapla_db.database.Database`."""

    @property
    def settings(self) -> DatabaseSettings: ...


class Registered(HasSettings, Protocol):
    """A database that knows the others of its application."""

    @property
    def host(self) -> Any: ...


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
    with _connected(settings) as connection:
        connection.execution_options(**settings.backend.read_only_options())
        return [one for table in _tables(connection) for one in records_in(connection, table)]


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


def rewrite_record(database: Registered, *, confirm: str, version_table: str | None = None) -> None:
    """Make the record of a database say what the settings say.

    It is for a copy of production that was restored elsewhere on purpose, and for
    an application that gave its database another name. Of a database that is recorded
    as ``production`` nothing is changed while others are connected, as they are to
    production and not to a copy. Each of several names on one database has a record of
    its own.

    :param database: a prepared database.
    :param confirm: what the record says now, ``name@environment``, from a caller who
        knows that this is right.
    :param version_table: whose record it is, as ``schema.name`` where ``env.py`` sets a
        schema; the database's own by default.
    :raises Refused: it says something else, or the same as the settings, there is no
        record, nothing could be changed, or the database is in use.
    """
    settings = database.settings
    where = f"the record of the database {settings.name!r} at {settings.address}"
    environment = settings.environment.strip()
    wanted = version_table or _version_table(database)
    with _connected(settings) as connection, connection.begin():
        found = [
            (table, one) for table in _tables(connection) for one in records_in(connection, table)
        ]
        own = [(table, one) for table, one in found if one.version_table == wanted]
        meant = [table for table, one in own if one.identity == confirm]
        if not meant:
            raise Refused(_other_than(confirm, where, wanted, [one for _, one in found]))
        if confirm == f"{settings.name}@{environment}":
            raise Refused(f"{where} is not changed: it says {confirm} already, as the settings do")
        if any(one.is_production for _, one in found):
            _refuse_in_use(connection, where)
        values = {"name": settings.name, "environment": environment}
        for table in meant:
            update = sa.update(table).where(table.c.version_table == wanted).values(values)
            if not connection.execute(update).rowcount:
                raise Refused(
                    f"{where} is not changed: its user may not change the rows of {table.fullname}"
                )


def _version_table(database: Registered) -> str:
    """Return the usual version table of a database, as ``env.py`` chooses it."""
    settings = database.settings
    names = [
        one.name for one in database.host.dbs.values() if one.settings.identity == settings.identity
    ]
    return VERSION_TABLE if settings.name in names[:1] else f"{VERSION_TABLE}_{settings.name}"


def _other_than(confirm: str, where: str, wanted: str, records: list[Record]) -> str:
    said = ", ".join(one.identity for one in records if one.version_table == wanted) or "nothing"
    others = [
        f"version_table={one.version_table!r} says {one.identity}"
        for one in records
        if one.version_table != wanted
    ]
    more = f". Of others {', '.join(others)}" if others else ""
    return (
        f"{where} is not changed: it says {said}, which is not {confirm!r} (version table "
        f"{wanted}){more}"
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
    settings: DatabaseSettings, sharing: Iterable[DatabaseSettings], *, of_tests: bool = False
) -> None:
    """Refuse to drop a live database that is recorded as another one than the settings mean.

    :param sharing: of all names of the application that are on this database.
    :param of_tests: the application is prepared for tests, whose database of the
        environment ``tests`` may be one of another environment from now on.
    :raises RecordMismatch: a record has a name of none of them, or another environment.
    :raises Refused: a record cannot be read.
    """
    environments = {one.name: plain(one.environment) for one in sharing}
    for one in recorded_as(settings):
        recorded = plain(one.environment)
        is_right = environments.get(one.name) == recorded
        is_tests = of_tests and one.name in environments and recorded == _TESTS
        # production has an error of its own
        if not (one.is_production or is_right or is_tests):
            raise mismatch(one, settings)
