"""A database without an application: for scripts, notebooks and small services."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, TypeAlias

import sqlalchemy as sa
from morfdict import MorfDict, Paths
from sqlalchemy.engine import Engine
from sqlalchemy.orm import DeclarativeBase

from qapla_db.backends import get_backend, safe_url
from qapla_db.database import Database
from qapla_db.errors import (
    AlreadyPrepared,
    InvalidArgument,
    Misuse,
    NotPrepared,
    SessionConflict,
    SettingInvalid,
    Unsupported,
)
from qapla_db.query.methods import ScopedSession
from qapla_db.query.sql import Query
from qapla_db.registry import Databases
from qapla_db.session import Session
from qapla_db.settings import LoadedSettings

__all__ = ["SQLConnection"]

log = logging.getLogger("qapla_db")

Config: TypeAlias = Mapping[str, Any] | str | sa.URL

NAME = "database"


class SQLConnection:
    """A connection to one database, with a session of its own.

    ::

        db = SQLConnection()
        db.connect(config={"ENGINE": "postgresql", "HOST": "localhost", "DB_NAME": "stars"})
        db.query(Star).find(filter_by={"name": "Vega"})
        db.session.commit()
        db.close()

    As a context manager it connects at the beginning and closes at the end.

    :param config: a URL, or a mapping with ENGINE, HOST, USER, PASSWORD, PORT and DB_NAME.
    :param engine: an engine to use instead; it stays its owner's to dispose of.
    :param Base: the declarative base whose tables :meth:`create_db` makes.
    :param Session: what makes the sessions instead of ours, such as a ``sessionmaker``.
    :param session: a session to use; it stays its owner's to close.
    """

    def __init__(
        self,
        config: Config | None = None,
        engine: Engine | None = None,
        Base: type[DeclarativeBase] | None = None,  # noqa: N803  the documented name
        Session: Callable[[], Any] | None = None,  # noqa: N803
        session: Any = None,
    ) -> None:
        self.config = config
        self.Base = Base
        self.Session = Session
        self.session: Any = session
        self._engine = engine
        self._session_options: Mapping[str, Any] = {}
        self._host: _Standalone | None = None
        self._owns_session = False

    def __repr__(self) -> str:
        if self._host is not None:
            return f"<SQLConnection to {self.database.settings.address}>"
        return f"<SQLConnection {f'to {safe_url(self._engine.url)}' if self._engine else 'idle'}>"

    def connect(
        self,
        config: Config | None = None,
        base: type[DeclarativeBase] | None = None,
        session_options: Mapping[str, Any] | None = None,
        create_session: bool = True,
        use_scoped: bool = False,
        scope_func: Callable[[], Any] | None = None,
    ) -> None:
        """Set up the engine, and a session unless told otherwise; nothing is sent yet.

        :param config: a URL or a mapping; the constructor's when left away.
        :param base: the declarative base; the constructor's when left away.
        :param session_options: keywords of :class:`sqlalchemy.orm.Session`.
        :param create_session: False to call :meth:`create_session` when it is needed.
        :param use_scoped: see :meth:`create_session`.
        :param scope_func: see :meth:`create_session`.
        :raises AlreadyPrepared: it is connected.
        :raises SettingInvalid: the configuration cannot be used.
        """
        if self._host is not None:
            raise AlreadyPrepared(f"{self!r} is connected; call close() first")
        config = config if config is not None else self.config
        if self._engine is None:
            if config is None:
                raise Misuse("connect() needs a config (a URL or a mapping), or an engine")
            self._host = _Standalone(config, session_options or {})
        elif config is not None:
            raise Misuse("a SQLConnection takes a config or an engine, not both")
        self.config, self.Base = config, base or self.Base
        self._session_options = session_options or {}
        try:
            if create_session and self.session is None:
                self.create_session(use_scoped, scope_func)
        except BaseException:
            self.close()
            raise

    @property
    def database(self) -> Database:
        """The Database behind this door.

        :raises NotPrepared: :meth:`connect` was not called, or an engine was given.
        """
        if self._host is None:
            raise NotPrepared("there is no database yet: call connect(config=...) first")
        return self._host.dbs[NAME]

    @property
    def engine(self) -> Engine:
        """The engine, built on first use."""
        return self._engine if self._engine is not None else self.database.engine

    # --- sessions

    def create_session(
        self, use_scoped: bool = False, scope_func: Callable[[], Any] | None = None
    ) -> None:
        """Make the session that :meth:`query` uses.

        :param use_scoped: one session for each scope instead, a thread when
            ``scope_func`` is not given; ``db.session.remove()`` ends the scope's.
        :param scope_func: returns what tells one scope from another.
        :raises SessionConflict: there is a session.
        :raises InvalidArgument: ``scope_func`` without ``use_scoped``.
        """
        if self.session is not None:
            raise SessionConflict(f"{self!r} has a session; call end_session() first")
        if scope_func is not None and not use_scoped:
            raise InvalidArgument("scope_func is for a scoped session; pass use_scoped=True too")
        if use_scoped:
            self.session = ScopedSession(self._new_session, scopefunc=scope_func)
        else:
            self.session = self._new_session()
        self._owns_session = True

    def _new_session(self) -> Any:
        if self.Session is not None:
            return self.Session()
        try:
            if self._engine is None:
                return self.database.get_session()
            backend = get_backend(self._engine.url)
            if backend is None:
                raise Unsupported(
                    f"there is no backend for {safe_url(self._engine.url)}; pass a Session of "
                    "yours, such as sessionmaker(engine)"
                )
            options = dict(self._session_options)
            return Session(self._engine, database=NAME, backend=backend, read_only=False, **options)
        except (TypeError, sa.exc.ArgumentError, SettingInvalid) as error:
            raise InvalidArgument(
                f"session_options holds what a session does not take: {error}"
            ) from error

    def query(self, *entities: Any) -> Query[Any]:
        """Return a query of the session.

        :param entities: what to query, usually one mapped class; none where the
            method that follows is given its ``model``.
        :raises NotPrepared: there is no session.
        """
        if self.session is None:
            raise NotPrepared(
                f"{self!r} has no session; call connect(config=...) or create_session() first"
            )
        session = self.session
        # a Session of the caller's own would give a query without our methods
        return Query(entities, session() if isinstance(session, ScopedSession) else session)

    def end_session(self) -> None:
        """Roll back and close the session; the commit is yours, before."""
        session, self.session = self.session, None
        if session is None or not self._owns_session:
            return
        self._owns_session = False
        if isinstance(session, ScopedSession):
            session.remove()
        else:
            session.close()

    # --- the tables

    def create_db(self) -> None:
        """Create the tables of ``base`` that are not there; the database itself must exist."""
        self._metadata().create_all(self.engine)

    def drop_db(self) -> None:
        """Drop the tables of ``base`` with everything in them; never the database itself."""
        self._metadata().drop_all(self.engine)

    def _metadata(self) -> sa.MetaData:
        if self.Base is None:
            raise Misuse("which tables? Pass the declarative base: connect(config, base=Base)")
        session = self.session
        current = session.registry() if isinstance(session, ScopedSession) else session
        if current is not None and current.in_transaction():
            # the tables would wait for that transaction, and it for us
            raise SessionConflict(
                f"the session of {self!r} is in a transaction; call session.commit() or "
                "session.rollback() first"
            )
        return self.Base.metadata

    # --- the end

    def close(self) -> None:
        """End the session and close the engine that :meth:`connect` made."""
        try:
            self.end_session()
        finally:
            host, self._host = self._host, None
            if host is not None:
                host.dbs[NAME].close()

    def __enter__(self) -> SQLConnection:
        if self._host is None and self._engine is None:
            self.connect()
        elif self.session is None:
            self.create_session()
        return self

    def __exit__(
        self,
        type_: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class _Standalone:
    """The host of a database that has no application."""

    endpoint = None

    def __init__(self, config: Config, session_options: Mapping[str, Any]) -> None:
        key = f"db:{NAME}:url"
        self.settings = MorfDict()
        self.settings[key] = config
        self.settings[f"db:{NAME}:session"] = dict(session_options)
        self.passed_settings = frozenset([key])
        self.paths = Paths()
        self.dbs = Databases()
        self.dbs.add(Database(NAME))
        self.dbs[NAME].prepare_app(self)

    def prepare(self, endpoint: str, settings: Mapping[str, Any] | None = None) -> None:
        """Do nothing: the database was prepared when it was connected."""

    def settings_for(self, endpoint: str) -> LoadedSettings:
        """Return the only settings there are."""
        return LoadedSettings(self.settings, self.paths, endpoint)
