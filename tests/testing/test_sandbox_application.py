"""The sandbox below every face of an application with two databases, on each kind of server."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.client import HTTPConnection

import pytest
import sqlalchemy as sa
from webtest import TestApp

from qapla_db.backends import get_backend
from qapla_db.testing import SandboxWarning
from qapla_db.testing.sandboxes.sandbox import sandbox
from tests.testing.shop import CLIENTS, SECONDS, Event, Order, Shop, make_shop, names, place
from tests.testing.world import in_thread

POSTS = 10
NOTHING: dict[str, list[str]] = {"main": [], "audit": []}
ORDERS = sa.select(sa.func.count()).select_from(Order)
EVENTS = sa.select(sa.func.count()).select_from(Event)

KINDS = {
    "postgresql": ("postgresql", "postgresql"),
    "sqlite": ("sqlite", "sqlite"),
    "mariadb": ("mariadb", "mariadb"),
    "mixed": ("postgresql", "mariadb"),
}
# a worker takes four seconds to end
each_server = pytest.mark.parametrize("shop", ["postgresql", "sqlite", "mariadb"], indirect=True)


@pytest.fixture(params=KINDS)
def shop(request: pytest.FixtureRequest, fresh_url: Callable[[str], sa.URL]) -> Iterator[Shop]:
    """A shop whose two databases are in a sandbox, and hold nothing after the test."""
    urls = dict(zip(("main", "audit"), map(fresh_url, KINDS[request.param]), strict=True))
    for url in urls.values():
        backend = get_backend(url)
        assert backend is not None
        backend.create(backend.complete(url), None)
    with make_shop(urls) as made:
        with ExitStack() as stack:
            for database in made.dbs.values():
                stack.enter_context(sandbox(database))
            yield made
        assert NOTHING == made.really(), "a test stored something for good"


def test_requests_beside_an_open_session(shop: Shop) -> None:
    """A session of the test stays open, reads and writes, while requests commit."""
    client = TestApp(shop.make_wsgi_app())
    with shop.dbs["main"].session() as main, shop.dbs["audit"].session() as audit:
        assert (0, 0) == (main.scalar(ORDERS), audit.scalar(EVENTS))
        client.post("/order", {"name": "first"})
        client.post("/order", {"name": "failed", "fails": "1"}, status=500)
        assert (1, 1) == (main.scalar(ORDERS), audit.scalar(EVENTS))
        place(main, audit, "by the test")
        assert "2" == client.get("/count").text
        client.post("/order", {"name": "last"})
        assert (3, 3) == (main.scalar(ORDERS), audit.scalar(EVENTS))
    for database in shop.dbs.values():
        assert ["by the test", "first", "last"] == names(database)
    assert NOTHING == shop.really()


def test_a_session_that_only_read_takes_nothing_along(shop: Shop) -> None:
    """However the test's reader ends, what requests committed meanwhile is there."""
    client = TestApp(shop.make_wsgi_app())
    for number, end in enumerate(("close", "rollback", "commit"), 1):
        session = shop.dbs["main"].get_session()
        session.scalar(ORDERS)
        client.post("/order", {"name": end})
        getattr(session, end)()
        session.close()
        assert str(number) == client.get("/count").text


def test_a_threaded_web_server(shop: Shop) -> None:
    """Each commit of four clients at once is there in both databases, and no failed order."""
    with shop.served() as port:

        def send(client: int) -> list[int]:
            answers = []
            for number in range(POSTS):
                connection = HTTPConnection("127.0.0.1", port, timeout=SECONDS)
                fails = "&fails=1" if number % 3 == 2 else ""
                connection.request("POST", f"/order?name={client}-{number}{fails}")
                answers.append(connection.getresponse().status)
                connection.close()
            return answers

        with shop.dbs["main"].session() as reader:
            assert 0 == reader.scalar(ORDERS)
            with ThreadPoolExecutor(CLIENTS) as pool:
                answers = list(pool.map(send, range(CLIENTS)))
        expected = [500 if number % 3 == 2 else 200 for number in range(POSTS)]
        assert [expected] * CLIENTS == answers
    placed = [f"{client}-{number}" for client in range(CLIENTS) for number in range(POSTS)]
    placed = [name for name in placed if int(name[-1]) % 3 != 2]
    for database in shop.dbs.values():
        assert placed == names(database)


