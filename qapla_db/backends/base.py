"""What a backend is: everything in which one database engine differs from another."""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy import event, pool
from sqlalchemy.engine import Connection, Engine

from qapla_db.backends.address import one_value, safe_url, server_name
from qapla_db.backends.commits import guard_commits
from qapla_db.backends.listeners import Connect, ErrorMap
from qapla_db.backends.pools import pool_takes
from qapla_db.backends.states import READ_ONLY
from qapla_db.errors import DriverMissing, InvalidArgument, ServerError, SettingInvalid

__all__ = ["NO_SETTINGS", "Access", "Backend", "Connector"]

log = logging.getLogger("qapla_db")


@dataclass(frozen=True)
class Access:
    """What the settings say of reaching a server, and how messages name them."""

    connect_args: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """The user's arguments of the driver's ``connect()``."""

    label: str = "<name>"
    """The database's name in the application."""

    key: str = "db:<name>:url"
    """The setting that the URL came from."""


NO_SETTINGS = Access()

Connector = Callable[[sa.Dialect, object, Any, dict[str, Any]], Any]
"""Listener ``do_connect`` of an engine."""


def _is_installed(module: str) -> bool:
    try:
        return sys.modules.get(module) is not None or importlib.util.find_spec(module) is not None
    except ImportError:
        return False


