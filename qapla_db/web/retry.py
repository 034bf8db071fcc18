"""Run a request again when its database says that this would help."""

from __future__ import annotations

import importlib.util
import threading
import weakref
from typing import Any

from pyramid.threadlocal import get_current_request
from sqlalchemy import event
from sqlalchemy.engine import Engine, ExceptionContext

from qapla_db.backends import Backend
from qapla_db.database import Database
from qapla_db.errors import ConfigurationError

__all__ = ["SETTING", "include_retry", "mark_errors_of"]

SETTING = "qapla_db.retry"


def include_retry(config: Any) -> None:
    """Include pyramid_retry; where the application has included it, nothing changes.

    :raises ConfigurationError: pyramid_retry is not installed.
    """
    if importlib.util.find_spec("pyramid_retry") is None:
        raise ConfigurationError(
            f"{SETTING!r} is on, but pyramid_retry is not installed; install it with: "
            f"pip install pyramid_retry, or take {SETTING!r} out of the settings"
        )
    config.include("pyramid_retry")


def mark_errors_of(database: Database) -> None:
    """Mark the errors of a database that mean "run the whole transaction again".

    Errors are marked where they are made, so that it does not matter where they
    surface (a flush, a COMMIT, a callback) and who sees them first. They are
    marked while a request is being handled, and in no other work of the process.
    """
    engine = database.engine
    if engine in _marking:
        return
    with _lock:
        if engine not in _marking:
            event.listen(engine, "handle_error", _Marker(database.backend))
            _marking.add(engine)


class _Marker:
    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    def __call__(self, context: ExceptionContext) -> None:
        if get_current_request() is None:
            return
        if self.backend.is_retryable(context.original_exception):
            from pyramid_retry import mark_error_retryable

            mark_error_retryable(context.sqlalchemy_exception or context.original_exception)


_marking: weakref.WeakSet[Engine] = weakref.WeakSet()
_lock = threading.Lock()
