"""The sandbox below a real web server and a real worker, in threads of the test's process."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.request import Request, urlopen

import pytest
from celery.contrib.testing.worker import start_worker
from sqlalchemy import func, insert, select

from qapla_db.registry import Databases
from qapla_db.session import Session
from rotarran.application.app import RotarranApplication
from rotarran.application.db import Airport, Event, Neighbour
from rotarran.tasks import celery, compute_neighbours
from tests.app.test_rotarran import RotarranFixture, some_airports
from tests.support import wait_until
from tests.web.site import served

CLIENTS, POSTS = 4, 10
JSON = {"Content-Type": "application/json"}


class TestThreads(RotarranFixture):
    @pytest.fixture
    def address(self, application: RotarranApplication, airports: object) -> Iterator[str]:
        """A web server on a free port."""
        with served(application.make_wsgi_app()) as port:
            yield f"http://127.0.0.1:{port}"

    def test_web_server(self, address: str, dbsession: Session, dbplugin: Databases) -> None:
        """Every commit of clients of a threaded server is there, beside an open session."""
        assert len(some_airports()) == dbsession.scalar(select(func.count()).select_from(Airport))

        def edit(code: str) -> None:
            for version in range(1, POSTS + 1):
                body = json.dumps({"version": version, "elevation": version}).encode()
                request = Request(f"{address}/api/airports/{code}", body, JSON)
                with urlopen(request, timeout=20) as answer:
                    assert version + 1 == json.load(answer)["airport"]["version"]

        codes = [row["code"] for row in some_airports()[:CLIENTS]]
        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(edit, codes))
        edited = dbsession.scalars(select(Airport.elevation).where(Airport.code.in_(codes)))
        assert [POSTS] * CLIENTS == edited.all()
        with dbplugin["audit"].session(read_only=True) as audit:
            assert CLIENTS * POSTS == audit.scalar(select(func.count()).select_from(Event))

    def test_worker(self, airports: object, dbsession: Session, dbplugin: Databases) -> None:
        """A worker in a thread uses the test's databases and leaves the application open."""

        def computed() -> int:
            with dbplugin["audit"].session(read_only=True) as audit:
                return audit.scalar(select(func.count()).select_from(Event)) or 0

        # the level is given to the root logger, and stays: the one that it has
        options = {"loglevel": logging.getLogger().getEffectiveLevel(), "shutdown_timeout": 20}
        with start_worker(celery, pool="solo", perform_ping_check=False, **options):
            for row in some_airports()[:5]:
                compute_neighbours.delay(row["code"], "a test", 2)
            wait_until(lambda: computed() == 5, "the worker has not done its tasks")
        assert 10 == dbsession.scalar(select(func.count()).select_from(Neighbour))

    def test_nothing_is_left(self, dbsession: Session) -> None:
        """The commits of server and worker are gone."""
        assert 0 == dbsession.scalar(select(func.count()).select_from(Airport))
        dbsession.execute(insert(Airport), some_airports())
