"""request.<name>: one session a request, closed whatever happens."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from pyramid.httpexceptions import HTTPFound, HTTPNotFound
from pyramid.response import Response

from qapla_db.errors import RequestEnded
from tests.web.conftest import MakeSite
from tests.web.site import NOTHING_OUT, Note, Site, ok, pool_of, views, write


class Boom(Exception):
    """What the views of these tests raise."""


def test_what_is_committed_is_stored(make_site: MakeSite) -> None:
    """A view writes through request.main, commits, and the row is there afterwards."""

    def view(request: Any) -> Response:
        write(request)
        request.main.commit()
        return Response("ok")

    site = make_site(views(home=view))
    assert "ok" == site.client().get("/home").text
    assert ["written"] == site.stored()
    assert NOTHING_OUT == site.checked_out()


def test_what_is_not_committed_is_rolled_back(make_site: MakeSite) -> None:
    """A request that ends without a commit stores nothing and keeps no connection."""

    def view(request: Any) -> Response:
        write(request)
        return Response("ok")

    site = make_site(views(home=view))
    site.client().get("/home")
    assert [] == site.stored()
    assert NOTHING_OUT == site.checked_out()


def test_one_session_a_request_and_database(make_site: MakeSite) -> None:
    """Within a request main is always the same session; the next request has another one."""
    seen: list[Any] = []

    def view(request: Any) -> Response:
        assert request.main is request.main
        assert request.main is not request.audit
        assert ("main", "audit") == (request.main.database_name, request.audit.database_name)
        seen.append(request.main)
        return Response("ok")

    client = make_site(views(home=view)).client()
    client.get("/home")
    client.get("/home")
    assert seen[0] is not seen[1]


def test_a_request_that_needs_no_database_opens_none(make_site: MakeSite) -> None:
    """Without an access to request.main no connection is taken, not even for a moment."""
    site = make_site(views(home=ok))
    taken: list[object] = []
    sa.event.listen(site.dbs["main"].engine, "checkout", lambda *about: taken.append(about))
    site.client().get("/home")
    assert [] == taken


def test_two_databases_are_apart(make_site: MakeSite) -> None:
    """What is committed in one database is stored, what is not in the other is rolled back."""

    def view(request: Any) -> Response:
        write(request, "kept", "main")
        write(request, "dropped", "audit")
        request.main.commit()
        return Response("ok")

    site = make_site(views(home=view))
    site.client().get("/home")
    assert (["kept"], []) == (site.stored("main"), site.stored("audit"))
    assert NOTHING_OUT == site.checked_out()


def _raise(request: Any) -> Response:
    write(request)
    raise Boom


def _exit(request: Any) -> Response:
    write(request)
    raise SystemExit(3)


def _callback_raises(request: Any) -> Response:
    write(request)

    def callback(request: Any, response: Any) -> None:
        raise Boom

    request.add_response_callback(callback)
    return Response("ok")


def _finished_callback_raises(request: Any) -> Response:
    def callback(request: Any) -> None:
        raise Boom

    request.add_finished_callback(callback)
    write(request)
    return Response("ok")


@pytest.mark.parametrize(
    ("view", "error"),
    [
        (_raise, Boom),
        (_exit, SystemExit),
        (_callback_raises, Boom),
        (_finished_callback_raises, Boom),
    ],
)
def test_whatever_is_raised_the_session_is_closed(
    make_site: MakeSite, view: Callable[[Any], Response], error: type[BaseException]
) -> None:
    """The error reaches the server unchanged; nothing is stored and nothing stays open."""
    site = make_site(views(home=view))
    with pytest.raises(error):
        site.client().get("/home")
    assert NOTHING_OUT == site.checked_out()
    assert [] == site.stored()


def test_a_renderer_that_fails(make_site: MakeSite) -> None:
    """An error in the renderer comes after the view; its session is closed all the same."""

    def view(request: Any) -> dict[str, object]:
        write(request)
        return {"not json": object()}

    def configure(config: Any) -> None:
        config.add_route("home", "/home")
        config.add_view(view, route_name="home", renderer="json")

    site = make_site(configure)
    with pytest.raises(TypeError):
        site.client().get("/home")
    assert NOTHING_OUT == site.checked_out()
    assert [] == site.stored()


def test_an_exception_view_uses_the_same_session(make_site: MakeSite) -> None:
    """An exception view may read and write through the session of the failed view."""

    def failing(request: Any) -> Response:
        write(request, "before the error")
        raise Boom

    def answer(error: Boom, request: Any) -> Response:
        request.main.rollback()
        write(request, "the error was noted")
        request.main.commit()
        return Response("sorry", status=500)

    def configure(config: Any) -> None:
        views(home=failing)(config)
        config.add_exception_view(answer, context=Boom)

    site = make_site(configure)
    assert "sorry" == site.client().get("/home", status=500).text
    assert ["the error was noted"] == site.stored()
    assert NOTHING_OUT == site.checked_out()


@pytest.mark.parametrize("error", [HTTPFound("/elsewhere"), HTTPNotFound()])
@pytest.mark.parametrize("raised", [True, False])
def test_http_exceptions_raised_and_returned(make_site: MakeSite, error: Any, raised: bool) -> None:
    """A redirect or a 404 neither commits nor undoes: it keeps what the view committed."""

    def view(request: Any) -> Response:
        write(request, "kept")
        request.main.commit()
        write(request, "dropped")
        if raised:
            raise error
        return error

    site = make_site(views(home=view))
    response = site.client().get("/home", expect_errors=True)
    assert error.status_code == response.status_code
    assert ["kept"] == site.stored()
    assert NOTHING_OUT == site.checked_out()


def test_callbacks_may_use_the_session(make_site: MakeSite) -> None:
    """Response callbacks and finished callbacks still have the session of the request."""

    def view(request: Any) -> Response:
        def in_response(request: Any, response: Any) -> None:
            write(request, "in a response callback")

        def at_the_end(request: Any) -> None:
            write(request, "in a finished callback")
            request.main.commit()

        request.add_response_callback(in_response)
        request.add_finished_callback(at_the_end)
        return Response("ok")

    site = make_site(views(home=view))
    site.client().get("/home")
    assert ["in a response callback", "in a finished callback"] == site.stored()
    assert NOTHING_OUT == site.checked_out()


def test_a_tween_may_open_the_session(make_site: MakeSite) -> None:
    """A session first used by a tween, above all views, is closed like any other."""

    def configure(config: Any) -> None:
        views(home=ok)(config)
        config.add_tween("tests.web.test_request.writing_tween")

    site = make_site(configure)
    site.client().get("/home")
    assert ["by a tween"] == site.stored()
    assert NOTHING_OUT == site.checked_out()


def writing_tween(handler: Any, registry: Any) -> Any:
    def tween(request: Any) -> Any:
        response = handler(request)
        write(request, "by a tween")
        request.main.commit()
        return response

    return tween


def test_a_session_is_not_opened_after_its_request(make_site: MakeSite) -> None:
    """A request kept beyond its end says so, instead of opening what nobody would close."""
    kept: list[Any] = []

    def view(request: Any) -> Response:
        kept.append(request)
        return Response("ok")

    site = make_site(views(home=view))
    site.client().get("/home")
    with pytest.raises(RequestEnded, match=r"request\.main was first used after"):
        kept[0].main  # noqa: B018
    assert NOTHING_OUT == site.checked_out()


def test_a_session_kept_beyond_its_request_is_of_no_use(make_site: MakeSite) -> None:
    """A session that a view hands to somebody else cannot take a connection later."""
    kept: list[Any] = []

    def view(request: Any) -> Response:
        kept.append(request.main)
        return Response("ok")

    site = make_site(views(home=view))
    site.client().get("/home")
    with pytest.raises(sa.exc.InvalidRequestError):
        kept[0].execute(sa.select(Note))
    assert NOTHING_OUT == site.checked_out()


def test_a_session_does_not_wait_for_the_garbage_collector(make_site: MakeSite) -> None:
    """A session goes away with its request, at once."""
    seen: list[weakref.ref[Any]] = []

    def view(request: Any) -> Response:
        request.main.scalar(sa.select(1))
        seen.append(weakref.ref(request.main))
        return Response("ok")

    client = make_site(views(home=view)).client()
    gc.disable()
    try:
        client.get("/home")
        assert [None] == [reference() for reference in seen]
    finally:
        gc.enable()


def test_an_interrupted_end_closes_the_others(make_site: MakeSite) -> None:
    """A Ctrl-C in the rollback of one session still closes the session of the other database."""

    def view(request: Any) -> Response:
        write(request, name="main")
        write(request, name="audit")
        return Response("ok")

    def interrupt(connection: sa.Connection) -> None:
        raise KeyboardInterrupt

    site = make_site(views(home=view))
    sa.event.listen(site.dbs["audit"].engine, "rollback", interrupt)
    with pytest.raises(KeyboardInterrupt):
        site.client().get("/home")
    assert NOTHING_OUT == site.checked_out()


def test_many_failing_requests_do_not_empty_the_pool(make_site: MakeSite) -> None:
    """Sixty requests that fail in the middle of a transaction leave a pool of five intact."""

    def after(request: Any) -> Response:
        return Response(str(request.main.scalar(sa.select(sa.func.count()).select_from(Note))))

    site = make_site(views(home=_raise, after=after))
    client = site.client()
    for _ in range(60):
        with pytest.raises(Boom):
            client.get("/home")
    assert "0" == client.get("/after").text


def test_an_application_inside_another(make_site: MakeSite) -> None:
    """Two applications on one environ each close their own sessions, and only these."""
    inner = make_site(views(inner=_commit_inner))
    application = inner.make_wsgi_app()

    def view(request: Any) -> Response:
        session = request.main
        assert not session.in_transaction()
        response = request.get_response(application)
        assert session is request.main
        assert 1 == session.scalar(sa.select(sa.func.count()).select_from(Note))
        return response

    def configure(config: Any) -> None:
        config.add_route("inner", "/inner")
        config.add_view(view, route_name="inner")

    outer = make_site(configure)
    assert "inner" == outer.client().get("/inner").text
    assert 0 == pool_of(outer.dbs["main"])
    assert NOTHING_OUT == inner.checked_out()


def test_an_application_that_calls_itself(make_site: MakeSite) -> None:
    """A view that answers with another page of its own application keeps its sessions."""

    def outer(request: Any) -> Response:
        write(request, "outer")
        request.path_info = "/inner"
        text = request.get_response(site.make_wsgi_app()).text
        write(request, f"outer after {text}", "audit")
        request.main.commit()
        request.audit.commit()
        return Response("ok")

    site = make_site(views(outer=outer, inner=ok))
    site.client().get("/outer")
    assert (["outer"], ["outer after ok"]) == (site.stored("main"), site.stored("audit"))
    assert NOTHING_OUT == site.checked_out()


def _commit_inner(request: Any) -> Response:
    write(request)
    request.main.commit()
    return Response("inner")


def test_sites_are_typed(make_site: MakeSite) -> None:
    """The application is what its views find behind the registry."""
    found: list[Any] = []

    def view(request: Any) -> Response:
        found.append(request.registry["qapla_db"])
        return Response("ok")

    site = make_site(views(home=view))
    site.client().get("/home")
    assert [site] == found
    assert isinstance(found[0], Site)
    assert site.dbs["main"] is found[0].dbs["main"]
