"""MariaDB and MySQL, through PyMySQL."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine

from qapla_db.backends.address import one_value
from qapla_db.backends.base import NO_SETTINGS, Access, Backend, log
from qapla_db.backends.sockets import detach_socket
from qapla_db.backends.states import READ_ONLY, is_autocommit, is_sandboxed
from qapla_db.errors import ServerError

__all__ = ["MariaDBBackend", "MySQLBackend", "drop_database", "end_process"]

DROP_WAIT = 10
"""Seconds to wait for the locks of others on a database that is dropped."""

_IS_READ_ONLY = "qapla_db_session_is_read_only"
_LOCK_WAIT_TIMEOUT = 1205


class MySQLBackend(Backend):
    """MySQL 8 and MariaDB 10.6 and newer."""

    name = "mysql"
    default_driver = "pymysql"
    default_port = 3306
    driver_modules: ClassVar = {
        "pymysql": ("pymysql", "qapla_db[mysql]"),
        "mysqldb": ("MySQLdb", "mysqlclient"),
    }
    query_parts: ClassVar = {
        "user": "username",
        "password": "password",
        "passwd": "password",
        "db": "database",
        "database": "database",
    }
    default_sockets: ClassVar = frozenset(
        {"/tmp/mysql.sock", "/run/mysqld/mysqld.sock", "/var/run/mysqld/mysqld.sock"}
    )
    name_limit = (64, "characters")
    isolation_level = "REPEATABLE READ"
    # deadlock, lock wait time-out, record changed since last read
    retry_codes: ClassVar = frozenset({1213, 1205, 1020})
    # deadlock, record changed since last read, no room for more locks
    rollback_codes: ClassVar = frozenset({1213, 1020, 1206})
    # read-only server or transaction, not (yet) a member of its cluster
    lost_codes: ClassVar = frozenset({1290, 1792, 1836, 1047})
    read_only_codes: ClassVar = frozenset({1792})

    def engine_defaults(self, url: sa.URL, label: str) -> dict[str, Any]:
        defaults: dict[str, Any] = {
            "pool_pre_ping": True,
            "pool_recycle": 300,
            "pool_timeout": 5,
            "pool_use_lifo": True,
        }
        if url.drivername.partition("+")[2] == "pymysql":
            defaults["connect_args"] = {
                "charset": "utf8mb4",
                "connect_timeout": 5,
                "read_timeout": 300,
                "write_timeout": 300,
                "program_name": f"qapla_db:{label}",
            }
        return defaults

    def install(self, engine: Engine) -> None:
        event.listen(engine, "begin", _begin)
        event.listen(engine, "reset", _make_writable)
        if engine.dialect.driver == "pymysql":
            event.listen(engine, "do_connect", _no_tls_in_sockets)

    def maintenance_url(self, url: sa.URL) -> sa.URL | None:
        return url.set(database="")

    def host_and_port(self, url: sa.URL) -> tuple[str, int]:
        socket = one_value(url.query.get("unix_socket"))
        return (socket, self.default_port) if socket else super().host_and_port(url)

    def is_by_tcp(self, url: sa.URL) -> bool:
        # for the client library of MySQL localhost means the socket, whatever the port
        by_library = url.drivername.partition("+")[2] != "pymysql"
        is_localhost = self.host_and_port(url)[0].lower() == "localhost"
        return super().is_by_tcp(url) and not (by_library and is_localhost)

    def is_plain(self, url: sa.URL, connect_args: Mapping[str, Any]) -> bool:
        elsewhere = {"database", "db", "host", "port", "read_default_file", "read_default_group"}
        return not elsewhere & {*url.query, *connect_args} and "unix_socket" not in connect_args

    def exists(self, url: sa.URL, maintenance: sa.URL | None, access: Access = NO_SETTINGS) -> bool:
        with self.administration(url, maintenance, access) as one:
            return _stored_name(one, url.database) is not None

    def create(self, url: sa.URL, maintenance: sa.URL | None, access: Access = NO_SETTINGS) -> bool:
        with self.administration(url, maintenance, access) as one:
            if _stored_name(one, url.database) is not None:
                return False
            name = _quoted(one, url.database)
            try:
                one.exec_driver_sql(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
            except sa.exc.DBAPIError as error:
                if error.orig is not None and self.error_code(error.orig) == 1007:
                    return False
                raise
            return True

    def drop(self, url: sa.URL, maintenance: sa.URL | None, access: Access = NO_SETTINGS) -> bool:
        with self.administration(url, maintenance, access) as one:
            stored = _stored_name(one, url.database)
            if stored is None:
                return False
            # an open transaction's metadata locks would make DROP DATABASE wait
            users = sa.text("SELECT id, db FROM information_schema.processlist")
            for process, used in one.execute(users).all():
                if used == stored:
                    end_process(one, process)
            drop_database(one, url.database or "", access.label)
            return True

    def error_code(self, error: BaseException) -> int | None:
        # both PyMySQL and mysqlclient have this class, and no code without it
        if not any(base.__name__ == "MySQLError" for base in type(error).__mro__):
            return None
        code = error.args[0] if error.args else None
        return code if isinstance(code, int) else None

    def has_rolled_back(self, connection: Connection, error: BaseException) -> bool:
        if self.error_code(error) != _LOCK_WAIT_TIMEOUT:
            return super().has_rolled_back(connection, error)
        cursor = connection.connection.cursor()
        try:
            cursor.execute("SELECT @@innodb_rollback_on_timeout")
            row = cursor.fetchone()
        finally:
            cursor.close()
        return row is not None and bool(row[0])

    def stop_statement(self, connection: Connection) -> bool:
        if connection.closed or connection.invalidated:
            return False
        dbapi = connection.connection.dbapi_connection
        # PyMySQL closes its side when it is interrupted; the server works on
        if dbapi is None or getattr(dbapi, "open", True):
            return False
        thread = getattr(dbapi, "server_thread_id", [None])[0]
        connection.invalidate()  # its place in the pool is free for who kills
        try:
            with connection.engine.connect() as other:
                end_process(other, thread)
        except Exception:
            log.warning("a running statement could not be killed", exc_info=True)
        return True

    def orphan(self, dbapi_connection: Any) -> None:
        sock = getattr(dbapi_connection, "_sock", None)
        if sock is not None:
            detach_socket(sock.fileno())


class MariaDBBackend(MySQLBackend):
    """MariaDB under its own name in the URL."""

    name = "mariadb"


def _no_tls_in_sockets(
    dialect: sa.Dialect, record: object, arguments: Any, keywords: dict[str, Any]
) -> None:
    # PyMySQL 1.2 reads all certificates of the machine for each connection, 50 ms of work, and
    # what a Unix socket carries leaves the machine no more than they do
    asked_for = ("ssl", "read_default_")
    if keywords.get("unix_socket") and not any(key.startswith(asked_for) for key in keywords):
        keywords["ssl_disabled"] = True


def _begin(connection: Connection) -> None:
    if is_sandboxed(connection) or is_autocommit(connection):
        return
    if connection.get_execution_options().get(READ_ONLY):
        # of the whole session: MariaDB carries DDL out after committing a read-only transaction
        info = connection.connection.info
        if not info.get(_IS_READ_ONLY):
            info[_IS_READ_ONLY] = True
            connection.exec_driver_sql("SET SESSION TRANSACTION READ ONLY")


def _make_writable(dbapi_connection: Any, record: Any, state: object) -> None:
    if record is not None and record.info.pop(_IS_READ_ONLY, False):
        with dbapi_connection.cursor() as cursor:
            cursor.execute("SET SESSION TRANSACTION READ WRITE")


def _quoted(connection: Connection, name: str | None) -> str:
    return connection.dialect.identifier_preparer.quote_identifier(name or "")


def _stored_name(connection: Connection, name: str | None) -> str | None:
    """Return a database's name as the server has it; None when there is none."""
    query = sa.text("SELECT schema_name FROM information_schema.schemata WHERE schema_name = :name")
    found: str | None = connection.execute(query, {"name": name}).scalar()
    return found


