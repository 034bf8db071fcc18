"""How the drivers keep one connection in one transaction, and what their servers do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from qapla_db.errors import SandboxError
from qapla_db.testing.sandboxes.local_settings import changed_settings
from qapla_db.testing.sandboxes.pinned import CANARY, PinnedConnection
from qapla_db.testing.sandboxes.statements import Kind

__all__ = ["pin", "supports"]


class _Psycopg(PinnedConnection):
    failure_poisons = True
    spare = "qapla_db_0"
    # of libpq
    IDLE, ACTIVE, FAILED = 0, 1, 3
    COMMAND_OK = 1

    READ_ONLY = "SET TRANSACTION READ ONLY"

    # the ones that are deferred by themselves, which SET CONSTRAINTS ALL has changed
    DEFERRED = (
        "SELECT string_agg(format('%I.%I', nspname, conname), ', ') FROM pg_catalog.pg_constraint "
        "JOIN pg_catalog.pg_namespace AS n ON n.oid = connamespace "
        "WHERE condeferred AND NOT pg_catalog.pg_is_other_temp_schema(connamespace)"
    )

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self._deferred: str | None = None
        self._defined = False
        self._checked = False
        self._all_immediate = False
        self._strange: dict[int, object] = {}

    def _take_over(self) -> None:
        self._autocommit = bool(self.raw.autocommit)
        if self._autocommit:
            self.raw.autocommit = False

    def begin(self) -> None:
        super().begin()
        self.raw.cursor = self._make_cursor

    def _make_cursor(self, *args: Any, **options: Any) -> Any:
        cursor = type(self.raw).cursor(self.raw, *args, **options)
        self._strange[id(cursor)] = cursor
        return cursor

    def is_used_by(self, cursor: object) -> None:
        self._strange.pop(id(cursor), None)

    @property
    def is_private(self) -> bool:
        return not self._strange

    def stop_reading(self) -> bool:
        if not self.is_reading:
            return False
        self.raw.close()
        return True

    def expose(self) -> None:
        self._strange[id(self.raw)] = self.raw

    @property
    def is_reading(self) -> bool:
        return self._status == self.ACTIVE

    @property
    def autocommits(self) -> bool:
        return self._autocommit

    def _start(self) -> None:
        # the driver begins a transaction before the first statement, in a round trip of its own
        commands = f"SAVEPOINT {CANARY}", f"SAVEPOINT {self.spare}"
        options = self.raw.isolation_level, self.raw.read_only, self.raw.deferrable
        if any(one is not None for one in options):
            self.run(*commands)
            return
        result = self.raw.pgconn.exec_("; ".join(["BEGIN", *commands]).encode())
        if result.status != self.COMMAND_OK:
            raise self.dbapi.OperationalError(self.dbapi.pq.error_message(result))

    def _give_back(self) -> None:
        self._abort()
        vars(self.raw).pop("cursor", None)
        if self._autocommit:
            self.raw.autocommit = True

    @property
    def _status(self) -> int:
        return int(self.raw.pgconn.transaction_status)

    @property
    def in_transaction(self) -> bool:
        return self._status != self.IDLE

    @property
    def failed(self) -> bool:
        return self._status == self.FAILED

    @property
    def lost(self) -> bool:
        return bool(self.raw.closed)

    def recover(self) -> None:
        if self._status == self.ACTIVE:
            self.raw.cancel_safe(timeout=5)
            while self.raw.pgconn.get_result() is not None:
                pass

    def interrupt(self, engine: Engine) -> None:
        self.raw.cancel_safe(timeout=5)

    def run(self, *commands: str) -> None:
        # one round trip; never prepared, for each is said once
        self._cursor.execute("; ".join(commands), prepare=False)

    def open(self, savepoint: str, *, read_only: bool) -> None:
        # the server forgets READ ONLY at the end of the savepoint
        self.run(f"SAVEPOINT {savepoint}", *([self.READ_ONLY] if read_only else []))

    def restrict(self) -> None:
        self.run(self.READ_ONLY)

    def commit(self, savepoint: str, spare: str = "") -> None:
        self.run(
            "SET CONSTRAINTS ALL IMMEDIATE",
            f"RELEASE SAVEPOINT {savepoint}",
            *([f"SAVEPOINT {spare}"] if spare else []),
        )
        self._checked = self._all_immediate = True

    def undo(self, savepoint: str) -> None:
        super().undo(savepoint)
        # a restoration made since then is undone with it
        self._all_immediate = self._checked

    def back_to(self, savepoint: str) -> None:
        super().back_to(savepoint)
        self._all_immediate = self._checked

    def before(self, kind: Kind, *, read_only: bool) -> None:
        self._defined = self._defined or kind is Kind.DEFINE
        if self._all_immediate and kind.may_write:
            self._restore_deferred()

    def _restore_deferred(self) -> None:
        # with DDL, and its rollbacks, the answer changes from one time to the next
        if self._deferred is None or self._defined:
            self.run(self.DEFERRED)
            # not fetchone(): the application chooses what a row is
            names = self._cursor.pgresult.get_value(0, 0)
            self._deferred = names.decode() if names else ""
        if self._deferred:
            self.run(f"SET CONSTRAINTS {self._deferred} DEFERRED")
        self._all_immediate = False

    def settings_before(self, statement: str, parameters: object) -> dict[str, str | None]:
        changed = changed_settings(statement, parameters)
        return {name: self._setting(name) if local else None for name, local in changed.items()}

    def _setting(self, name: str) -> str:
        self._cursor.execute("SELECT pg_catalog.current_setting(%s, true)", [name], prepare=False)
        value = self._cursor.pgresult.get_value(0, 0)
        return value.decode() if value else ""

    def restore(self, settings: Mapping[str, str]) -> None:
        for name, value in reversed([*settings.items()]):
            self._cursor.execute(
                "SELECT pg_catalog.set_config(%s, %s, true)", [name, value], prepare=False
            )

    def aborted(self) -> Exception:
        error: Exception = self.dbapi.errors.InFailedSqlTransaction(
            "current transaction is aborted, commands ignored until end of transaction block"
        )
        return error


class _PyMySQL(PinnedConnection):
    IN_TRANSACTION = 1  # bit of the server's status
    READ_ONLY_TRANSACTION = 1792

    def _take_over(self) -> None:
        self._autocommit = bool(self.raw.get_autocommit())
        self.raw.autocommit(False)

    def _start(self) -> None:
        self.raw.begin()
        super()._start()

    def _give_back(self) -> None:
        self._abort()
        self.raw.autocommit(self._autocommit)

    @property
    def in_transaction(self) -> bool:
        return bool(self.raw.server_status & self.IN_TRANSACTION)

    @property
    def lost(self) -> bool:
        return not self.raw.open

    @property
    def is_reading(self) -> bool:
        # SSCursor: others would take its rows away
        return bool(getattr(self.raw._result, "unbuffered_active", False))

    @property
    def autocommits(self) -> bool:
        return self._autocommit

    def interrupt(self, engine: Engine) -> None:
        with engine.connect() as connection:
            connection.exec_driver_sql(f"KILL QUERY {int(self.raw.thread_id())}")

    def before(self, kind: Kind, *, read_only: bool) -> None:
        if read_only and kind in (Kind.WRITE, Kind.DEFINE):
            # inside a transaction the server cannot be asked to do this
            raise self.dbapi.OperationalError(
                self.READ_ONLY_TRANSACTION, "Cannot execute statement in a READ ONLY transaction"
            )


class _SQLite(PinnedConnection):
    one_at_a_time = True

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        # a mode of the driver since Python 3.12
        self._always_in_transaction = getattr(self.raw, "autocommit", None) is False

    @property
    def is_busy(self) -> bool:
        return self.in_transaction and not self._always_in_transaction

    def _take_over(self) -> None:
        if self._always_in_transaction:
            self.raw.autocommit = True
        (self._query_only,) = self.raw.execute("PRAGMA query_only").fetchone()
        if self._query_only:
            self.raw.execute("PRAGMA query_only = OFF")

    def _start(self) -> None:
        self.run("BEGIN")
        super()._start()

    def _give_back(self) -> None:
        self._abort()
        if self._query_only:
            self.raw.execute("PRAGMA query_only = ON")
        if self._always_in_transaction:
            self.raw.autocommit = False

    @property
    def in_transaction(self) -> bool:
        return bool(self.raw.in_transaction)

    @property
    def lost(self) -> bool:
        return False

    def interrupt(self, engine: Engine) -> None:
        self.raw.interrupt()

    def before(self, kind: Kind, *, read_only: bool) -> None:
        if read_only:
            self.run("PRAGMA query_only = ON")

    def after(self, *, read_only: bool) -> None:
        if read_only:
            self.run("PRAGMA query_only = OFF")


_KINDS: dict[tuple[str, str], type[PinnedConnection]] = {
    ("postgresql", "psycopg"): _Psycopg,
    ("mysql", "pymysql"): _PyMySQL,
    ("mariadb", "pymysql"): _PyMySQL,
    ("sqlite", "pysqlite"): _SQLite,
}


def supports(dialect: sa.Dialect) -> bool:
    """Tell whether a sandbox can be put around engines of this dialect and driver."""
    return not dialect.is_async and (dialect.name, dialect.driver) in _KINDS


def pin(connection: Connection, database: str) -> PinnedConnection:
    """Take the driver connection of a SQLAlchemy connection, and begin on it.

    :raises SandboxError: the connection is in a transaction already.
    """
    pinned = _KINDS[connection.dialect.name, connection.dialect.driver](connection)
    if pinned.is_busy:
        raise SandboxError(
            f"the database {database!r} has one connection and it is in a transaction already; "
            "end that transaction before the sandbox begins"
        )
    pinned.begin()
    return pinned
