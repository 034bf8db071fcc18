"""``embedded:///DIRECTORY?database=NAME``: a real PostgreSQL that we start ourselves.

``embedded://tests?database=NAME`` is one for tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import sqlalchemy as sa

from qapla_db.backends import embedded_tests
from qapla_db.backends.address import one_value, safe_url
from qapla_db.backends.base import NO_SETTINGS, Access, Connector
from qapla_db.backends.postgresql import PostgreSQLBackend
from qapla_db.errors import InvalidArgument

__all__ = ["EmbeddedBackend"]

DEFAULT_OPTIONS = {
    # frees the locks of a killed client within half a second
    "client_connection_check_interval": "500ms",
}


class EmbeddedBackend(PostgreSQLBackend):
    """PostgreSQL from the ``embedded`` extra, owned by the processes that use it.

    Three slashes before a directory relative to the working directory, four
    before an absolute one, as for SQLite. Every item of the query but
    ``database`` is a server setting (``fsync=off``); it counts when the server
    is started, not for one that runs already.
    """

    name = "embedded"
    driver_modules: ClassVar = {"psycopg": ("psycopg", "qapla_db[embedded]")}

    def complete(self, url: sa.URL) -> sa.URL:
        if url.drivername.partition("+")[0] != "embedded":
            return url
        if embedded_tests.is_of_tests(url):
            return embedded_tests.named(url)
        if not url.database or url.host:
            raise InvalidArgument(
                f"{safe_url(url)!r} is not of the form "
                "embedded:///DIRECTORY?database=NAME (four slashes before an absolute "
                "directory), or for tests embedded://tests?database=NAME"
            )
        directory = str(Path(url.database).absolute())
        query = {"database": "postgres", **url.query}
        return url.set(drivername="embedded+psycopg", database=directory, query=query)

    def server_url(self, url: sa.URL) -> sa.URL:
        if url.drivername.partition("+")[0] != "embedded":
            return url
        from qapla_db.backends import embedded_server

        options = {key: one_value(value) for key, value in url.query.items() if key != "database"}
        options = {**DEFAULT_OPTIONS, **options}
        if embedded_tests.is_of_tests(url):
            server = embedded_tests.start(url.database or "", options)
        else:
            server = embedded_server.start(url.database or "", options)
        return server.url(self.name_of(url))

    def connector(self, url: sa.URL, label: str, key: str) -> Connector:
        return _Restart(super().connector(url, label, key), self, url)

    def maintenance_url(self, url: sa.URL) -> sa.URL | None:
        other = "template1" if self.name_of(url) == "postgres" else "postgres"
        return url.update_query_dict({"database": other})

    def is_plain(self, url: sa.URL, connect_args: Mapping[str, Any]) -> bool:
        return not {"dbname", "host", "hostaddr", "port", "service"} & set(connect_args)

    def identity(self, url: sa.URL) -> tuple[str, str]:
        if url.drivername.partition("+")[0] != "embedded":
            return super().identity(url)
        directory = Path(url.database or "")
        if embedded_tests.is_of_tests(url):
            directory = embedded_tests.data_directory(url.database or "")
        # as PostgreSQL's socket in that directory would be
        return f"{directory.resolve()}:{self.default_port}", self.name_of(url)

    def name_of(self, url: sa.URL) -> str:
        if url.drivername.partition("+")[0] != "embedded":
            return super().name_of(url)
        return one_value(url.query.get("database"))

    def renamed(self, url: sa.URL, name: str) -> sa.URL:
        if url.drivername.partition("+")[0] != "embedded":
            return super().renamed(url, name)
        return url.update_query_dict({"database": name})

    def exists(self, url: sa.URL, maintenance: sa.URL | None, access: Access = NO_SETTINGS) -> bool:
        return super().exists(*self._real(url, maintenance), access)

    def create(self, url: sa.URL, maintenance: sa.URL | None, access: Access = NO_SETTINGS) -> bool:
        return super().create(*self._real(url, maintenance), access)

    def drop(self, url: sa.URL, maintenance: sa.URL | None, access: Access = NO_SETTINGS) -> bool:
        return super().drop(*self._real(url, maintenance), access)

    def _real(self, url: sa.URL, maintenance: sa.URL | None) -> tuple[sa.URL, sa.URL]:
        real = self.server_url(self.complete(url))
        admin = maintenance or super().maintenance_url(real) or real
        return real, self.server_url(self.complete(admin))


class _Restart:
    """Listener: connects, and starts a server again that was killed since the engine was built."""

    def __init__(self, connect: Connector, backend: EmbeddedBackend, url: sa.URL) -> None:
        self.connect = connect
        self.backend = backend
        self.url = url

    def __call__(
        self, dialect: sa.Dialect, record: object, arguments: Any, keywords: dict[str, Any]
    ) -> Any:
        try:
            return self.connect(dialect, record, arguments, keywords)
        except dialect.loaded_dbapi.OperationalError:
            pass
        self.backend.server_url(self.url)  # does nothing where the server runs
        return self.connect(dialect, record, arguments, keywords)