def drop_database(connection: Connection, name: str, label: str) -> None:
    """Drop a database whose connections were ended.

    :param connection: to the server, with autocommit.
    :param name: the database's name on the server.
    :param label: its name in the application, for messages.
    :raises ServerError: others have kept locks on it for :data:`DROP_WAIT`, such as
        a prepared transaction does, which no end of its connection ends.
    """
    wait = f"lock_wait_timeout = {DROP_WAIT}, innodb_lock_wait_timeout = {DROP_WAIT}"
    connection.exec_driver_sql(f"SET SESSION {wait}")
    quoted = "`" + name.replace("`", "``") + "`"
    try:
        connection.exec_driver_sql(
            f"DROP DATABASE IF EXISTS {quoted}", execution_options={"no_parameters": True}
        )
    except sa.exc.DBAPIError as error:
        if error.orig is None or error.orig.args[0] != _LOCK_WAIT_TIMEOUT:
            raise
        raise ServerError(
            f"the database {label!r} ({name!r} on its server) cannot be dropped: others have kept "
            f"locks on it for {DROP_WAIT} s. {_remedy(connection)}"
        ) from error


def _remedy(connection: Connection) -> str:
    prepared: list[str] = []
    with suppress(sa.exc.DBAPIError):  # not everybody may see them
        found = connection.exec_driver_sql("XA RECOVER").all()
        prepared = [_identifier(*row) for row in found]
    if not prepared:
        return "End what uses it (see SHOW PROCESSLIST and XA RECOVER) and try again"
    # the server does not tell of which database they are
    statements = ", ".join(f"XA ROLLBACK {one}" for one in prepared)
    return (
        "Prepared transactions keep theirs until somebody ends them; of these, end in a new "
        f"session with autocommit those that nobody will commit: {statements}"
    )


def _identifier(format_id: int, first: int, second: int, data: str | bytes) -> str:
    """Return how a statement names a prepared transaction, from a row of XA RECOVER."""
    raw = data.encode() if isinstance(data, str) else data
    return f"X'{raw[:first].hex()}',X'{raw[first : first + second].hex()}',{format_id}"


def end_process(connection: Connection, process: Any) -> None:
    """End a connection by its number on the server; nothing happens where it has ended."""
    try:
        connection.exec_driver_sql(f"KILL {int(process)}")
    except sa.exc.DBAPIError as error:
        if error.orig is None or error.orig.args[0] != 1094:  # it has ended by itself
            raise
