"""A small web application whose views each test writes for itself."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
import waitress.server
from pyramid.response import Response
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from webtest import TestApp

from qapla_db import Database
from tests.support import SmallApplication, wait_until

Configure = Callable[[Any], None]
View = Callable[[Any], Any]


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "note"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]


class Site(SmallApplication):
    """An application with the views of one test."""

    def __init__(self, names: tuple[str, ...], configure: Configure) -> None:
        super().__init__(names)
        self.configure = configure

    def append_web_plugins(self) -> None:
        super().append_web_plugins()
        self.configure(self.config)

    def client(self) -> TestApp:
        """A browser that checks the WSGI protocol as well."""
        return TestApp(self.make_wsgi_app())

    def registry(self) -> Any:
        """Pyramid's registry of the application."""
        application: Any = self.make_wsgi_app()
        return application.registry

    def stored(self, name: str = "main") -> list[str]:
        """The texts that a commit has stored."""
        with self.dbs[name].engine.connect() as connection:
            return list(connection.scalars(sa.select(Note.text).order_by(Note.id)))

    def checked_out(self) -> dict[str, int]:
        """Connections that are out of each pool."""
        return {name: pool_of(database) for name, database in self.dbs.items()}


NOTHING_OUT = {"main": 0, "audit": 0}


def pool_of(database: Database) -> int:
    pool = database.engine.pool
    assert isinstance(pool, sa.QueuePool)
    return pool.checkedout()


def views(**given: View) -> Configure:
    """Configure one route and view for each keyword."""

    def configure(config: Any) -> None:
        for name, view in given.items():
            config.add_route(name, f"/{name}")
            config.add_view(view, route_name=name)

    return configure


def write(request: Any, text: str = "written", name: str = "main") -> None:
    """Write and flush a note in the request's session."""
    session = getattr(request, name)
    session.add(Note(text=text))
    session.flush()


def ok(request: Any) -> Response:
    return Response("ok")


def start_application(
    urls: Mapping[str, sa.URL], configure: Configure, settings: Mapping[str, Any]
) -> Site:
    """Prepare a site on databases that exist, and create its tables."""
    site = Site(tuple(urls), configure)
    site.prepare("wsgi", {**{f"db:{name}:url": url for name, url in urls.items()}, **settings})
    for database in site.dbs.values():
        Base.metadata.create_all(database.engine)
    return site


@contextmanager
def served(application: Any) -> Iterator[int]:
    """Serve an application with waitress, on a free port that is yielded."""
    server = waitress.server.create_server(
        # a small mark: the application waits for its client, as it does on a slow line
        application,
        host="127.0.0.1",
        port=0,
        threads=2,
        outbuf_high_watermark=65_536,
    )
    stopping = threading.Event()

    def run() -> None:
        while not stopping.is_set():
            server.asyncore.loop(timeout=0.05, map=server._map, count=1)
        server.task_dispatcher.shutdown()
        server.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield server.effective_port
    finally:
        stopping.set()
        wait_until(lambda: not thread.is_alive(), "the web server stops")
