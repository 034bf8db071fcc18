"""Streamed bodies: the session lives until the body has been sent, and no longer."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from wsgiref.util import FileWrapper

import pytest
import sqlalchemy as sa
from pyramid.response import FileIter, FileResponse, Response

from tests.support import wait_until
from tests.web.conftest import MakeSite
from tests.web.site import NOTHING_OUT, Note, Site, pool_of, served, views, write

CHUNK = b"x" * 10_000


def _seed(site: Site, count: int = 3) -> None:
    with site.dbs["main"].transaction() as session:
        session.add_all([Note(text=f"note {number}") for number in range(count)])


def _texts(session: Any) -> Iterator[bytes]:
    for note in session.scalars(sa.select(Note).order_by(Note.id)):
        yield note.text.encode() + b"\n"


class _File:
    """A file-like object that reads from the database when it is read."""

    def __init__(self, request: Any) -> None:
        self.chunks = _texts(request.main)
        self.closed = False

    def read(self, size: int = -1) -> bytes:
        return next(self.chunks, b"")

    def close(self) -> None:
        self.closed = True


class _Iterable:
    """A body that is neither a list nor a generator, and knows its length."""

    def __init__(self, request: Any) -> None:
        self.request = request

    def __len__(self) -> int:
        return 3

    def __iter__(self) -> Iterator[bytes]:
        return _texts(self.request.main)


def _opened_by_the_view(request: Any) -> Response:
    notes = request.main.scalars(sa.select(Note).order_by(Note.id)).all()
    request.main.expire_all()  # each note is loaded again while the body is sent
    return Response(app_iter=(note.text.encode() + b"\n" for note in notes))


def _opened_by_the_body(request: Any) -> Response:
    def body() -> Iterator[bytes]:
        yield from _texts(request.main)

    return Response(app_iter=body())


def _file_like(request: Any) -> Response:
    return Response(app_iter=FileIter(_File(request)))


def _file_like_of_the_server(request: Any) -> Response:
    file: Any = _File(request)
    return Response(app_iter=FileWrapper(file))


def _iterable(request: Any) -> Response:
    return Response(app_iter=_Iterable(request))


STREAMS = [
    _opened_by_the_view,
    _opened_by_the_body,
    _file_like,
    _file_like_of_the_server,
    _iterable,
]


@pytest.mark.parametrize("view", STREAMS)
def test_a_streamed_body_uses_the_session(
    make_site: MakeSite, view: Callable[[Any], Response]
) -> None:
    """Whoever opened the session, the body reads from it to its end, and then it is closed."""
    site = make_site(views(home=view))
    _seed(site)
    client = site.client()
    for _ in range(20):  # more than the pool holds: a leak would show as a time-out
        assert "note 0\nnote 1\nnote 2\n" == client.get("/home").text
    assert NOTHING_OUT == site.checked_out()


@pytest.mark.parametrize("view", STREAMS)
def test_a_head_request_reads_no_body(make_site: MakeSite, view: Callable[[Any], Response]) -> None:
    """HEAD sends no body of a streamed response, and the session is closed all the same."""
    site = make_site(views(home=view))
    _seed(site)
    client = site.client()
    for _ in range(20):
        assert "" == client.head("/home").text
    assert NOTHING_OUT == site.checked_out()


def test_a_body_may_commit(make_site: MakeSite) -> None:
    """A body that writes and commits while it is sent has stored what it wrote."""

    def view(request: Any) -> Response:
        def body() -> Iterator[bytes]:
            for number in range(3):
                write(request, f"line {number}")
                request.main.commit()
                yield b"."
            write(request, "never committed")

        return Response(app_iter=body())

    site = make_site(views(home=view))
    assert "..." == site.client().get("/home").text
    assert ["line 0", "line 1", "line 2"] == site.stored()


def test_a_body_that_fails(make_site: MakeSite) -> None:
    """An error in the middle of the body rolls back and closes; the error reaches the server."""

    def view(request: Any) -> Response:
        def body() -> Iterator[bytes]:
            write(request)
            yield b"."
            raise LookupError("in the body")

        return Response(app_iter=body())

    site = make_site(views(home=view))
    answer: Any = site.make_wsgi_app()(_environ("/home"), lambda status, headers: None)
    assert b"." == next(answer)
    with pytest.raises(LookupError, match="in the body"):
        next(answer)
    assert NOTHING_OUT == site.checked_out()
    with pytest.raises(LookupError, match="in the body"):
        site.client().get("/home")
    assert [] == site.stored()
    assert NOTHING_OUT == site.checked_out()


def test_closing_a_body_that_fails_to_close(make_site: MakeSite) -> None:
    """A body whose close() raises does not keep the session."""

    class Body(_Iterable):
        def close(self) -> None:
            raise LookupError("in close")

    def view(request: Any) -> Response:
        return Response(app_iter=Body(request))

    site = make_site(views(home=view))
    with pytest.raises(LookupError, match="in close"):
        site.client().get("/home")
    assert NOTHING_OUT == site.checked_out()


def test_the_session_is_there_when_the_body_is_closed(make_site: MakeSite) -> None:
    """A body may use the session in its close(), before the session is closed."""

    class Body(_Iterable):
        def close(self) -> None:
            write(self.request, "at the end")
            self.request.main.commit()

    def view(request: Any) -> Response:
        return Response(app_iter=Body(request))

    site = make_site(views(home=view))
    site.client().get("/home")
    assert ["at the end"] == site.stored()


def test_a_body_that_nobody_reads_is_closed(make_site: MakeSite) -> None:
    """A server that closes the body at once, or after one chunk, ends the session with it."""
    site = make_site(views(home=_opened_by_the_view, lazy=_opened_by_the_body))
    _seed(site)
    application = site.make_wsgi_app()
    for path in ("/home", "/lazy"):
        for chunks in (0, 1):
            body: Any = application(_environ(path), lambda status, headers: None)
            for _ in range(chunks):
                next(body)
            body.close()
            body.close()
            assert NOTHING_OUT == site.checked_out()


def test_a_start_that_fails(make_site: MakeSite) -> None:
    """A server that refuses the headers never gets a body; the session is closed even so."""

    def refuse(status: str, headers: list[tuple[str, str]]) -> None:
        raise ValueError("refused")

    site = make_site(views(home=_opened_by_the_view))
    _seed(site)
    with pytest.raises(ValueError, match="refused"):
        site.make_wsgi_app()(_environ("/home"), refuse)
    assert NOTHING_OUT == site.checked_out()


def test_the_length_of_a_body_is_kept(make_site: MakeSite) -> None:
    """A server sees how many chunks a body has, and a declared Content-Length stays."""

    def declared(request: Any) -> Response:
        response = _opened_by_the_view(request)
        response.content_length = 21
        return response

    site = make_site(views(sized=_iterable, declared=declared))
    _seed(site)
    body: Any = site.make_wsgi_app()(_environ("/sized"), lambda status, headers: None)
    assert 3 == len(body)
    body.close()
    assert "21" == site.client().get("/declared").headers["Content-Length"]


def test_a_range_of_a_streamed_body(make_site: MakeSite) -> None:
    """A conditional response sends a range of the stream, or 304 and nothing of it."""

    def view(request: Any) -> Response:
        response = _opened_by_the_view(request)
        response.conditional_response = True
        response.content_length = 21
        response.etag = "same"
        return response

    site = make_site(views(home=view))
    _seed(site)
    client = site.client()
    part = client.get("/home", headers={"Range": "bytes=7-12"}, status=206)
    assert "note 1" == part.text
    client.get("/home", headers={"If-None-Match": '"same"'}, status=304)
    assert NOTHING_OUT == site.checked_out()


def test_a_file_is_left_to_the_server(make_site: MakeSite, tmp_path: Path) -> None:
    """A file on disk is given to the server as it is, and its download holds no connection."""
    path = tmp_path / "file.txt"
    path.write_text("from a file")

    def view(request: Any) -> Response:
        request.main.scalar(sa.select(1))
        return FileResponse(str(path), request)

    def temporary(request: Any) -> Response:
        request.main.scalar(sa.select(1))
        file = tempfile.TemporaryFile()  # noqa: SIM115  the server closes it
        file.write(b"from a file")
        file.seek(0)
        return Response(app_iter=request.environ["wsgi.file_wrapper"](file))

    site = make_site(views(home=view, temporary=temporary))
    cases = [("/home", FileWrapper), ("/temporary", FileWrapper), ("/home", FileIter)]
    for url, expected in cases:
        environ = _environ(url)
        if expected is FileWrapper:
            environ["wsgi.file_wrapper"] = FileWrapper
        body: Any = site.make_wsgi_app()(environ, lambda status, headers: None)
        assert expected is type(body)
        assert NOTHING_OUT == site.checked_out()
        assert [b"from a file"] == list(body)
        body.close()


def test_a_client_that_goes_away(make_site: MakeSite) -> None:
    """A client that hangs up in the middle of an endless body ends the session with it."""

    def view(request: Any) -> Response:
        def body() -> Iterator[bytes]:
            while True:
                request.main.scalar(sa.select(1))
                yield CHUNK

        return Response(app_iter=body())

    site = make_site(views(home=view))
    database = site.dbs["main"]
    with served(site.make_wsgi_app()) as port:
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
                client.sendall(b"GET /home HTTP/1.1\r\nHost: here\r\n\r\n")
                assert client.recv(len(CHUNK))
                assert 1 == pool_of(database)
            wait_until(lambda: pool_of(database) == 0, "the session of the client is closed")


def test_a_stream_through_a_real_server(make_site: MakeSite) -> None:
    """Over HTTP, a stream arrives whole and a file wrapper of the server works."""

    def file(request: Any) -> Response:
        request.main.scalar(sa.select(1))
        return FileResponse(__file__, request)

    site = make_site(views(home=_opened_by_the_body, file=file))
    _seed(site)
    with served(site.make_wsgi_app()) as port:
        assert _get(port, "/home").endswith(b"note 0\nnote 1\nnote 2\n")
        assert _get(port, "/file").endswith(Path(__file__).read_bytes())
        wait_until(lambda: site.checked_out() == NOTHING_OUT, "every connection is back")


def _get(port: int, path: str) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        answer = b""
        while chunk := client.recv(65_536):
            answer += chunk
    return answer


def _environ(path: str) -> dict[str, Any]:
    from webob import Request

    return dict(Request.blank(path).environ)