class Backend(ABC):
    """One kind of database engine.

    A backend has no state. The methods that take a URL take the one of the
    settings, after :meth:`complete`. Others can be registered through the
    entry point group ``qapla_db.backends`` (the name is the dialect's).
    """

    name: ClassVar[str]
    """Name of the SQLAlchemy dialect."""

    default_driver: ClassVar[str]
    """Driver for a URL that names none."""

    is_server: ClassVar[bool] = True
    """Whether statements run in a server, which goes on when the caller is interrupted."""

    default_port: ClassVar[int] = 0

    default_sockets: ClassVar[frozenset[str]] = frozenset()
    """Where the server of this machine usually has its Unix socket."""

    driver_modules: ClassVar[Mapping[str, tuple[str, str]]] = {}
    """Driver -> (module to import, what to install for it)."""

    query_parts: ClassVar[Mapping[str, str]] = {}
    """Item of a URL's query -> part of the URL that it says, and wins over."""

    name_limit: ClassVar[tuple[int, str]] = (0, "characters")
    """How long a database's name may be, in characters or bytes; 0 when any length may."""

    isolation_level: ClassVar[str] = "READ COMMITTED"
    """The level of a read-only session on an engine that is set to AUTOCOMMIT."""

    nulls_sort_last: ClassVar[bool] = False
    """Whether an ascending order puts NULL behind all values."""

    retry_codes: ClassVar[frozenset[str | int]] = frozenset()
    """Codes that mean: run the whole transaction again."""

    rollback_codes: ClassVar[frozenset[str | int]] = frozenset()
    """Codes that mean: the server has rolled the whole transaction back, and goes on without."""

    begin_again: ClassVar[tuple[str, ...]] = ()
    """Statements that begin a transaction where the server has ended one by itself."""

    lost_codes: ClassVar[frozenset[str | int]] = frozenset()
    """Codes that mean: this connection is of no use any more."""

    read_only_codes: ClassVar[frozenset[str | int]] = frozenset()
    """Those of :attr:`lost_codes` that are the right answer in a read-only session."""

    # --- URLs

    def complete(self, url: sa.URL) -> sa.URL:
        """Return the URL with our driver, where it names none.

        What its query says of user, password and database stands in its place
        afterwards, so that everybody sees the same database and nobody the password.
        """
        for item, part in self.query_parts.items():
            if item in url.query:
                value = one_value(url.query[item])
                url = url.difference_update_query([item]).set(**{part: value})  # type: ignore[arg-type]
        if "+" in url.drivername:
            return url
        return url.set(drivername=f"{self.name}+{self.default_driver}")

    def check_name(self, url: sa.URL) -> None:
        """Raise InvalidArgument where the server would cut the database's name, or refuse it."""
        limit, unit = self.name_limit
        name = self.name_of(url)
        length = len(name.encode(errors="replace") if unit == "bytes" else name)
        if limit and length > limit:
            raise InvalidArgument(
                f"the name of a database has at most {limit} {unit} on this kind of server, and "
                f"this one has {length} ({name!r}): it could lead to another database. Shorten it"
            )

    def check_driver(self, url: sa.URL, *, database: str, key: str) -> None:
        """Raise DriverMissing, with what to install, when the driver is not there."""
        driver = url.drivername.partition("+")[2]
        module, requirement = self.driver_modules.get(driver, ("", ""))
        if module and not _is_installed(module):
            raise DriverMissing(
                f"the database {database!r} ({key!r}) needs the driver {module!r}, which is not "
                f"installed; install it with: pip install '{requirement}'"
            )

    def server_url(self, url: sa.URL) -> sa.URL:
        """Return the URL that the driver gets."""
        return url

    @abstractmethod
    def maintenance_url(self, url: sa.URL) -> sa.URL | None:
        """Return a URL of the same server to create and drop from; None when none is needed."""

    def identity(self, url: sa.URL) -> tuple[str, str]:
        """Return (server, database name) in a form in which two spellings of one are equal."""
        host, port = self.host_and_port(url)
        if host.startswith("/") and host not in self.default_sockets:
            server = os.path.realpath(host)
        else:
            server = server_name("" if host.startswith("/") else host)
        return f"{server}:{port}", self.name_of(url)

    def host_and_port(self, url: sa.URL) -> tuple[str, int]:
        """Return where the server is: host or directory or file of its socket, and port."""
        host = url.host or one_value(url.query.get("host"))
        port = one_value(url.query.get("port"))
        if not host.startswith("/") and host.count(":") == 1:
            host, _, port = host.partition(":")
        return host, url.port or (int(port) if port.isdecimal() else self.default_port)

    def is_by_tcp(self, url: sa.URL) -> bool:
        """Tell whether the server is certainly reached through a port, and not a Unix socket."""
        host, _ = self.host_and_port(url)
        return bool(host) and not host.startswith("/")

    def is_plain(self, url: sa.URL, connect_args: Mapping[str, Any]) -> bool:
        """Tell whether the URL alone says which server and database are meant.

        The query of a URL, the driver's own arguments, its configuration files
        and its environment can lead elsewhere.
        """
        return True

    def name_of(self, url: sa.URL) -> str:
        """Return the database's name on its server, for people and for safety rules."""
        return url.database or ""

    def fitting_name(self, base: str, ending: str) -> str:
        """Return a name of both parts that the server keeps as it is: the base is cut to fit."""
        limit, unit = self.name_limit
        if not limit:
            return base + ending
        room = limit - len(ending)
        if unit == "bytes":
            return base.encode(errors="replace")[:room].decode(errors="ignore") + ending
        return base[:room] + ending

    def renamed(self, url: sa.URL, name: str) -> sa.URL:
        """Return the URL of another database on the same server."""
        return url.set(database=name)

    def is_volatile(self, url: sa.URL) -> bool:
        """Tell whether the data is gone with the process anyway."""
        return False

    # --- engines

    def engine_defaults(self, url: sa.URL, label: str) -> dict[str, Any]:
        """Return our keywords for create_engine; what the user says wins over them."""
        return {}

    def engine_options(
        self, url: sa.URL, options: Mapping[str, Any], *, label: str
    ) -> dict[str, Any]:
        """Merge our defaults with the user's options.

        The URL's query and the options win over our defaults; a default that
        the pool class does not take is dropped.
        """
        defaults = self.engine_defaults(url, label)
        ours = defaults.pop("connect_args", {})
        merged = {**defaults, **options}
        connect_args = {key: value for key, value in ours.items() if key not in url.query}
        connect_args.update(options.get("connect_args", {}))
        if connect_args:
            merged["connect_args"] = connect_args
        for key in defaults:
            if key not in options and not pool_takes(key, merged):
                del merged[key]
        if merged.get("isolation_level") == "AUTOCOMMIT":
            # said as an execution option the listeners of an engine can see it
            merged.pop("isolation_level")
            execution_options = merged.get("execution_options", {})
            merged["execution_options"] = {"isolation_level": "AUTOCOMMIT", **execution_options}
        return merged

    def create_engine(
        self, url: sa.URL, options: Mapping[str, Any], *, label: str, key: str = "url"
    ) -> Engine:
        """Build the engine of a database; no connection is opened.

        :param url: the URL of the settings.
        :param options: keywords of :func:`sqlalchemy.create_engine`; they win over our defaults.
        :param label: the database's name, for messages.
        :param key: the setting that the URL came from, for messages.
        :raises DriverMissing: the driver cannot be imported.
        :raises SettingInvalid: ``create_engine`` refuses an option.
        """
        url = self.complete(url)
        self.check_driver(url, database=label, key=key)
        target = self.server_url(url)
        try:
            engine = sa.create_engine(target, **self.engine_options(target, options, label=label))
        except ImportError as error:
            raise DriverMissing(
                f"the driver of the database {label!r} ({key!r}), {url.drivername!r}, cannot be "
                f"imported: {error}. Install it, or leave the part behind + away to get ours"
            ) from error
        except (TypeError, sa.exc.ArgumentError) as error:
            raise SettingInvalid(
                f"'db:{label}:options' does not fit the database {label!r}: {error}",
                key=f"db:{label}:options",
            ) from error
        self.install(engine)
        note = f"database {label!r} at {safe_url(url)}, from {key!r}"
        event.listen(engine, "handle_error", ErrorMap(self, note))
        event.listen(engine, "do_connect", self.connector(url, label, key))
        guard_commits(engine, self, label)
        return engine

    def install(self, engine: Engine) -> None:  # noqa: B027
        """Add the listeners that this kind of engine needs."""

    def connector(self, url: sa.URL, label: str, key: str) -> Connector:
        """Return the listener ``do_connect`` of an engine.

        :param url: the URL of the settings.
        :param label: the database's name, for messages.
        :param key: the setting that the URL came from, for messages.
        """
        return Connect(self, label, key)

    def read_only_options(self) -> dict[str, Any]:
        """Return the execution options of a read-only session's connections."""
        return {READ_ONLY: True}

    # --- the database itself

    def check_present(self, url: sa.URL, access: Access) -> None:  # noqa: B027
        """Raise ServerError where connecting would create the database.

        :param url: the URL of the engine.
        """

    def advice(self, key: str) -> str:
        """Return what to check when the database does not answer.

        :param key: the setting that the URL came from.
        """
        return f"Check that the server runs, that {key!r} is right and that the database exists"

    @abstractmethod
    def exists(self, url: sa.URL, maintenance: sa.URL | None, access: Access = NO_SETTINGS) -> bool:
        """Tell whether the database exists on its server.

        :param url: the database.
        :param maintenance: another database of the server to do it from; None for the usual one.
        :param access: what the settings add to the URL, and their names for messages.
        """

    @abstractmethod
    def create(self, url: sa.URL, maintenance: sa.URL | None, access: Access = NO_SETTINGS) -> bool:
        """Create the database; False when it was there already."""

    @abstractmethod
    def drop(self, url: sa.URL, maintenance: sa.URL | None, access: Access = NO_SETTINGS) -> bool:
        """Drop the database in spite of open connections; False when there was none."""

    @contextmanager
    def administration(
        self, url: sa.URL, maintenance: sa.URL | None = None, access: Access = NO_SETTINGS
    ) -> Iterator[Connection]:
        """Yield an autocommit connection to the server of a database, but not to it."""
        options: dict[str, Any] = {"poolclass": pool.NullPool, "isolation_level": "AUTOCOMMIT"}
        options["connect_args"] = access.connect_args
        other = maintenance or self.maintenance_url(url) or url
        engine = self.create_engine(other, options, label=access.label, key=access.key)
        try:
            with engine.connect() as connection:
                yield connection
        except sa.exc.OperationalError as error:
            if error.statement is not None:
                raise
            raise ServerError(
                f"the server of the database {access.label!r} cannot be reached at "
                f"{safe_url(other)}, or refuses us: {str(error.orig).strip()}. Check address and "
                f"credentials ({access.key!r}), or set 'db:{access.label}:default_url' to a "
                "database of this server that may be connected to"
            ) from error
        finally:
            engine.dispose()

    # --- errors and broken states

    @abstractmethod
    def error_code(self, error: BaseException) -> str | int | None:
        """Return the SQLSTATE or error number of a driver's error."""

    def refuses_arguments(self, error: Exception) -> bool:
        """Tell whether the driver did not try to connect because of a keyword that it got."""
        return isinstance(error, TypeError)

    def is_retryable(self, error: BaseException) -> bool:
        """Tell whether the whole transaction may be run again because of this error.

        It is decided by the code, never by the class: 40001 and 40P01 of
        PostgreSQL, 1213 and 1205 of MySQL, SQLITE_BUSY and SQLITE_LOCKED.
        """
        original = getattr(error, "orig", error)
        return original is not None and self.error_code(original) in self.retry_codes

    def has_failed(self, connection: Connection) -> bool:
        """Tell whether the server will answer COMMIT with a rollback, and call that a success."""
        return False

    def has_rolled_back(self, connection: Connection, error: BaseException) -> bool:
        """Tell whether the server rolled the whole transaction back because of this error.

        :param error: the driver's, of a statement in a transaction.
        """
        return self.error_code(error) in self.rollback_codes

    def stop_statement(self, connection: Connection) -> bool:
        """Cancel a statement that still runs; True when the connection must be thrown away.

        Nothing is done to a connection that is closed or invalidated.
        """
        return False

    def orphan(self, connection: Any) -> None:  # noqa: B027
        """In a forked child: make the parent's connection harmless without closing it.

        :param connection: the driver's, or the pool's record of it where the
            driver's allows no weak references.
        """
