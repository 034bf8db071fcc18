"""One warning for a request that ends well and forgot to commit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pyramid.httpexceptions import HTTPFound, HTTPNotFound
from pyramid.request import Request
from pyramid.response import Response
from pyramid.scripting import prepare
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator, Unicode

from tests.web.conftest import MakeSite
from tests.web.site import Note, ok, views, write


def _warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "qapla_db"]


def _forgets(request: Any) -> Response:
    write(request)
    return Response("ok")


def test_a_missing_commit_is_logged_once(
    make_site: MakeSite, caplog: pytest.LogCaptureFixture
) -> None:
    """The warning names the request, its route, the database and the call that is missing."""
    make_site(views(home=_forgets)).client().post("/home")
    assert [
        "commit is missing: POST '/home' (route 'home') ended well, but the changes of its "
        "session of the database 'main' were never committed and are rolled back; call "
        "request.main.commit()"
    ] == _warnings(caplog)


def test_one_warning_a_database(make_site: MakeSite, caplog: pytest.LogCaptureFixture) -> None:
    """Each database with changes is named, one without is not."""

    def both(request: Any) -> Response:
        write(request, name="main")
        write(request, name="audit")
        return Response("ok")

    def one(request: Any) -> Response:
        write(request, name="main")
        write(request, name="audit")
        request.main.commit()
        return Response("ok")

    client = make_site(views(both=both, one=one)).client()
    client.get("/both")
    assert {"'main'", "'audit'"} == {_named(text) for text in _warnings(caplog)}
    assert 2 == len(_warnings(caplog))
    caplog.clear()
    client.get("/one")
    assert ["'audit'"] == [_named(text) for text in _warnings(caplog)]


def _named(text: str) -> str:
    return text.partition("of the database ")[2].partition(" ")[0]


def test_changes_that_were_not_even_flushed(
    make_site: MakeSite, caplog: pytest.LogCaptureFixture
) -> None:
    """An object that was added, or changed, and never flushed, is missed as well."""

    def added(request: Any) -> Response:
        request.main.add(Note(text="pending"))
        return Response("ok")

    def changed(request: Any) -> Response:
        request.main.get_one(Note, 1).text = "changed"
        return Response("ok")

    site = make_site(views(added=added, changed=changed))
    with site.dbs["main"].transaction() as session:
        session.add(Note(text="first"))
    for path in ("/added", "/changed"):
        site.client().get(path)
        assert 1 == len(_warnings(caplog)), path
        caplog.clear()


def _commits(request: Any) -> Response:
    write(request)
    request.main.commit()
    return Response("ok")


def _rolls_back(request: Any) -> Response:
    write(request)
    request.main.rollback()
    return Response("ok")


def _reads(request: Any) -> Response:
    request.main.get(Note, 1)
    return Response("ok")


def _returns_an_error(request: Any) -> Response:
    write(request)
    return Response("no", status=400)


def _raises_not_found(request: Any) -> Response:
    write(request)
    raise HTTPNotFound


def _answered_by_an_exception_view(request: Any) -> Response:
    write(request)
    raise LookupError


@pytest.mark.parametrize(
    "view",
    [
        ok,
        _commits,
        _rolls_back,
        _reads,
        _returns_an_error,
        _raises_not_found,
        _answered_by_an_exception_view,
    ],
)
def test_no_warning_where_no_commit_is_missing(
    make_site: MakeSite, caplog: pytest.LogCaptureFixture, view: Any
) -> None:
    """Silence for a request that committed, rolled back, only read, or did not end well."""

    def configure(config: Any) -> None:
        views(home=view)(config)
        config.add_exception_view(lambda error, request: Response("sorry"), context=LookupError)

    make_site(configure).client().get("/home", expect_errors=True)
    assert [] == _warnings(caplog)


@pytest.mark.parametrize("raised", [True, False])
def test_a_redirect_ends_well(
    make_site: MakeSite, caplog: pytest.LogCaptureFixture, raised: bool
) -> None:
    """The form that redirects and forgot to commit is warned about, also when it raises."""

    def view(request: Any) -> Response:
        write(request)
        if raised:
            raise HTTPFound("/elsewhere")
        return HTTPFound("/elsewhere")

    make_site(views(home=view)).client().get("/home", status=302)
    assert 1 == len(_warnings(caplog))


def test_a_streamed_body_is_judged_at_its_end(
    make_site: MakeSite, caplog: pytest.LogCaptureFixture
) -> None:
    """A body that commits at its end is not warned about; one that does not is."""

    def stream(commits: bool) -> Any:
        def view(request: Any) -> Response:
            write(request)

            def body() -> Iterator[bytes]:
                yield b"."
                if commits:
                    request.main.commit()

            return Response(app_iter=body())

        return view

    client = make_site(views(commits=stream(True), forgets=stream(False))).client()
    client.get("/commits")
    assert [] == _warnings(caplog)
    client.get("/forgets")
    assert 1 == len(_warnings(caplog))


def test_a_body_cut_short_is_not_judged(
    make_site: MakeSite, caplog: pytest.LogCaptureFixture
) -> None:
    """A client that hung up ended the request; that no commit came is no mistake."""

    def view(request: Any) -> Response:
        write(request)
        return Response(app_iter=iter([b"one", b"two"]))

    site = make_site(views(home=view))
    environ = dict(Request.blank("/home").environ)
    body: Any = site.make_wsgi_app()(environ, lambda status, headers: None)
    assert b"one" == next(body)
    body.close()
    assert [] == _warnings(caplog)


def test_a_subrequest_is_judged_by_its_own_end(
    make_site: MakeSite, caplog: pytest.LogCaptureFixture
) -> None:
    """A subrequest that forgot to commit is named, though the outer request did commit."""

    def outer(request: Any) -> Response:
        request.invoke_subrequest(Request.blank("/inner"))
        write(request)
        request.main.commit()
        return Response("ok")

    make_site(views(outer=outer, inner=_forgets)).client().get("/outer")
    (warning,) = _warnings(caplog)
    assert "(route 'inner')" in warning


def test_the_stream_of_a_subrequest_is_judged(
    make_site: MakeSite, caplog: pytest.LogCaptureFixture
) -> None:
    """A streamed subrequest that forgot to commit is named when its stream has been sent."""

    def inner(request: Any) -> Response:
        write(request)
        return Response(app_iter=iter([b"one"]))

    def outer(request: Any) -> Response:
        return request.invoke_subrequest(Request.blank("/inner"))

    make_site(views(outer=outer, inner=inner)).client().get("/outer")
    (warning,) = _warnings(caplog)
    assert "(route 'inner')" in warning


def test_a_view_without_a_route_is_named(
    make_site: MakeSite, caplog: pytest.LogCaptureFixture
) -> None:
    """Where traversal found the view, the warning names the view and the path."""

    def configure(config: Any) -> None:
        config.add_view(_forgets, name="edit")

    make_site(configure).client().get("/edit")
    (warning,) = _warnings(caplog)
    assert "GET '/edit' (view 'edit')" in warning


def test_a_prepared_request_is_not_judged(
    make_site: MakeSite, caplog: pytest.LogCaptureFixture
) -> None:
    """A script or a shell that ends without a commit is told nothing: it answered nobody."""
    site = make_site(views(home=ok))
    with prepare(registry=site.registry()) as env:
        write(env["request"])
    assert [] == _warnings(caplog)


class _Undecided(TypeDecorator[str]):
    """A type whose values refuse to be compared, as arrays do."""

    impl = Unicode
    cache_ok = True

    def compare_values(self, x: Any, y: Any) -> bool:
        raise ValueError("ambiguous")


class _OddBase(DeclarativeBase):
    pass


class Odd(_OddBase):
    __tablename__ = "odd"

    id: Mapped[int] = mapped_column(primary_key=True)
    value: Mapped[str] = mapped_column(_Undecided)


def test_a_question_that_cannot_be_answered_harms_nobody(
    make_site: MakeSite, caplog: pytest.LogCaptureFixture
) -> None:
    """A value that cannot be compared does not turn a good answer into an error."""

    def view(request: Any) -> Response:
        odd = Odd(value="a")
        request.main.add(odd)
        request.main.commit()
        assert "a" == odd.value
        odd.value = "b"
        return Response("ok")

    site = make_site(views(home=view))
    engine = site.dbs["main"].engine
    _OddBase.metadata.create_all(engine)
    try:
        assert "ok" == site.client().get("/home").text
        assert ["whether a commit is missing cannot be told"] == _warnings(caplog)
    finally:
        _OddBase.metadata.drop_all(engine)