@pytest.mark.parametrize("flushes", [False, True])
def test_a_task_inside_a_request(shop: Shop, flushes: bool) -> None:
    """An eager task commits for itself while the request has work, which it commits later."""
    shop.celery.conf.update(task_always_eager=True, task_eager_propagates=True)
    client = TestApp(shop.make_wsgi_app())
    more = {"flushes": "1"} if flushes else {}
    client.post("/pack", {"name": "order", "commits": "1", **more})
    assert ["order", "order packed"] == names(shop.dbs["main"])
    assert ["order packed"] == names(shop.dbs["audit"])


def test_a_task_inside_a_request_that_gives_up(shop: Shop) -> None:
    """A request that discards its work leaves what its task has committed."""
    shop.celery.conf.update(task_always_eager=True, task_eager_propagates=True)
    TestApp(shop.make_wsgi_app()).post("/pack", {"name": "order"})
    assert ["order packed"] == names(shop.dbs["main"])
    assert ["order packed"] == names(shop.dbs["audit"])


def test_a_task_inside_a_flush_that_is_discarded(shop: Shop) -> None:
    """What one connection cannot show is told: the task's commit goes with the request's work."""
    shop.celery.conf.update(task_always_eager=True, task_eager_propagates=True)
    client = TestApp(shop.make_wsgi_app())
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        client.post("/pack", {"name": "order", "flushes": "1"})
    assert 1 == len([one for one in told if one.category is SandboxWarning])
    assert [] == names(shop.dbs["main"])
    assert ["order packed"] == names(shop.dbs["audit"])


@each_server
def test_a_worker(shop: Shop) -> None:
    """Tasks of a worker in a thread share the test's databases; who fails leaves nothing."""
    with shop.dbs["main"].session() as reader, shop.worker("solo"):
        assert 0 == reader.scalar(ORDERS)
        sent = {
            number: shop.place_order.delay(f"{number:02}", fails=number % 3 == 2)
            for number in range(12)
        }
        for number, result in sent.items():
            if number % 3 == 2:
                with pytest.raises(LookupError, match="on purpose"):
                    result.get(timeout=SECONDS, interval=0.01)
            else:
                result.get(timeout=SECONDS, interval=0.01)
    expected = [f"{number:02}" for number in sent if number % 3 != 2]
    for database in shop.dbs.values():
        assert expected == names(database) == names(database, read_only=True)


@each_server
def test_a_worker_and_a_web_server_at_once(shop: Shop) -> None:
    """Requests send tasks to a worker with several threads, and answer when they are done."""
    with shop.worker("threads"), shop.served() as port:
        for number in range(3):
            connection = HTTPConnection("127.0.0.1", port, timeout=SECONDS)
            connection.request("POST", f"/pack?name={number}&commits=1")
            assert 200 == connection.getresponse().status
            connection.close()
    packed = [f"{number} packed" for number in range(3)]
    assert sorted([*packed, *"012"]) == names(shop.dbs["main"])
    assert packed == names(shop.dbs["audit"])


def test_one_database_is_rolled_back_and_the_other_committed(shop: Shop) -> None:
    """The transactions of two databases end each for itself, also in two threads."""

    def work() -> None:
        with shop.dbs["main"].session() as main, shop.dbs["audit"].session() as audit:
            main.add(Order(name="discarded"))
            audit.add(Event(name="kept"))
            main.flush()
            audit.commit()
            main.rollback()

    work()
    in_thread(work)()
    assert [] == names(shop.dbs["main"])
    assert ["kept", "kept"] == names(shop.dbs["audit"])


def test_the_sandbox_of_one_database_ends_first(
    fresh_url: Callable[[str], sa.URL],
) -> None:
    """Whoever leaves one database out of the sandbox has its commits for good, and knows it."""
    urls = {"main": fresh_url("sqlite"), "audit": fresh_url("sqlite")}
    with make_shop(urls) as shop:
        with sandbox(shop.dbs["main"]):
            with shop.dbs["main"].session() as main, shop.dbs["audit"].session() as audit:
                place(main, audit, "order")
        assert {"main": [], "audit": ["order"]} == shop.really()
