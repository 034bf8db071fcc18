"""In which state a connection is, of those that backends and sessions must know."""

from __future__ import annotations

from sqlalchemy.engine import Connection

__all__ = ["READ_ONLY", "is_autocommit", "is_read_only", "is_sandboxed"]

READ_ONLY = "qapla_db_read_only"
"""Execution option of the connections that a read-only session runs on."""


def is_sandboxed(connection: Connection) -> bool:
    """Tell whether a test sandbox owns the transactions of this connection's engine."""
    return bool(getattr(connection.engine.pool, "sandboxed", False))


def is_autocommit(connection: Connection) -> bool:
    """Tell whether the connection runs without transactions."""
    return connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT"


def is_read_only(connection: Connection) -> bool:
    """Tell whether the connection is a read-only session's."""
    return bool(connection.get_execution_options().get(READ_ONLY))
