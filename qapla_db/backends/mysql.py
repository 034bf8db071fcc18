"""MariaDB and MySQL, through PyMySQL."""

from __future__ import annotations

from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine

from qapla_db.backends.base import READ_ONLY, Backend, is_autocommit, is_sandboxed, log
from qapla_db.backends.postgresql import detach_socket

__all__ = ["MariaDBBackend", "MySQLBackend"]


class MySQLBackend(Backend):
    """MySQL 8 and MariaDB 10.6 and newer."""

    name = "mysql"
    default_driver = "pymysql"
    default_port = 3306
    driver_modules: ClassVar = {
        "pymysql": ("pymysql", "mysql"),
        "mysqldb": ("MySQLdb", "mysql"),
    }
    # deadlock, lock wait time-out, record changed since last read
    retry_codes: ClassVar = frozenset({1213, 1205, 1020})
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

    def maintenance_url(self, url: sa.URL) -> sa.URL | None:
        return url.set(database=None)

    def identity(self, url: sa.URL) -> tuple[str, str]:
        server, database = super().identity(url)
        if "unix_socket" in url.query:
            server = str(url.query["unix_socket"])
        return server, database

    def exists(self, url: sa.URL, maintenance: sa.URL | None) -> bool:
        with self.administration(maintenance or url.set(database=None), url.database or "") as one:
            return _exists(one, url.database)

    def create(self, url: sa.URL, maintenance: sa.URL | None) -> bool:
        with self.administration(maintenance or url.set(database=None), url.database or "") as one:
            if _exists(one, url.database):
                return False
            name = _quoted(one, url.database)
            try:
                one.exec_driver_sql(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
            except sa.exc.DBAPIError as error:
                if error.orig is not None and self.error_code(error.orig) == 1007:
                    return False
                raise
            return True

    def drop(self, url: sa.URL, maintenance: sa.URL | None) -> bool:
        with self.administration(maintenance or url.set(database=None), url.database or "") as one:
            if not _exists(one, url.database):
                return False
            # an open transaction's metadata locks would make DROP DATABASE wait
            kill_all = sa.text(
                "SELECT id FROM information_schema.processlist "
                "WHERE db = :name AND id <> connection_id()"
            )
            for process in one.execute(kill_all, {"name": url.database}).scalars().all():
                _kill(one, process)
            one.exec_driver_sql(f"DROP DATABASE IF EXISTS {_quoted(one, url.database)}")
            return True

    def error_code(self, error: BaseException) -> int | None:
        code = error.args[0] if error.args else None
        return code if isinstance(code, int) else None

    def stop_statement(self, connection: Connection) -> bool:
        dbapi = connection.connection.dbapi_connection
        # PyMySQL closes its side when it is interrupted; the server works on
        if dbapi is None or getattr(dbapi, "open", True):
            return False
        thread = getattr(dbapi, "server_thread_id", [None])[0]
        try:
            with connection.engine.connect() as other:
                _kill(other, thread)
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


def _begin(connection: Connection) -> None:
    if is_sandboxed(connection) or is_autocommit(connection):
        return
    if connection.get_execution_options().get(READ_ONLY):
        connection.exec_driver_sql("START TRANSACTION READ ONLY")


def _quoted(connection: Connection, name: str | None) -> str:
    return connection.dialect.identifier_preparer.quote_identifier(name or "")


def _exists(connection: Connection, name: str | None) -> bool:
    query = sa.text("SELECT 1 FROM information_schema.schemata WHERE schema_name = :name")
    return connection.execute(query, {"name": name}).scalar() is not None


def _kill(connection: Connection, process: Any) -> None:
    try:
        connection.exec_driver_sql(f"KILL {int(process)}")
    except sa.exc.DBAPIError as error:
        if error.orig is None or error.orig.args[0] != 1094:  # it has ended by itself
            raise
