"""Subrequests and prepared requests: sessions of their own."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from pyramid.request import Request
from pyramid.response import Response
from pyramid.scripting import prepare
from pyramid.testing import DummyRequest

from qapla_db.errors import RequestEnded
from tests.web.conftest import MakeSite
from tests.web.site import NOTHING_OUT, Note, ok, pool_of, views, write

MakeSubrequest = Callable[[Any, str], Any]


def _blank(request: Any, path: str) -> Any:
    return Request.blank(path)


def _copy(request: Any, path: str) -> Any:
    copy = request.copy()
    copy.path_info = path
    return copy


def _read(request: Any) -> Response:
    count = request.main.scalar(sa.select(sa.func.count()).select_from(Note))
    return Response(str(count))


def _stream_what_the_view_opened(request: Any) -> Response:
    notes = request.main.scalars(sa.select(Note)).all()
    request.main.expire_all()
    return Response(app_iter=(note.text.encode() for note in notes))


def _stream_what_the_body_opens(request: Any) -> Response:
    def body() -> Iterator[bytes]:
        for note in request.main.scalars(sa.select(Note)):
            yield note.text.encode()

    return Response(app_iter=body())


@pytest.mark.parametrize("make", [_blank, _copy])
@pytest.mark.parametrize("kind", ["postgresql"])
def test_a_subrequest_leaves_the_outer_session_alone(
    make_site: MakeSite, make: MakeSubrequest
) -> None:
    """What the outer request wrote, unseen by the subrequest, can be committed after it."""

    def outer(request: Any) -> Response:
        write(request, "outer")
        response = request.invoke_subrequest(make(request, "/inner"))
        assert 1 == pool_of(site.dbs["main"])
        request.main.commit()
        return response

    site = make_site(views(outer=outer, inner=_read))
    assert "0" == site.client().get("/outer").text
    assert ["outer"] == site.stored()
    assert NOTHING_OUT == site.checked_out()


def test_a_subrequest_that_commits(make_site: MakeSite) -> None:
    """A subrequest commits in its own session, and the outer one has a connection of its own."""

    def inner(request: Any) -> Response:
        write(request, "inner")
        request.main.commit()
        return Response("ok")

    def outer(request: Any) -> Response:
        request.invoke_subrequest(Request.blank("/inner"), use_tweens=True)
        return Response(str(request.main.scalar(sa.select(sa.func.count()).select_from(Note))))

    site = make_site(views(outer=outer, inner=inner))
    assert "1" == site.client().get("/outer").text
    assert NOTHING_OUT == site.checked_out()


def test_a_subrequest_that_fails(make_site: MakeSite) -> None:
    """An outer view that catches the error of a subrequest goes on with its own session."""

    def inner(request: Any) -> Response:
        request.main.scalar(sa.select(1))
        raise LookupError

    def outer(request: Any) -> Response:
        with pytest.raises(LookupError):
            request.invoke_subrequest(Request.blank("/inner"))
        assert NOTHING_OUT == site.checked_out()
        write(request, "outer")
        request.main.commit()
        return Response("ok")

    site = make_site(views(outer=outer, inner=inner))
    site.client().get("/outer")
    assert ["outer"] == site.stored()


def test_many_subrequests_of_one_request(make_site: MakeSite) -> None:
    """Each subrequest gives its connection back at its end, not at the end of the page."""

    def outer(request: Any) -> Response:
        parts = [request.invoke_subrequest(Request.blank("/inner")).text for _ in range(20)]
        assert NOTHING_OUT == site.checked_out()
        return Response("".join(parts))

    site = make_site(views(outer=outer, inner=_read))
    assert "0" * 20 == site.client().get("/outer").text


@pytest.mark.parametrize("make", [_blank, _copy])
@pytest.mark.parametrize("inner", [_stream_what_the_view_opened, _stream_what_the_body_opens])
def test_the_stream_of_a_subrequest_read_by_its_caller(
    make_site: MakeSite, inner: Callable[[Any], Response], make: MakeSubrequest
) -> None:
    """A view that reads the streamed body of a subrequest gets all of it, and nothing leaks."""

    def outer(request: Any) -> Response:
        response = request.invoke_subrequest(make(request, "/inner"))
        return Response(response.body)

    site = make_site(views(outer=outer, inner=inner))
    with site.dbs["main"].transaction() as session:
        session.add(Note(text="streamed"))
    client = site.client()
    for _ in range(20):
        assert "streamed" == client.get("/outer").text
    assert NOTHING_OUT == site.checked_out()


def test_the_stream_of_a_subrequest_sent_as_the_answer(make_site: MakeSite) -> None:
    """A subrequest's streamed response, returned by the outer view, streams with its session."""

    def outer(request: Any) -> Response:
        return request.invoke_subrequest(Request.blank("/inner"))

    site = make_site(views(outer=outer, inner=_stream_what_the_view_opened))
    with site.dbs["main"].transaction() as session:
        session.add(Note(text="streamed"))
    assert "streamed" == site.client().get("/outer").text
    assert NOTHING_OUT == site.checked_out()


def test_a_subrequest_of_a_request_that_ends(make_site: MakeSite) -> None:
    """A subrequest made when a prepared request is at its end keeps no session, streamed or not."""

    def at_the_end(request: Any) -> None:
        router.invoke_subrequest(Request.blank("/stream"))

    site = make_site(views(stream=_stream_what_the_view_opened))
    router: Any = site.make_wsgi_app()
    gc.disable()  # it would hide a session that nobody closes
    try:
        with prepare(registry=router.registry) as env:
            env["request"].main.scalar(sa.select(1))
            env["request"].add_finished_callback(at_the_end)
        assert NOTHING_OUT == site.checked_out()
    finally:
        gc.enable()


def test_a_copied_request_has_its_own_session(make_site: MakeSite) -> None:
    """A copy made by hand and used by hand neither shares nor closes the session of the first."""

    def view(request: Any) -> Response:
        write(request, "outer")
        with prepare(request.copy()) as env:
            assert env["request"].main is not request.main
        request.main.commit()
        return Response("ok")

    site = make_site(views(home=view))
    site.client().get("/home")
    assert ["outer"] == site.stored()
    assert NOTHING_OUT == site.checked_out()


def test_a_prepared_request(make_site: MakeSite) -> None:
    """prepare() gives a request with sessions, and its end rolls back and closes them."""
    site = make_site(views(home=ok))
    registry = site.registry()
    with prepare(registry=registry) as env:
        write(env["request"], "kept")
        env["request"].main.commit()
        write(env["request"], "dropped")
        assert 1 == pool_of(site.dbs["main"])
    assert ["kept"] == site.stored()
    assert NOTHING_OUT == site.checked_out()
    with pytest.raises(RequestEnded):
        env["request"].audit  # noqa: B018


def test_a_dummy_request_takes_any_session(make_site: MakeSite) -> None:
    """A view called by hand with a DummyRequest works on the session that the test gives it."""
    site = make_site(views(home=_read))
    with site.dbs["main"].session() as session:
        request = DummyRequest(main=session)
        assert "0" == _read(request).text
