"""Sessions for tasks and other functions, and the application in a Celery worker.

Celery is imported by :func:`connect_celery` alone: ``WithDatabase`` works without it.
"""

from __future__ import annotations

import functools
import inspect
import keyword
import logging
import os
from collections.abc import Callable
from typing import Any, Final, TypeVar

from sqlalchemy.orm import Session as SQLAlchemySession

from qapla_db.errors import Misuse, NotPrepared, QaplaError
from qapla_db.registry import Host
from qapla_db.session import Session
from qapla_db.tasks.result import find_bound
from qapla_db.tasks.signature import full_name, hide_parameter, refuse_unsuitable, take_slot

__all__ = ["INJECTED", "WithDatabase", "connect_celery"]

log = logging.getLogger("qapla_db")

F = TypeVar("F", bound=Callable[..., Any])


class _Injected:
    def __repr__(self) -> str:
        return "INJECTED"


INJECTED: Final[Any] = _Injected()
"""Default of a parameter that :class:`WithDatabase` fills.

It has every type, so that ``main: Session = INJECTED`` satisfies a type checker
and a call without the session does too.
"""


class WithDatabase:
    """Give a function a session of its own for each call.

    ::

        @celery_app.task
        @WithDatabase(app, "main")
        def rename(code: str, name: str, *, main: Session = INJECTED) -> None:
            main.get_one(Airport, code).name = name
            main.commit()

    It stands directly above the function, under ``@app.task`` or
    ``@shared_task``, and works on any function, outside Celery too. The session
    is lazy (no connection before its first use) and closed when the call ends,
    however it ends. It never commits by itself: what the function does not
    commit is rolled back, with one warning in the log when the function
    succeeded. The parameter is not in the signature that callers and Celery see.

    A caller lends a session of this database with ``f(x, main=session)``: it is
    used and left alone, neither committed, rolled back nor closed. One of another
    database is refused, as far as it tells: a plain SQLAlchemy session does not.

    For a type checker the decorated function is of the type it was, so the
    parameter needs the default :data:`INJECTED`; make it keyword-only, because
    its place among the positional arguments is taken away.

    :param app: the application; its database is looked up when the function is called.
    :param name: the database's name.
    :param param: the parameter that takes the session; by default the database's name.
    :param check_result: raise Misuse for a result that dies with the session: an
        ORM object, a query, a result, a session or a generator, also as an item
        of a list, tuple, set or dict. It is raised after the function ran, so
        what the function committed stays committed.
    :raises Misuse: (a TypeError, when the function is decorated) it cannot be
        given a session this way; the message says what to do.
    """

    def __init__(
        self, app: Host, name: str = "main", *, param: str | None = None, check_result: bool = True
    ) -> None:
        if isinstance(app, (str, type)) or inspect.isroutine(app):
            raise Misuse(
                f"WithDatabase got {app!r} in place of the application; "
                "write @WithDatabase(app, 'main')"
            )
        param = name if param is None else param
        if not isinstance(param, str) or not param.isidentifier() or keyword.iskeyword(param):
            raise Misuse(
                f"WithDatabase cannot pass a session as {param!r}, which is no name of a "
                "parameter; pass the database's name and, if need be, param='main'"
            )
        self._app = app
        self._name = name
        self._param = param
        self._check_result = check_result

    def __call__(self, function: F) -> F:
        refuse_unsuitable(function)
        slot = take_slot(function, self._app, self._name, self._param)
        param, position = slot.parameter, slot.position

        def call(session: SQLAlchemySession, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if position is not None and len(args) > position:
                return function(*args[:position], session, *args[position:], **kwargs)
            return function(*args, **kwargs, **{param: session})

        # a plain function: Celery's bind=True cannot bind an instance
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            lent = kwargs.pop(param, INJECTED)
            if lent is not INJECTED:
                return call(self._accept(lent, function), args, kwargs)
            session = self._open()
            try:
                result = call(session, args, kwargs)
                self._inspect(result, session, function)
                return result
            finally:
                session.abandon()

        hide_parameter(wrapper, function, slot)
        return wrapper  # type: ignore[return-value]

    def _open(self) -> Session:
        try:
            return self._app.dbs[self._name].get_session()
        except NotPrepared as error:
            error.add_note("In a Celery worker connect_celery(celery_app, app) prepares it.")
            raise

    def _accept(self, lent: object, function: Callable[..., Any]) -> SQLAlchemySession:
        if not isinstance(lent, SQLAlchemySession):
            raise Misuse(
                f"{full_name(function)} was called with {self._param}= of the type "
                f"{type(lent).__name__}; lend a Session, or leave it out to get one"
            )
        if isinstance(lent, Session) and lent.database_name != self._name:
            raise Misuse(
                f"{full_name(function)} was called with {self._param}= of the database "
                f"{lent.database_name!r}, but works on {self._name!r}; lend a session of "
                f"{self._name!r}, or leave it out to get one"
            )
        return lent

    def _inspect(self, result: object, session: Session, function: Callable[..., Any]) -> None:
        if self._check_result:
            bound = find_bound(result, session)
            if bound is not None:
                raise Misuse(
                    f"{full_name(function)} returned {type(bound).__name__}, which ends with its "
                    f"session of {self._name!r}; return plain values (an id, a dict) instead. "
                    "What the function committed stays committed"
                )
        if session.has_uncommitted:
            log.warning(
                "%s ended with uncommitted changes in the database %r; they are rolled back. "
                "Call %s.commit() before it returns",
                full_name(function),
                self._name,
                self._param,
            )


def connect_celery(celery_app: Any, app: Host) -> None:
    """Prepare an application in the workers of a Celery application, and close it at their end.

    A worker prepares it for ``celery`` after the task modules are imported and
    before its pool starts; a pool process that is not forked (``spawn``)
    prepares it itself. A preparation that fails ends the worker with its
    message and the exit code 1. Nothing else prepares it: not importing the
    module that calls this, not beat, not another ``celery`` command, and not
    the worker of another Celery application.

    In a process where the application is prepared already, as in tests with a
    worker in a thread, the worker uses it as it is and leaves it open. So it
    does with a host of another make that has no ``prepare()``. One that has no
    ``endpoint`` is prepared as if it were not prepared yet; of one that has no
    ``close()`` the connections are closed.

    :param celery_app: the ``celery.Celery`` whose workers are meant.
    :param app: the application; calling this twice for both does nothing more.
    :raises Misuse: ``celery_app`` is not a Celery application, or ``app`` is
        nothing that has databases.
    """
    from celery import Celery, signals

    if not isinstance(celery_app, Celery):
        raise Misuse(
            f"connect_celery() got {celery_app!r} in place of the Celery application; "
            "write connect_celery(celery_app, app)"
        )
    if isinstance(app, type) or not (hasattr(app, "prepare") or _has_databases(app)):
        raise Misuse(
            f"connect_celery() got {app!r} in place of the application, which has neither "
            "prepare() nor dbs; write connect_celery(celery_app, app)"
        )
    current = getattr(celery_app, "_get_current_object", None)  # celery.current_app is a proxy
    worker = _Worker(current() if current else celery_app, app)
    for signal, receiver in (
        (signals.worker_init, worker.start),
        (signals.worker_process_init, worker.start_process),
        (signals.worker_process_shutdown, worker.end_process),
        (signals.worker_shutdown, worker.end),
    ):
        signal.connect(receiver, weak=False, dispatch_uid=worker.uid)


def _has_databases(app: Host) -> bool:
    try:
        return hasattr(app, "dbs")
    except QaplaError:  # it has none before it is prepared
        return True


class _Worker:
    """The application's life in a worker. Who prepared it closes it."""

    def __init__(self, celery_app: Any, app: Host) -> None:
        self._celery_app = celery_app
        self._app = app
        self._prepared_in: int | None = None
        self.uid = f"qapla_db:{id(celery_app)}:{id(app)}"

    def start(self, sender: Any, **_: object) -> None:
        """In a worker's main process, before its pool exists."""
        if sender.app is self._celery_app:
            self._prepare()

    def start_process(self, **_: object) -> None:
        """In a pool's process: a forked one is prepared already, a spawned one is not."""
        from celery import current_app

        # a spawned process works with a copy of the Celery application, known by its name
        if self._endpoint is None and current_app.main == self._celery_app.main:
            self._prepare()

    def end_process(self, **_: object) -> None:
        """In a pool's process, at its end."""
        if self._prepared_in == os.getpid():
            self._close()
        elif self._prepared_in is not None:
            self._dispose()

    def end(self, sender: Any, **_: object) -> None:
        """In a worker's main process, after its pool has ended."""
        if sender.app is self._celery_app and self._prepared_in == os.getpid():
            self._close()

    @property
    def _endpoint(self) -> str | None:
        # a host of another make may tell nobody what it is prepared for
        return getattr(self._app, "endpoint", None)

    def _prepare(self) -> None:
        endpoint = self._endpoint
        if endpoint not in (None, "celery"):
            level = logging.INFO if endpoint == "tests" else logging.WARNING
            log.log(
                level,
                "the worker uses %r as it is prepared, for %r: a module that it imported, or "
                "the process that it runs in, prepared it",
                self._app,
                endpoint,
            )
            return
        prepare = getattr(self._app, "prepare", None)
        # a host of another make may prepare itself, or not tell that we have prepared it
        if prepare is None or self._prepared_in is not None:
            return
        try:
            prepare("celery")
        except Exception as error:
            # as an exit, because Celery logs an exception of ours and starts all the same
            if not isinstance(error, QaplaError):
                log.critical("the application could not be prepared", exc_info=True)
            raise SystemExit(
                f"the worker ends: {self._app!r} could not be prepared for 'celery': {error}"
            ) from error
        if endpoint is None:
            self._prepared_in = os.getpid()

    def _close(self) -> None:
        self._prepared_in = None
        close = getattr(self._app, "close", None)  # a host of another make may have none
        if close is not None:
            close()
        else:
            self._dispose()

    def _dispose(self) -> None:
        for database in self._app.dbs.values():
            database.dispose()
