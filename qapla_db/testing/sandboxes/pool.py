"""The pool of an engine while a sandbox is on."""

from __future__ import annotations

import os
import time
from typing import Any, ClassVar
from weakref import ref

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection, StaticPool
from sqlalchemy.pool.base import _ConnectionRecord

from qapla_db.errors import SandboxError
from qapla_db.testing.sandboxes.lanes import Checkout, Lanes
from qapla_db.testing.sandboxes.savepoints import REMEDY

__all__ = ["SandboxPool", "checkout_of"]

_CHECKOUT = "qapla_db_sandbox"


def checkout_of(proxied: object) -> Checkout | None:
    """Return what a connection stands for in a sandbox; None for one of an engine's own pool."""
    if isinstance(proxied, PoolProxiedConnection):
        checkout: Checkout | None = proxied.info.get(_CHECKOUT)
        return checkout
    return None


class SandboxPool(StaticPool):
    """Gives the one connection of a sandbox to everybody, each with a transaction of his own."""

    sandboxed: ClassVar[bool] = True

    def __init__(self, pinned: PoolProxiedConnection, engine: Engine, lanes: Lanes) -> None:
        raw: Any = pinned.dbapi_connection
        super().__init__(lambda: raw, reset_on_return=None, dialect=engine.dialect)
        self._raw = raw
        self._info = dict(pinned.info)
        self._lanes = lanes
        self._out: set[Checkout] = set()
        self.is_disposed = False
        self._process = os.getpid()
        # not "connect" and "reset", which would act on the pinned connection
        for identifier in ("checkout", "checkin"):
            for listener in getattr(engine.pool.dispatch, identifier).listeners:
                event.listen(self, identifier, listener)

    def connect(self) -> PoolProxiedConnection:
        if os.getpid() != self._process:
            raise SandboxError(
                f"the database {self._lanes.database!r} is in a sandbox of the parent process, "
                f"whose connection a child cannot use; {REMEDY}"
            )
        fairy = super().connect()
        checkout: Checkout = fairy.info[_CHECKOUT]
        checkout.fairy = ref(fairy)
        self._out.add(checkout)
        # COPY and whatever else is done by the driver's cursors belongs to a transaction too
        vars(fairy)["cursor"] = _CursorOfLane(self._raw, self._lanes, checkout)
        return fairy

    def _do_get(self) -> ConnectionPoolEntry:
        # a record for each, and without connecting: its listeners have run on the connection
        record = _ConnectionRecord(self, connect=False)
        record.dbapi_connection = self._raw
        record.fresh = True
        record.starttime = time.time()
        record.info.update(self._info)
        record.info[_CHECKOUT] = Checkout()
        return record

    def _return_conn(self, record: ConnectionPoolEntry) -> None:
        checkout = record.info[_CHECKOUT]
        self._out.discard(checkout)
        self._lanes.abandon(checkout)
        super()._return_conn(record)

    def _close_connection(self, connection: object, *, terminate: bool = False) -> None:
        """Nothing: it is the sandbox that closes."""

    def cut_off(self) -> None:
        """Make the connections that are still out useless."""
        for checkout in list(self._out):
            fairy = checkout.fairy() if checkout.fairy is not None else None
            if fairy is not None and fairy.is_valid:
                fairy.invalidate()
                vars(fairy)["commit"] = self._lanes.refuse

    def has_failed(self, connection: Connection) -> bool:
        """Tell what a backend of its own server would: whether a COMMIT would store nothing."""
        checkout = checkout_of(connection.connection)
        return checkout is not None and self._lanes.has_failed(checkout)

    def checkedout(self) -> int:
        """Number of connections that are out."""
        return len(self._out)

    def status(self) -> str:
        return f"SandboxPool  Connections checked out: {self.checkedout()}"

    def dispose(self) -> None:
        """Remember it: the engine's own pool is disposed of behind the sandbox."""
        self.is_disposed = True
        super().dispose()

    def recreate(self) -> SandboxPool:
        """Return itself: a test that disposes of the engine goes on in its sandbox."""
        return self


class _CursorOfLane:
    """The ``cursor`` method of a connection that the pool gave out."""

    def __init__(self, raw: Any, lanes: Lanes, checkout: Checkout) -> None:
        self.raw = raw
        self.lanes = lanes
        self.checkout = checkout

    def __call__(self, *args: Any, **options: Any) -> Any:
        self.lanes.touch(self.checkout)
        cursor = self.raw.cursor(*args, **options)
        self.checkout.cursors[id(cursor)] = cursor
        return cursor
