"""The one driver connection of a sandbox, and the outer transaction on it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from sqlalchemy.engine import Connection, Engine

from qapla_db.testing.sandboxes.statements import Kind

__all__ = ["CANARY", "PinnedConnection"]

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

    spare: ClassVar[str] = ""
    """The savepoint behind the canary, where that costs nothing: for the first transaction."""

    def __init__(self, connection: Connection) -> None:
        self.raw: Any = connection.connection.dbapi_connection
        self.dbapi: Any = connection.dialect.dbapi

    # --- the outer transaction

    def begin(self) -> None:
        """Begin the outer transaction."""
        self._take_over()
        self._cursor = self.raw.cursor()
        self._start()

    def begin_again(self) -> None:
        """Begin a new outer transaction, after somebody has ended the one before."""
        self._abort()
        self._start()

    def end(self) -> bool:
        """Roll everything back; False when the canary was gone."""
        if self.lost:
            return False
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

    def _start(self) -> None:
        """Begin a transaction and set the canary."""
        self.run(f"SAVEPOINT {CANARY}")

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
    def is_busy(self) -> bool:
        """Whether somebody is in a transaction on it, before :meth:`begin`."""
        return self.in_transaction

    @property
    @abstractmethod
    def lost(self) -> bool:
        """Whether the connection to the server is gone."""

    @property
    def is_private(self) -> bool:
        """Whether it is known that nobody but SQLAlchemy has made cursors of the driver."""
        return False

    def is_used_by(self, cursor: object) -> None:  # noqa: B027
        """Know that SQLAlchemy has made a cursor."""

    @property
    def is_reading(self) -> bool:
        """Whether a cursor of the driver has rows to come, so that nothing else can be said."""
        return False

    @property
    def autocommits(self) -> bool:
        """Whether the driver was set to commit each statement."""
        return False

    def stop_reading(self) -> bool:
        """Close a connection on which rows are to come that cannot be skipped; tell whether."""
        return False

    def expose(self) -> None:  # noqa: B027
        """Know that somebody has the driver's connection itself."""

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

    def restrict(self) -> None:  # noqa: B027
        """Let the transaction that the last savepoint stands for read only."""

    def release(self, savepoint: str) -> None:
        """Make what happened since a savepoint part of what was before it."""
        self.run(f"RELEASE SAVEPOINT {savepoint}")

    def commit(self, savepoint: str, spare: str = "") -> None:
        """Release a savepoint, or raise what a commit would raise.

        :param spare: the name of one to set after that, where :attr:`is_private` can be true.
        """
        self.release(savepoint)

    def undo(self, savepoint: str) -> None:
        """Undo what happened since a savepoint, and remove it."""
        self.run(f"ROLLBACK TO SAVEPOINT {savepoint}", f"RELEASE SAVEPOINT {savepoint}")

    def back_to(self, savepoint: str) -> None:
        """Undo what happened since a savepoint, and keep it."""
        self.run(f"ROLLBACK TO SAVEPOINT {savepoint}")

    def before(self, kind: Kind, *, read_only: bool) -> None:  # noqa: B027
        """Prepare for a statement of the application, or refuse it with the driver's error."""

    def after(self, *, read_only: bool) -> None:  # noqa: B027
        """Clear up after a statement of the application."""

    def settings_before(self, statement: str, parameters: object) -> dict[str, str | None]:
        """Return the settings that a statement will change for its transaction, as they are.

        None stands for one that it will change for longer.
        """
        return {}

    def restore(self, settings: Mapping[str, str]) -> None:  # noqa: B027
        """Set back what was set for a transaction that has ended."""

    def aborted(self) -> Exception:
        """Return the error of a statement in a transaction that has failed."""
        raise NotImplementedError
