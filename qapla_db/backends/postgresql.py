"""PostgreSQL, through psycopg 3 (psycopg 2 works too)."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine

from qapla_db.backends.base import NO_SETTINGS, Access, Backend, log
from qapla_db.backends.savepoints import quicken_savepoints
from qapla_db.backends.sockets import detach_socket
from qapla_db.backends.states import READ_ONLY, is_sandboxed
from qapla_db.errors import ServerError

__all__ = ["PostgreSQLBackend", "drop_database", "end_connections", "ending_statements"]

DROP_WAIT = 10.0
"""Seconds to wait for the connections of a database that is dropped."""

_LIBPQ_DRIVERS = frozenset({"psycopg", "psycopg2", "psycopg2cffi"})
_EMBEDDED_SOCKET = "/tmp/qapla_db-"
_IN_USE = "55006"
_STATEMENT_RUNS = 1  # libpq: PQTRANS_ACTIVE
_IN_ERROR = 3  # libpq: PQTRANS_INERROR

# what outlives connections and lets nobody drop a database, and how it ends
_ENDING = {
    "SELECT quote_literal(gid) FROM pg_catalog.pg_prepared_xacts "
    "WHERE CAST(database AS text) = :name": ["ROLLBACK PREPARED {}"],
    "SELECT quote_ident(subname) FROM pg_catalog.pg_subscription "
    "JOIN pg_catalog.pg_database AS d ON d.oid = subdbid WHERE CAST(datname AS text) = :name": [
        "ALTER SUBSCRIPTION {} DISABLE",
        "ALTER SUBSCRIPTION {} SET (slot_name = NONE)",
        "DROP SUBSCRIPTION {}",
    ],
}


class PostgreSQLBackend(Backend):
    """PostgreSQL 14 and newer."""

    name = "postgresql"
    default_driver = "psycopg"
    default_port = 5432
    driver_modules: ClassVar = {
        "psycopg": ("psycopg", "qapla_db[postgresql]"),
        "psycopg2": ("psycopg2", "psycopg2-binary"),
    }
    query_parts: ClassVar = {"user": "username", "password": "password", "dbname": "database"}
    name_limit = (63, "bytes")
    default_sockets: ClassVar = frozenset({"/tmp", "/run/postgresql", "/var/run/postgresql"})
    nulls_sort_last: ClassVar = True
    retry_codes: ClassVar = frozenset({"40001", "40P01"})
    lost_codes: ClassVar = frozenset({"25006", "57P01", "57P02", "57P03"})
    read_only_codes: ClassVar = frozenset({"25006"})

    def engine_defaults(self, url: sa.URL, label: str) -> dict[str, Any]:
        defaults: dict[str, Any] = {
            "pool_pre_ping": True,
            "pool_recycle": 300,
            "pool_timeout": 5,
            "pool_use_lifo": True,
        }
        if url.drivername.partition("+")[2] in _LIBPQ_DRIVERS:
            defaults["connect_args"] = {
                "connect_timeout": 5,
                "tcp_user_timeout": 10_000,
                "keepalives": 1,
                "keepalives_idle": 30,
                "keepalives_interval": 5,
                "keepalives_count": 3,
                "application_name": f"qapla_db:{label}",
            }
        return defaults

    def install(self, engine: Engine) -> None:
        event.listen(engine, "begin", _begin)
        quicken_savepoints(engine)

    def is_plain(self, url: sa.URL, connect_args: Mapping[str, Any]) -> bool:
        elsewhere = {"dbname", "host", "hostaddr", "port", "service", "servicefile", "unix_sock"}
        socket = url.query.get("host")
        by_socket = isinstance(socket, str) and socket.startswith("/") and "," not in socket
        if by_socket and _EMBEDDED_SOCKET in str(socket):
            return False  # of a server whose URL names another directory
        asked = set(url.query) - ({"host", "port"} if by_socket and not url.host else set())
        if elsewhere & {*asked, *connect_args} or "PGHOSTADDR" in os.environ:
            return False
        if by_socket or (url.host and url.port):
            return True
        return not any(name in os.environ for name in ("PGHOST", "PGPORT", "PGSERVICE"))

    def read_only_options(self) -> dict[str, Any]:
        # the driver says BEGIN READ ONLY: no round trip of its own
        return {**super().read_only_options(), "postgresql_readonly": True}

    def maintenance_url(self, url: sa.URL) -> sa.URL | None:
        return url.set(database="template1" if url.database == "postgres" else "postgres")

    # --- the database itself

    def exists(self, url: sa.URL, maintenance: sa.URL | None, access: Access = NO_SETTINGS) -> bool:
        with self.administration(url, maintenance, access) as connection:
            return _exists(connection, url.database)

    def create(self, url: sa.URL, maintenance: sa.URL | None, access: Access = NO_SETTINGS) -> bool:
        with self.administration(url, maintenance, access) as connection:
            if _exists(connection, url.database):
                return False
            is_ours = True
            try:
                connection.exec_driver_sql(f"CREATE DATABASE {_quoted(connection, url.database)}")
            except sa.exc.DBAPIError as error:
                # somebody else made it between our look and our statement
                if self.error_code(error.orig or error) not in ("42P04", "23505"):
                    raise
                is_ours = False
            if not _exists(connection, url.database):
                raise ServerError(
                    f"the database {access.label!r} is not there after CREATE DATABASE: the server "
                    f"keeps another name than {url.database!r}, or somebody dropped it meanwhile. "
                    f"Choose a shorter name in {access.key!r}, or try again"
                )
            return is_ours

    def drop(self, url: sa.URL, maintenance: sa.URL | None, access: Access = NO_SETTINGS) -> bool:
        with self.administration(url, maintenance, access) as connection:
            if not _exists(connection, url.database):
                return False
            end_connections(connection, url.database)
            drop_database(connection, url.database or "", access.label)
            return True

    # --- errors and broken states

    def error_code(self, error: BaseException) -> str | None:
        return _sqlstate(error)

    def refuses_arguments(self, error: Exception) -> bool:
        # what the server says of a connection is an OperationalError
        return super().refuses_arguments(error) or type(error).__name__ == "ProgrammingError"

    def has_failed(self, connection: Connection) -> bool:
        return _status(connection) == _IN_ERROR

    def stop_statement(self, connection: Connection) -> bool:
        if connection.closed or connection.invalidated:
            return False
        dbapi: Any = connection.connection.dbapi_connection
        busy = _status(connection) == _STATEMENT_RUNS
        if busy:
            try:
                if hasattr(dbapi, "cancel_safe"):
                    dbapi.cancel_safe(timeout=2)
                else:
                    dbapi.cancel()
            except Exception:
                log.warning("a running statement could not be cancelled", exc_info=True)
        return busy

    def orphan(self, dbapi_connection: Any) -> None:
        if not dbapi_connection.closed:
            detach_socket(dbapi_connection.fileno())


def _sqlstate(error: BaseException | None) -> str | None:
    code = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    return code if isinstance(code, str) else None


def _status(connection: Connection) -> int | None:
    """Return libpq's transaction status; None where the driver does not tell."""
    dbapi: Any = connection.connection.dbapi_connection
    pgconn = getattr(dbapi, "pgconn", None)
    if pgconn is not None:
        return int(pgconn.transaction_status)
    status = getattr(dbapi, "get_transaction_status", None)
    return None if status is None else int(status())


