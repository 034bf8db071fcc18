"""Subrequests whose body uses a session for the first time when the outer request sends it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from pyramid.request import Request
from pyramid.response import Response

from qapla_db.errors import RequestEnded
from tests.web.conftest import MakeSite
from tests.web.site import NOTHING_OUT, Note, Site, views, write

MakeSubrequest = Callable[[Any], Any]


def _blank(request: Any) -> Any:
    return Request.blank("/inner")


def _copy(request: Any) -> Any:
    copy = request.copy()
    copy.path_info = "/inner"
    return copy


def _inner(request: Any) -> Response:
    def body() -> Iterator[bytes]:
        for note in request.main.scalars(sa.select(Note).order_by(Note.id)):
            yield note.text.encode()
        yield str(request.audit.scalar(sa.select(1))).encode()

    return Response(app_iter=body())


def _outer(request: Any) -> Response:
    return request.invoke_subrequest(_blank(request))


def _seed(site: Site) -> None:
    with site.dbs["main"].transaction() as session:
        session.add_all([Note(text="a"), Note(text="b")])


def _begin(site: Site, path: str = "/outer") -> Any:
    """Ask as a server does; the result is the body, not yet read."""
    application: Any = site.make_wsgi_app()
    return application(Request.blank(path).environ, lambda *args: None)


@pytest.mark.parametrize("kind", ["postgresql"])  # SQLite has one writer
@pytest.mark.parametrize("make", [_blank, _copy])
@pytest.mark.parametrize("used_before", [False, True])
@pytest.mark.parametrize("wrapped", [False, True])
def test_sent_as_the_answer(
    make_site: MakeSite, make: MakeSubrequest, used_before: bool, wrapped: bool
) -> None:
    """The outer answer is the inner body, which has sessions until all of it is sent."""

    def outer(request: Any) -> Response:
        if used_before:
            request.main.scalar(sa.select(1))
        response = request.invoke_subrequest(make(request))
        if wrapped:
            return Response(app_iter=(b"<" + chunk + b">" for chunk in response.app_iter))
        return response

    site = make_site(views(outer=outer, inner=_inner))
    _seed(site)
    client = site.client()
    for _ in range(20):  # more than the pool holds
        assert ("<a><b><1>" if wrapped else "ab1") == client.get("/outer").text
    assert NOTHING_OUT == site.checked_out()


def test_a_client_that_goes_away(make_site: MakeSite) -> None:
    """The session stays open between the chunks, and not beyond the close of the outer body."""
    site = make_site(views(outer=_outer, inner=_inner))
    _seed(site)
    body = _begin(site)
    assert NOTHING_OUT == site.checked_out()
    assert b"a" == next(body)
    assert {"main": 1, "audit": 0} == site.checked_out()
    body.close()
    assert NOTHING_OUT == site.checked_out()


@pytest.mark.parametrize("kind", ["postgresql"])  # SQLite has one writer
def test_answers_that_are_sent_in_turns(make_site: MakeSite) -> None:
    """Two answers that one thread sends in turns have sessions of their own, each to its end."""
    site = make_site(views(outer=_outer, inner=_inner))
    _seed(site)
    first, second = _begin(site), _begin(site)
    assert b"aab" == next(first) + next(second) + next(first)
    assert {"main": 2, "audit": 0} == site.checked_out()
    first.close()
    assert {"main": 1, "audit": 0} == site.checked_out()
    assert [b"b", b"1"] == list(second)
    assert NOTHING_OUT == site.checked_out()


def test_a_body_that_fails(make_site: MakeSite) -> None:
    """An error in the inner body comes out, and its session is rolled back and closed."""

    def inner(request: Any) -> Response:
        def body() -> Iterator[bytes]:
            write(request)
            yield b"a"
            raise LookupError("on purpose")

        return Response(app_iter=body())

    site = make_site(views(outer=_outer, inner=inner))
    body = _begin(site)
    assert b"a" == next(body)
    with pytest.raises(LookupError, match="on purpose"):
        next(body)
    assert NOTHING_OUT == site.checked_out()
    assert [] == site.stored()


@pytest.mark.parametrize("commits", [True, False])
def test_a_body_that_writes(
    make_site: MakeSite, caplog: pytest.LogCaptureFixture, commits: bool
) -> None:
    """The inner body may commit what it writes; where it forgets to, a warning names its route."""

    def inner(request: Any) -> Response:
        def body() -> Iterator[bytes]:
            write(request)
            if commits:
                request.main.commit()
            yield b"done"

        return Response(app_iter=body())

    site = make_site(views(outer=_outer, inner=inner))
    assert "done" == site.client().get("/outer").text
    assert (["written"] if commits else []) == site.stored()
    warned = [one.getMessage() for one in caplog.records if one.name == "qapla_db"]
    assert ([] if commits else ["commit is missing: GET '/inner' (route 'inner')"]) == [
        text.partition(" ended well")[0] for text in warned
    ]


class _AtBothEnds:
    """A body that asks for a session when it is begun, and for another when it is closed."""

    def __init__(self, request: Any) -> None:
        self.request = request

    def __iter__(self) -> Iterator[bytes]:
        return iter([str(self.request.main.scalar(sa.select(1))).encode()])

    def close(self) -> None:
        write(self.request, "closed", "audit")
        self.request.audit.commit()


def test_before_and_after_the_chunks(make_site: MakeSite) -> None:
    """A body may ask for its sessions when it is begun and closed as well."""

    def inner(request: Any) -> Response:
        return Response(app_iter=_AtBothEnds(request))

    site = make_site(views(outer=_outer, inner=inner))
    assert "1" == site.client().get("/outer").text
    assert ["closed"] == site.stored("audit")
    assert NOTHING_OUT == site.checked_out()


@pytest.mark.parametrize("kind", ["postgresql"])  # SQLite has one writer
def test_a_body_that_makes_subrequests(make_site: MakeSite) -> None:
    """A body that consists of the streamed bodies of subrequests is sent whole."""

    def outer(request: Any) -> Response:
        def body() -> Iterator[bytes]:
            for _ in range(2):
                yield from request.invoke_subrequest(_blank(request)).app_iter

        return Response(app_iter=body())

    site = make_site(views(outer=outer, inner=_inner))
    _seed(site)
    assert "ab1ab1" == site.client().get("/outer").text
    assert NOTHING_OUT == site.checked_out()


def test_a_body_that_is_read_after_the_answer(make_site: MakeSite) -> None:
    """Who keeps the inner response and reads it when all is over gets no session of anybody."""
    kept: list[Response] = []

    def outer(request: Any) -> Response:
        kept.append(request.invoke_subrequest(_blank(request)))
        return Response(app_iter=iter([b"over"]))

    site = make_site(views(outer=outer, inner=_inner))
    assert "over" == site.client().get("/outer").text
    other = _begin(site)
    assert b"over" == next(other)
    with pytest.raises(RequestEnded):
        next(iter(kept[0].app_iter))
    other.close()
    assert NOTHING_OUT == site.checked_out()
