"""Bodies that are still to be sent when the request has been handled."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar

from pyramid.response import FileIter
from webob.static import FileIter as WebObFileIter

__all__ = ["StreamedResponse", "is_file", "sent_by"]

T = TypeVar("T")


class Owner(Protocol):
    """What a request keeps until its body has been sent."""

    def end(self, response: Any) -> None:
        """End the request.

        :param response: what was sent; None when that did not end well.
        """


_sending: ContextVar[Owner | None] = ContextVar("qapla_db_sending", default=None)


def sent_by() -> Owner | None:
    """Return the owner of the body that is made right now, further up in this very call."""
    return _sending.get()


def is_file(body: object, environ: Mapping[str, Any]) -> bool:
    """Tell whether a body is a file of the system: reading it uses no session.

    It stays as it is, so that the server can send it in its own way
    (``wsgi.file_wrapper``), and a slow download holds no connection.
    """
    if isinstance(body, (FileIter, WebObFileIter)) or type(body) is environ.get(
        "wsgi.file_wrapper"
    ):
        body = getattr(body, "file", None) or getattr(body, "filelike", None)
    fileno = getattr(body, "fileno", None)
    try:
        return fileno is not None and fileno() >= 0
    except (OSError, ValueError):
        return False  # a file in memory, or one of the application's own making


class StreamedResponse:
    """A response whose body may use the sessions while it is sent.

    :param response: the response of the application.
    :param owner: is ended when the body has been sent.
    """

    def __init__(self, response: Any, owner: Owner) -> None:
        self._response = response
        self._owner = owner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._response, name)

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        try:
            return _sent(self._owner, lambda: self._body(environ, start_response))
        except BaseException:
            self._owner.end(None)
            raise

    def _body(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> _Body:
        body = self._response(environ, start_response)
        kind = _SizedBody if hasattr(body, "__len__") else _Body
        return kind(body, self._response, self._owner)


def _sent(owner: Owner, work: Callable[[], T]) -> T:
    """Do a piece of the sending of a body, and let what it calls know whose body that is.

    A generator's context is that of its caller, so this is done piece by piece.
    """
    token = _sending.set(owner)
    try:
        return work()
    finally:
        _sending.reset(token)


class _Body:
    """A body that ends the request when it is sent, fails or is closed by the server."""

    def __init__(self, body: Iterable[bytes], response: Any, owner: Owner) -> None:
        self._body: Iterable[bytes] | None = body
        self._next = iter(body).__next__
        self._response = response
        self._owner = owner

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            return _sent(self._owner, self._next)
        except StopIteration:
            self._finish(self._response)
            raise
        except BaseException:
            self._finish(None)
            raise

    def close(self) -> None:
        """Called by the server, also when the client has gone away."""
        self._finish(None)

    def _finish(self, response: Any) -> None:
        body, self._body = self._body, None
        if body is None:
            return
        try:
            close = getattr(body, "close", None)
            if close is not None:
                _sent(self._owner, close)
        except BaseException:
            self._owner.end(None)
            raise
        self._owner.end(response)


class _SizedBody(_Body):
    """A body that tells how many chunks it has, as its server may want to know."""

    def __init__(self, body: Any, response: Any, owner: Owner) -> None:
        super().__init__(body, response, owner)
        self._length = len(body)

    def __len__(self) -> int:
        return self._length