def _begin(connection: Connection) -> None:
    if connection.get_execution_options().get(READ_ONLY) and not is_sandboxed(connection):
        dbapi = connection.connection.dbapi_connection
        if getattr(dbapi, "autocommit", False):  # the driver begins nothing by itself
            connection.exec_driver_sql("BEGIN READ ONLY")


def _quoted(connection: Connection, name: str | None) -> str:
    return connection.dialect.identifier_preparer.quote_identifier(name or "")


def _exists(connection: Connection, name: str | None) -> bool:
    # compared as text: as a name, what we ask for would be cut as CREATE DATABASE cuts it
    query = sa.text("SELECT 1 FROM pg_catalog.pg_database WHERE CAST(datname AS text) = :name")
    found = connection.execute(query, {"name": name})
    return found.scalar() is not None


def end_connections(connection: Connection, name: str | None) -> None:
    """End every connection to a database and wait until the server has let them go.

    Terminating and polling takes about 15 ms where DROP ... WITH (FORCE) alone
    takes a fixed 100 ms.
    """
    deadline = time.monotonic() + DROP_WAIT
    terminate = sa.text(
        "SELECT pid, pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity "
        "WHERE datname = :name AND pid <> pg_backend_pid() "
        # the others end by themselves, and only a superuser may end them
        "AND backend_type IN ('client backend', 'walsender')"
    )
    while left := connection.execute(terminate, {"name": name}).all():
        if time.monotonic() > deadline:
            raise ServerError(
                f"the database {name!r} cannot be dropped: the connections of the processes "
                f"{', '.join(str(row.pid) for row in left)} did not end within {DROP_WAIT:g} s. "
                "Stop what uses them (see pg_stat_activity) and try again"
            )
        time.sleep(0.002)


def drop_database(connection: Connection, name: str, label: str) -> None:
    """Drop a database whose connections were ended.

    :param connection: to the server, with autocommit.
    :param name: the database's name on the server.
    :param label: its name in the application, for messages.
    :raises ServerError: it is used by what outlives connections, such as prepared
        transactions and subscriptions.
    """
    quoted = '"' + name.replace('"', '""') + '"'
    try:
        # FORCE is for who connected since; with nobody there it costs nothing
        connection.exec_driver_sql(
            f"DROP DATABASE IF EXISTS {quoted} WITH (FORCE)",
            execution_options={"no_parameters": True},
        )
    except sa.exc.DBAPIError as error:
        if _sqlstate(error.orig) != _IN_USE:
            raise
        statements = "; ".join(ending_statements(connection, name))
        advice = "Stop what uses it (see pg_stat_activity) and try again"
        if statements:
            advice = f"If nobody needs that, execute, connected to the database: {statements}"
        raise ServerError(
            f"the database {label!r} ({name!r} on its server) cannot be dropped: "
            f"{' '.join(str(error.orig).split())} {advice}"
        ) from error


def ending_statements(connection: Connection, name: str) -> list[str]:
    """Return what ends, in a database, all that lets nobody drop it and outlives connections.

    Slots that subscriptions have on other servers stay there.
    """
    found: list[str] = []
    for query, statements in _ENDING.items():
        for (left,) in connection.execute(sa.text(query), {"name": name}):
            found += [statement.format(left) for statement in statements]
    return found
