"""Bodies that are still to be sent when the request has been handled."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from pyramid.response import FileIter
from webob.static import FileIter as WebObFileIter

__all__ = ["StreamedResponse", "is_file"]

End = Callable[[Any], None]


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
    :param end: called once, with the response when its body has been sent, or
        with None when that did not end well.
    """

    def __init__(self, response: Any, end: End) -> None:
        self._response = response
        self._end = end

    def __getattr__(self, name: str) -> Any:
        return getattr(self._response, name)

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        try:
            body: Iterable[bytes] = self._response(environ, start_response)
            kind = _SizedBody if hasattr(body, "__len__") else _Body
            return kind(body, self._response, self._end)
        except BaseException:
            self._end(None)
            raise


class _Body:
    """A body that ends the request when it is sent, fails or is closed by the server."""

    def __init__(self, body: Iterable[bytes], response: Any, end: End) -> None:
        self._body: Iterable[bytes] | None = body
        self._chunks = iter(body)
        self._response = response
        self._end = end

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._chunks)
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
                close()
        except BaseException:
            self._end(None)
            raise
        self._end(response)


class _SizedBody(_Body):
    """A body that tells how many chunks it has, as its server may want to know."""

    def __init__(self, body: Any, response: Any, end: End) -> None:
        super().__init__(body, response, end)
        self._length = len(body)

    def __len__(self) -> int:
        return self._length
