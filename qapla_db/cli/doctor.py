"""What a doctor would say of a database: how it is reached, and what will hurt."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.pool import QueuePool

from qapla_db.database import Database
from qapla_db.errors import QaplaError
from qapla_db.migrations.looking import probe
from qapla_db.record_table import PRODUCTION, plain

__all__ = ["Diagnosis", "examine"]

_PACKAGES = {
    "psycopg": "psycopg",
    "psycopg2": "psycopg2",
    "pymysql": "PyMySQL",
    "mysqldb": "mysqlclient",
}
_SLOW = 0.1
"""Seconds after which an answer of the server is slow for one that is near."""

_SHARE = 0.8
"""The share of the server's connections that one process should not be able to take."""


@dataclass
class Diagnosis:
    """What was found out about one database.

    :ivar facts: name -> what it is.
    :ivar complaints: what will hurt, and what to do.
    """

    database: str
    address: str
    facts: dict[str, str] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return the fields by name."""
        return dict(vars(self))


def examine(database: Database) -> Diagnosis:
    """Look at the settings of a database and, where it answers, at its server.

    :param database: a prepared database; nothing is changed in it.
    """
    found = Diagnosis(database.name, database.settings.address)
    found.facts.update(_versions(database))
    found.complaints += _of_settings(database)
    try:
        probe(database)
        seconds = database.ping()
        found.facts["answers after"] = f"{seconds * 1000:.1f} ms"
        if seconds > _SLOW:
            found.complaints.append(
                f"a trivial question took {seconds:.2f} s; is the server far away or overloaded?"
            )
        with database.session(read_only=True) as session:
            _ask(database, session.connection(), found)
    except QaplaError as error:
        found.complaints.append(error.message)
    except sa.exc.DBAPIError as error:
        found.complaints.append(f"the server refuses to say more: {error.orig}")
    return found


def _versions(database: Database) -> Iterator[tuple[str, str]]:
    yield "environment", database.settings.environment
    yield "from", database.settings.source
    yield "Python", platform.python_version()
    yield "SQLAlchemy", sa.__version__
    driver = database.settings.url.drivername.partition("+")[2]
    try:
        yield "driver", f"{driver} {version(_PACKAGES.get(driver, driver))}"
    except PackageNotFoundError:
        yield "driver", driver


def _of_settings(database: Database) -> Iterator[str]:
    options, name = database.settings.options, database.name
    key = f"'db:{name}:options'"
    execution = options.get("execution_options", {})
    if "AUTOCOMMIT" in (options.get("isolation_level"), execution.get("isolation_level")):
        yield f"{key} sets AUTOCOMMIT: no rollback undoes anything, every statement stands alone"
    if options.get("echo") and plain(database.settings.environment) == PRODUCTION:
        yield f"{key} sets echo in production: every statement and its values go to the log"
    if options.get("pool_pre_ping") is False:
        yield (
            f"{key} switches pool_pre_ping off: after a restart of the server the first request "
            "on each connection fails"
        )


def _ask(database: Database, connection: Connection, found: Diagnosis) -> None:
    dialect = connection.dialect.name
    numbers = connection.dialect.server_version_info or ()
    kind = "MariaDB" if getattr(connection.dialect, "is_mariadb", False) else dialect
    found.facts["server"] = f"{kind} {'.'.join(map(str, numbers))}"
    ask = _QUESTIONS.get(dialect)
    if ask is not None:
        found.complaints += ask(connection, found.facts)
    limit = found.facts.get("connections of the server")
    found.complaints += _of_pool(database, int(limit) if limit else None, found.facts)


def _of_pool(database: Database, limit: int | None, facts: dict[str, str]) -> Iterator[str]:
    pool = database.engine.pool
    if not isinstance(pool, QueuePool):
        facts["pool"] = type(pool).__name__
        return
    most = pool.size() + max(pool._max_overflow, 0)
    endless = pool._max_overflow < 0
    facts["pool"] = "any number of connections" if endless else f"at most {most} connections"
    if limit is None:
        return
    if endless:
        yield f"max_overflow is -1, but the server takes {limit} connections; set a limit"
    elif most > limit * _SHARE:
        yield (
            f"one process may open {most} connections and the server takes {limit} in all; lower "
            f"pool_size and max_overflow in 'db:{database.name}:options', or raise the server's"
        )
    else:
        facts["room for"] = f"{limit // most} processes with a full pool"


def _values(connection: Connection, query: str) -> Mapping[str, Any]:
    return dict(connection.execute(sa.text(query)).mappings().one())


def _postgresql(connection: Connection, facts: dict[str, str]) -> Iterator[str]:
    names = (
        "max_connections", "fsync", "full_page_writes", "synchronous_commit", "server_encoding",
        "idle_in_transaction_session_timeout", "transaction_read_only",
    )  # fmt: skip
    values = _values(
        connection, "SELECT " + ", ".join(f"current_setting('{name}') AS {name}" for name in names)
    )
    facts["connections of the server"] = values["max_connections"]
    facts["encoding"] = values["server_encoding"]
    if "off" in (values["fsync"], values["full_page_writes"]):
        yield "fsync or full_page_writes is off: a crash can destroy the database"
    if values["synchronous_commit"] == "off":
        yield "synchronous_commit is off: a crash can lose the last commits"
    if values["server_encoding"] != "UTF8":
        yield f"the encoding is {values['server_encoding']}: not every text can be stored"
    if values["idle_in_transaction_session_timeout"] == "0":
        facts["idle transactions"] = "stay open for ever (idle_in_transaction_session_timeout)"
    is_super = connection.scalar(sa.text("SELECT rolsuper FROM pg_roles WHERE rolname = user"))
    if is_super:
        yield "the user is a superuser: a mistake in the application reaches the whole server"


def _mysql(connection: Connection, facts: dict[str, str]) -> Iterator[str]:
    values = _values(
        connection,
        "SELECT @@max_connections AS connections, @@sql_mode AS mode, "
        "@@character_set_database AS charset, @@default_storage_engine AS engine",
    )
    facts["connections of the server"] = str(values["connections"])
    facts["encoding"] = str(values["charset"])
    if "STRICT" not in str(values["mode"]):
        yield "sql_mode is not strict: what does not fit is cut off without an error"
    if str(values["charset"]) != "utf8mb4":
        yield f"the character set is {values['charset']}: not every text can be stored"
    if str(values["engine"]) != "InnoDB":
        yield f"tables are made with {values['engine']}, which may know no transactions"


def _sqlite(connection: Connection, facts: dict[str, str]) -> Iterator[str]:
    journal = str(connection.exec_driver_sql("PRAGMA journal_mode").scalar())
    facts["journal"] = journal
    if not connection.exec_driver_sql("PRAGMA foreign_keys").scalar():
        yield "foreign keys are not enforced (PRAGMA foreign_keys)"
    path = connection.engine.url.database
    if journal == "delete":
        yield "the journal is not WAL: readers wait for a writer, and it for them"
    if path and not os.access(path, os.W_OK):
        yield f"{path} cannot be written to by this user"


_QUESTIONS: dict[str, Callable[[Connection, dict[str, str]], Iterator[str]]] = {
    "postgresql": _postgresql,
    "mysql": _mysql,
    "mariadb": _mysql,
    "sqlite": _sqlite,
}
