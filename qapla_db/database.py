"""One named database: its settings, its engine, its sessions."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Engine

from qapla_db.backends import Backend, safe_url
from qapla_db.backends.base import Access
from qapla_db.errors import (
    AlreadyPrepared,
    Closed,
    NotPrepared,
    ServerError,
    SettingInvalid,
    SettingMissing,
)
from qapla_db.session import Session
from qapla_db.settings import (
    DatabaseSettings,
    LoadedSettings,
    database_settings,
)

__all__ = ["Database", "Host"]


class Host(Protocol):
    """What the tasks, the migrations and the tests need of an application."""

    @property
    def settings(self) -> Any: ...

    @property
    def paths(self) -> Any: ...

    @property
    def dbs(self) -> Mapping[str, Database]: ...

    @property
    def endpoint(self) -> str | None:
        """What the application is prepared for; None before."""

    def prepare(self, endpoint: str, settings: Mapping[str, Any] | None = None) -> None: ...

    def settings_for(self, endpoint: str) -> LoadedSettings:
        """What another endpoint would be set to, without preparing it."""


class Database:
    """A database of an application, known by its name everywhere.

    :param name: ``request.<name>``, ``@WithDatabase(app, <name>)``, ``db:<name>:url``.
    :param paths_key: key in the application's ``paths`` of its Alembic directory.

    It is a plugin of the application: ``prepare_app(app)`` reads the settings,
    ``after_fork()`` leaves the parent's connections alone, ``close()`` closes
    the pool. It belongs to one application until that is closed. No connection
    is opened before the first use.
    """

    def __init__(self, name: str = "database", paths_key: str = "migrations") -> None:
        self.name = name
        self.paths_key = paths_key
        self._host: Host | None = None
        self._settings: DatabaseSettings | None = None
        self._engine: Engine | None = None
        self._reader: Engine | None = None
        self._session_options: dict[str, Any] = {}
        self._connections: weakref.WeakSet[Any] = weakref.WeakSet()
        self._inherited: list[object] = []
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._closed = False
        _databases.add(self)

    def __repr__(self) -> str:
        where = self._settings.address if self._settings else "not prepared"
        return f"<Database {self.name!r}: {where}>"

    # --- lifecycle: called by the application

    def prepare_app(self, app: Host) -> None:
        """Read the settings of this database from the application's.

        Again by the same application it does nothing.

        :raises AlreadyPrepared: another application has it.
        """
        self.after_fork()
        with self._lock:
            if self._host is None:
                self._prepare(app)
            elif self._host is not app:
                raise AlreadyPrepared(
                    f"the database {self.name!r} is prepared by {_host_name(self._host)} and "
                    f"cannot be prepared by {_host_name(app)} too: one Database object belongs to "
                    f"one application. Make another Database({self.name!r}) for it in "
                    "append_app_plugins(), or close() the first application"
                )

    def _prepare(self, app: Host) -> None:
        settings = database_settings(
            app.settings,
            self.name,
            endpoint=getattr(app, "endpoint", None),
            passed=getattr(app, "passed_settings", frozenset()),
        )
        settings.backend.check_driver(settings.url, database=self.name, key=settings.source)
        self._session_options = {
            **settings.session,
            "database": self.name,
            "backend": settings.backend,
        }
        self._settings, self._host, self._closed = settings, app, False

    def after_fork(self) -> None:
        """In a forked child: forget the parent's connections without closing them.

        Elsewhere it does nothing. Whatever touches the pool calls it, for a fork in
        C code (uWSGI) calls no hook of Python.
        """
        if self._pid == os.getpid():
            return
        self._lock = threading.Lock()
        self._pid = os.getpid()
        if self._engine is None:
            return
        for connection in list(self._connections):
            self.backend.orphan(connection)
        # kept, so that no destructor of theirs runs in this process
        self._inherited += [self._engine.pool, *self._connections]
        self._connections.clear()
        self._engine.dispose(close=False)

    def close(self) -> None:
        """Close the pool and forget the settings; the application is done."""
        try:
            self.dispose()
        finally:
            self._engine = self._reader = None
            self._settings = self._host = None
            self._closed = True

    def move(self, url: sa.URL) -> None:
        """Use another database of the same server from now on, before anything was used.

        For tests, where another run has the database of the settings.

        :param url: the URL of the settings, with another name.
        :raises AlreadyPrepared: the engine has been built.
        """
        settings = self.settings
        with self._lock:
            engine = self._engine
            if engine is not None and engine.url != settings.backend.server_url(url):
                raise AlreadyPrepared(
                    f"the database {self.name!r} is to be used at {safe_url(url)}, and its engine "
                    f"was built for {settings.address} already; use no engine and no session "
                    "while the application is prepared"
                )
            self._settings = replace(settings, url=url)

    def dispose(self) -> None:
        """Close the pooled connections; new ones are opened when needed."""
        self.after_fork()
        if self._engine is not None:
            self._engine.dispose()

    # --- what it is

    @property
    def settings(self) -> DatabaseSettings:
        """What is set about this database.

        :raises NotPrepared: the application was not prepared yet.
        :raises Closed: it was closed.
        """
        if self._settings is None:
            if self._closed:
                raise Closed(
                    f"the database {self.name!r} was used after its application was closed; "
                    "make and prepare a new application"
                )
            raise NotPrepared(
                f"the database {self.name!r} was used before its application was prepared; call "
                "run_wsgi(), run_celery(), run_command(), run_shell() or run_tests() first, "
                "and use the database only after it"
            )
        return self._settings

    @property
    def host(self) -> Host:
        """The application that prepared this database."""
        if self._host is None:
            self.settings  # noqa: B018  raises the error that says what to do
        assert self._host is not None
        return self._host

    @property
    def backend(self) -> Backend:
        """What knows this kind of database."""
        return self.settings.backend

    @property
    def migrations_path(self) -> str:
        """Directory of the migrations, from ``paths``.

        :raises SettingMissing: ``paths`` has no such key.
        """
        try:
            return str(self.host.paths.get(self.paths_key))
        except KeyError:
            pass
        raise SettingMissing(
            f"paths has no {self.paths_key!r}, the migrations directory of the database "
            f"{self.name!r}; set it in settings/default.py: "
            f"paths.set({self.paths_key!r}, 'migrations/{self.name}', 'project_root')",
            key=self.paths_key,
        )

    @property
    def engine(self) -> Engine:
        """The engine, built on first use."""
        if self._engine is None or self._pid != os.getpid():
            self._ensure_engine()
        assert self._engine is not None
        return self._engine

    def has_pool(self, pool: sa.Pool) -> bool:
        """Tell whether a pool is the one of this database; no engine is built for it."""
        return self._engine is not None and self._engine.pool is pool

    @property
    def _read_only_engine(self) -> Engine:
        if self._reader is None or self._pid != os.getpid():
            self._ensure_engine()
        assert self._reader is not None
        return self._reader

    def _ensure_engine(self) -> None:
        self.after_fork()
        with self._lock:
            if self._engine is None:
                settings = self.settings
                engine = settings.backend.create_engine(
                    settings.url, settings.options, label=self.name, key=settings.source
                )
                event.listen(engine, "connect", self._remember)
                self._reader = engine.execution_options(**_reader_options(engine, settings))
                self._engine = engine

    def _remember(self, dbapi_connection: Any, record: object) -> None:
        try:
            self._connections.add(dbapi_connection)
        except TypeError:  # sqlite3's connections allow no weak references
            self._connections.add(record)

    # --- sessions

    def get_session(self, *, read_only: bool = False) -> Session:
        """Return a new session; the caller closes it.

        :param read_only: the session refuses to write, here and at the server.
        """
        bind = self._reader if read_only else self._engine
        if bind is None or self._pid != os.getpid():
            bind = self._read_only_engine if read_only else self.engine
        try:
            return Session(bind, read_only=read_only, **self._session_options)
        except (TypeError, sa.exc.ArgumentError) as error:
            raise SettingInvalid(
                f"'db:{self.name}:session' holds what a session of the database {self.name!r} "
                f"does not take: {error}",
                key=f"db:{self.name}:session",
            ) from error

    def session(self, *, read_only: bool = False) -> AbstractContextManager[Session]:
        """Return a session for a ``with`` block.

        It is closed at the end of the block, rolled back on an error, and never
        commits by itself.
        """
        return self.get_session(read_only=read_only)

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """Yield a session that is committed at the end of the block.

        An error rolls everything back. A commit that fails raises its error.
        """
        with self.session() as session:
            session.begin()
            yield session
            if session.in_transaction():
                session.commit()

    # --- the database itself

    def ping(self) -> float:
        """Ask the server a trivial question and return the seconds it took.

        :raises ServerError: the database cannot be reached, or does not exist; a file
            that is not there is not created.
        """
        engine, settings = self._read_only_engine, self.settings
        settings.backend.check_present(engine.url, settings.access)
        started = time.perf_counter()
        try:
            with engine.connect() as connection:
                connection.execute(sa.text("SELECT 1")).scalar()
        except (sa.exc.DBAPIError, sa.exc.TimeoutError) as error:
            problem = str(getattr(error, "orig", None) or error).strip()
            raise ServerError(
                f"the database {self.name!r} at {settings.address} does not answer: {problem}. "
                f"{settings.backend.advice(settings.source)}"
            ) from error
        return time.perf_counter() - started

    def exists(self) -> bool:
        """Tell whether the database exists on its server."""
        return self.backend.exists(*self._administration())

    def create(self) -> bool:
        """Create the database, empty.

        :returns: False when it was there already.
        :raises ServerError: it cannot be created where the settings say.
        """
        return self.backend.create(*self._administration())

    def drop(self, *, confirm: str | None = None) -> bool:
        """Drop the database, in spite of open connections.

        It acts on the URL of the prepared settings and on no other. Without
        confirmation it does so only in an application prepared for tests, on a
        database that no other endpoint uses and that has ``test`` in its name.
        One that is ``production`` by the settings or by its own record (see
        :mod:`qapla_db.record`) is never dropped.

        :param confirm: the name of this database, from a caller who means it.
        :returns: False when there was none.
        :raises Refused: it could be somebody's data.
        """
        self.check_droppable(confirm=confirm)
        arguments = self._administration()
        self.dispose()
        return self.backend.drop(*arguments)

    def _administration(self) -> tuple[sa.URL, sa.URL | None, Access]:
        """What a backend needs to make and drop this database, checked."""
        settings, backend = self.settings, self.backend
        if not backend.name_of(settings.url):
            raise SettingInvalid(
                f"{settings.source!r} of the database {self.name!r} names a server and no "
                f"database ({settings.address}); add the name: .../NAME",
                key=settings.source,
            )
        default = settings.default_url
        if default is not None and backend.identity(default)[0] != settings.identity[0]:
            key = f"db:{self.name}:default_url"
            raise SettingInvalid(
                f"{key!r} ({safe_url(default)}) is on another server than {settings.source!r} "
                f"({settings.address}), where the database {self.name!r} is; set both, or leave "
                f"{key!r} away: it is derived",
                key=key,
            )
        return settings.url, default, settings.access

    def check_droppable(self, *, confirm: str | None = None) -> None:
        """Raise Refused where :meth:`drop` would."""
        # few programs drop databases, and none waits for what only these need
        from qapla_db.dropping import check_droppable

        check_droppable(self.settings, self.host, confirm=confirm)


def _host_name(host: Host) -> str:
    # not its repr: that of another make's host may show settings
    endpoint = getattr(host, "endpoint", None)
    name = type(host).__name__
    return f"{name} (for {endpoint!r})" if endpoint else name


def _reader_options(engine: Engine, settings: DatabaseSettings) -> dict[str, Any]:
    options = settings.backend.read_only_options()
    if engine.get_execution_options().get("isolation_level") == "AUTOCOMMIT":
        # no server keeps a connection in AUTOCOMMIT from writing
        options["isolation_level"] = settings.backend.isolation_level
    return options


_databases: weakref.WeakSet[Database] = weakref.WeakSet()


def _after_fork() -> None:
    for database in list(_databases):
        database.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
