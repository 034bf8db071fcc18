"""An application with two databases and every face, for the tests of the sandbox."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
import waitress.server
from celery import Celery
from celery.contrib.testing.worker import start_worker
from pyramid.response import Response
from sqlalchemy import orm, pool

from qapla_db import Database
from qapla_db.decorators import INJECTED, WithDatabase, connect_celery
from qapla_db.driver import ReadDriver, WriteDriver
from tests.support import SmallApplication, plain_engine

NAMES = ("main", "audit")
CLIENTS = 4
SECONDS = 20.0
"""Longest time that anything may take."""


class MainBase(orm.DeclarativeBase):
    pass


class AuditBase(orm.DeclarativeBase):
    pass


class Order(MainBase):
    __tablename__ = "orders"

    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    name: orm.Mapped[str] = orm.mapped_column(sa.String(50), unique=True)


class Event(AuditBase):
    __tablename__ = "event"

    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    name: orm.Mapped[str] = orm.mapped_column(sa.String(50))


class OrderReadDriver(ReadDriver[Order]):
    model = Order


class OrderWriteDriver(WriteDriver[Order]):
    model = Order


class EventWriteDriver(WriteDriver[Event]):
    model = Event


MODELS: dict[str, Any] = {"main": Order, "audit": Event}


def place(main: orm.Session, audit: orm.Session, name: str, *, fails: bool = False) -> None:
    """Commit an order and its event, or fail where both are written and nothing is committed."""
    OrderWriteDriver(main).create(name=name)
    EventWriteDriver(audit).create(name=name)
    if fails:
        raise LookupError("on purpose")
    main.commit()
    audit.commit()


class Shop(SmallApplication):
    """Places orders in a request, in a task and by hand."""

    def __init__(self) -> None:
        super().__init__(NAMES)
        self.celery = Celery("shop", set_as_current=False)
        self.celery.conf.update(
            broker_url="memory://localhost/",
            result_backend="cache+memory://",
            broker_connection_retry_on_startup=True,
            broker_transport_options={"polling_interval": 0.01},
            worker_hijack_root_logger=False,
        )
        connect_celery(self.celery, self)

        def place_order(
            name: str,
            fails: bool = False,
            *,
            main: orm.Session = INJECTED,
            audit: orm.Session = INJECTED,
        ) -> None:
            place(main, audit, name, fails=fails)

        with_databases = WithDatabase(self, "main")(WithDatabase(self, "audit")(place_order))
        self.place_order: Any = self.celery.task(name="shop.place_order", shared=False)(
            with_databases
        )

    def append_web_plugins(self) -> None:
        super().append_web_plugins()
        for name, view in {"order": self._order, "pack": self._pack, "count": _count}.items():
            self.config.add_route(name, f"/{name}")
            self.config.add_view(view, route_name=name)

    def _order(self, request: Any) -> Response:
        fails = "fails" in request.params
        try:
            place(request.main, request.audit, request.params["name"], fails=fails)
        except LookupError:
            return Response("failed", status=500)
        return Response("ok")

    def _pack(self, request: Any) -> Response:
        """Write something of its own, let a task run in between, and commit or not."""
        name = request.params["name"]
        request.main.add(Order(name=name))
        if "flushes" in request.params:
            request.main.flush()
        self.place_order.delay(f"{name} packed").get(timeout=SECONDS, interval=0.01)
        if "commits" in request.params:
            request.main.commit()
        return Response("ok")

    @contextmanager
    def worker(self, pool: str) -> Iterator[None]:
        """Run a worker in a thread."""
        # the level is given to the root logger, and stays: the one that it has
        level = logging.getLogger().getEffectiveLevel()
        with start_worker(
            self.celery,
            pool=pool,
            concurrency=1 if pool == "solo" else 4,
            perform_ping_check=False,
            loglevel=level,
            shutdown_timeout=SECONDS,
        ):
            yield

    @contextmanager
    def served(self) -> Iterator[int]:
        """Serve requests in as many threads as there are clients, on a free port."""
        server = waitress.server.create_server(
            self.make_wsgi_app(), host="127.0.0.1", port=0, threads=CLIENTS
        )
        stopping = threading.Event()

        def run() -> None:
            while not stopping.is_set():
                server.asyncore.loop(timeout=0.05, map=server._map, count=1)
            server.task_dispatcher.shutdown()
            server.asyncore.close_all(server._map)

        thread = threading.Thread(target=run, name="web server")
        thread.start()
        try:
            yield server.effective_port
        finally:
            stopping.set()
            thread.join(SECONDS)
        assert not thread.is_alive(), "the web server does not stop"

    def really(self) -> dict[str, list[str]]:
        """What the databases hold for good."""
        return {name: _names(name, self.dbs[name]) for name in NAMES}


def _count(request: Any) -> Response:
    found = request.main.scalar(sa.select(sa.func.count()).select_from(Order))
    return Response(str(found))


def _names(name: str, database: Database) -> list[str]:
    engine = plain_engine(
        database.backend.server_url(database.settings.url), poolclass=pool.NullPool
    )
    with engine.connect() as connection:
        model = MODELS[name]
        return list(connection.scalars(sa.select(model.name).order_by(model.name)))


def names(database: Database, *, read_only: bool = False) -> list[str]:
    """What a session of its own sees."""
    model = MODELS[database.name]
    with database.session(read_only=read_only) as session:
        return list(session.scalars(sa.select(model.name).order_by(model.name)))


def make_shop(urls: Mapping[str, sa.URL], endpoint: str = "tests") -> Shop:
    """Prepare a shop on databases that exist, and create its tables."""
    shop = Shop()
    shop.prepare(endpoint, {f"db:{name}:url": url for name, url in urls.items()})
    MainBase.metadata.create_all(shop.dbs["main"].engine)
    AuditBase.metadata.create_all(shop.dbs["audit"].engine)
    return shop
