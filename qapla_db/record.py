"""What a database says about itself: its name, its environment, who migrated it when."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from qapla_db.errors import Refused
from qapla_db.record_reader import connected, recorded_as, tables_in
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
    "refuse_recorded",
    "rewrite_record",
    "sharing",
    "usual_version_table",
]

_TESTS = "tests"
"""The environment of a database of the tests, where none is set."""


class HasSettings(Protocol):
    """What is asked of a :class:`~qapla_db.database.Database`."""

    @property
    def settings(self) -> DatabaseSettings: ...


class Registered(HasSettings, Protocol):
    """A database that knows the others of its application."""

    @property
    def host(self) -> Any: ...


D = TypeVar("D", bound=Registered)


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


def usual_version_table(database: Registered) -> str:
    """Return the usual name of a database's version table.

    It is ``alembic_version``. Of several names that lead to one database the
    one that was registered first has it, the others have
    ``alembic_version_<name>``: so a database that was alone keeps its table
    when another name is registered after it.
    """
    if sharing(database)[0] is database:
        return VERSION_TABLE
    return f"{VERSION_TABLE}_{database.settings.name}"


def sharing(database: D) -> list[D]:
    """Return the registered databases that are this one on its server, itself included."""
    settings = database.settings
    if settings.backend.is_volatile(settings.url):
        return [database]
    registered = database.host.dbs.values()
    return [one for one in registered if settings.is_same_database(one.settings)] or [database]


def is_production(database: HasSettings) -> bool:
    """Tell whether a database is of the environment ``production``, by settings or record.

    :raises Refused: there is a record that cannot be read.
    """
    settings = database.settings
    if plain(settings.environment) == PRODUCTION:
        return True
    return any(one.is_production for one in recorded_as(settings))


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
    wanted = version_table or usual_version_table(database)
    with connected(settings) as connection, connection.begin():
        found = [
            (table, one) for table in tables_in(connection) for one in records_in(connection, table)
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


def refuse_recorded(
    settings: DatabaseSettings, sharing: Iterable[DatabaseSettings], *, of_tests: bool = False
) -> None:
    """Refuse to drop a live database that is production by its record, or another one.

    :param sharing: of all names of the application that are on this database.
    :param of_tests: the application is prepared for tests, whose database of the
        environment ``tests`` may be one of another environment from now on.
    :raises Refused: a record says ``production``, or cannot be read.
    :raises RecordMismatch: a record has a name of none of them, or another environment.
    """
    records = recorded_as(settings)
    for one in records:
        if one.is_production:
            raise Refused(
                f"the database {settings.name!r} at {settings.address} is of the environment "
                f"{PRODUCTION!r}, as its own record says (table {RECORD_TABLE}: {one.identity}; "
                f"the settings say {settings.environment!r}), and is never dropped from here. "
                f"{one.remedy(settings)}"
            )
    environments = {one.name: plain(one.environment) for one in sharing}
    for one in records:
        recorded = plain(one.environment)
        is_tests = of_tests and one.name in environments and recorded == _TESTS
        if environments.get(one.name) != recorded and not is_tests:
            raise mismatch(one, settings)
