"""The one driver connection of a sandbox, and the outer transaction on it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from qapla_db.errors import SandboxError
from qapla_db.testing.statements import Kind

__all__ = ["CANARY", "PinnedConnection", "pin", "supports"]

CANARY = "qapla_db_canary"
"""The first savepoint in the outer transaction; it is gone when somebody really committed."""


class PinnedConnection(ABC):
    """A driver connection that stays in one transaction as long as the sandbox is on.

    Savepoints are set by :meth:`run`, below SQLAlchemy, so that no listener of
    the application sees a statement that is not its own.
    """

    failure_poisons: ClassVar[bool] = False
    """After a failed statement the transaction takes nothing but a rollback."""

    one_at_a_time: ClassVar[bool] = False
    """Transactions of several threads wait for each other, whatever they do."""

    def __init__(self, connection: Connection) -> None:
        self.raw: Any = connection.connection.dbapi_connection
        self.dbapi: Any = connection.dialect.dbapi

    # --- the outer transaction

    def begin(self) -> None:
        """Begin the outer transaction."""
        self._take_over()
        self._cursor = self.raw.cursor()
        self._start()
        self.run(f"SAVEPOINT {CANARY}")

    def begin_again(self) -> None:
        """Begin a new outer transaction, after somebody has ended the one before."""
        self._abort()
        self._start()
        self.run(f"SAVEPOINT {CANARY}")

    def end(self) -> bool:
        """Roll everything back; False when the canary was gone."""
        intact = True
        try:
            self.run(f"ROLLBACK TO SAVEPOINT {CANARY}", "ROLLBACK")
        except self.dbapi.Error:
            intact = False
        if not self.lost:
            self._cursor.close()
            self._give_back()
        return intact

    @abstractmethod
    def _take_over(self) -> None:
        """Switch the driver's own handling of transactions off."""

    @abstractmethod
    def _start(self) -> None:
        """Start a transaction, where the driver does not do it by itself."""

    def _abort(self) -> None:
        if self.in_transaction:
            self.raw.rollback()

    @abstractmethod
    def _give_back(self) -> None:
        """End the transaction and restore what :meth:`_take_over` changed."""

    # --- its state

    @property
    @abstractmethod
    def in_transaction(self) -> bool:
        """Whether the outer transaction, or another, is open."""

    @property
    @abstractmethod
    def lost(self) -> bool:
        """Whether the connection to the server is gone."""

    @property
    def failed(self) -> bool:
        """Whether a failed statement has made the transaction useless."""
        return False

    def recover(self) -> None:  # noqa: B027
        """Make the connection usable again after a statement was interrupted."""

    @abstractmethod
    def interrupt(self, engine: Engine) -> None:
        """Stop the statement that another thread runs on this connection."""

    # --- statements

    def run(self, *commands: str) -> None:
        """Run commands of ours."""
        for command in commands:
            self._cursor.execute(command)

    def open(self, savepoint: str, *, read_only: bool) -> None:
        """Set a savepoint that stands for the beginning of a transaction."""
        self.run(f"SAVEPOINT {savepoint}")

    def release(self, savepoint: str) -> None:
        """Make what happened since a savepoint part of what was before it."""
        self.run(f"RELEASE SAVEPOINT {savepoint}")

    def commit(self, savepoint: str) -> None:
        """Release a savepoint, or raise what a commit would raise."""
        self.release(savepoint)

    def undo(self, savepoint: str) -> None:
        """Undo what happened since a savepoint, and remove it."""
        self.run(f"ROLLBACK TO SAVEPOINT {savepoint}", f"RELEASE SAVEPOINT {savepoint}")

    def before(self, kind: Kind, *, read_only: bool) -> None:  # noqa: B027
        """Prepare for a statement of the application, or refuse it with the driver's error."""

    def after(self, *, read_only: bool) -> None:  # noqa: B027
        """Clear up after a statement of the application."""

    def aborted(self) -> Exception:
        """Return the error of a statement in a transaction that has failed."""
        raise NotImplementedError


class _Psycopg(PinnedConnection):
    failure_poisons = True
    # of libpq
    IDLE, ACTIVE, FAILED = 0, 1, 3

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

    def _take_over(self) -> None:
        self._autocommit = self.raw.autocommit
        if self._autocommit:
            self.raw.autocommit = False

    def _start(self) -> None:
        """Nothing: the driver begins a transaction before the first statement."""

    def _give_back(self) -> None:
        self._abort()
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
        self.run(f"SAVEPOINT {savepoint}", *(["SET TRANSACTION READ ONLY"] if read_only else []))

    def commit(self, savepoint: str) -> None:
        self.run("SET CONSTRAINTS ALL IMMEDIATE", f"RELEASE SAVEPOINT {savepoint}")
        self._checked = self._all_immediate = True

    def undo(self, savepoint: str) -> None:
        super().undo(savepoint)
        # a restoration made since then is undone with it
        self._all_immediate = self._checked

    def before(self, kind: Kind, *, read_only: bool) -> None:
        self._defined = self._defined or kind is Kind.DEFINE
        if self._all_immediate and kind.may_write and not read_only:
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

    def aborted(self) -> Exception:
        error: Exception = self.dbapi.errors.InFailedSqlTransaction(
            "current transaction is aborted, commands ignored until end of transaction block"
        )
        return error


class _PyMySQL(PinnedConnection):
    IN_TRANSACTION = 1  # bit of the server's status
    READ_ONLY_TRANSACTION = 1792

    def _take_over(self) -> None:
        self._autocommit = self.raw.get_autocommit()
        self.raw.autocommit(False)

    def _start(self) -> None:
        self.raw.begin()

    def _give_back(self) -> None:
        self._abort()
        self.raw.autocommit(self._autocommit)

    @property
    def in_transaction(self) -> bool:
        return bool(self.raw.server_status & self.IN_TRANSACTION)

    @property
    def lost(self) -> bool:
        return not self.raw.open

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

    def _take_over(self) -> None:
        self._autocommit = getattr(self.raw, "autocommit", None)
        if self._autocommit is False:
            self.raw.autocommit = True
        self._isolation_level = self.raw.isolation_level
        if self._isolation_level is not None:
            self.raw.isolation_level = None
        (self._query_only,) = self.raw.execute("PRAGMA query_only").fetchone()
        if self._query_only:
            self.raw.execute("PRAGMA query_only = OFF")

    def _start(self) -> None:
        self.run("BEGIN")

    def _give_back(self) -> None:
        self._abort()
        if self._query_only:
            self.raw.execute("PRAGMA query_only = ON")
        if self._isolation_level is not None:
            self.raw.isolation_level = self._isolation_level
        if self._autocommit is False:
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
    if pinned.in_transaction:
        raise SandboxError(
            f"the database {database!r} has one connection and it is in a transaction already; "
            "end that transaction before the sandbox begins"
        )
    pinned.begin()
    return pinned
