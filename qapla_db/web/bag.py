"""Who closes the sessions of a request, and when.

Pyramid's finished callbacks run before a streamed body is sent, and one that
raises skips the rest; so they cannot own a session. The execution policy can:
it sees every request begin, every attempt of a retry, every error and the
response. It puts a bag into the WSGI environ, ``request.<name>`` puts its
session into the bag, and the bag is closed when the body has been sent.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from pyramid.httpexceptions import HTTPException
from pyramid.response import FileIter
from pyramid.threadlocal import manager
from webob.static import FileIter as WebObFileIter

from qapla_db.database import Database
from qapla_db.errors import RequestEnded
from qapla_db.session import Session

__all__ = ["make_policy", "open_session"]

log = logging.getLogger("qapla_db")

KEY = "qapla_db.sessions"  # of the bag in the environ

Environ = dict[str, Any]
Policy = Callable[[Environ, Any], Any]


class Bag:
    """The open sessions of one request, and of the subrequests that stream into it.

    :param environ: the WSGI environ of the request.
    """

    __slots__ = ("_environ", "_inner", "_open", "ended", "response")

    def __init__(self, environ: Environ) -> None:
        # its identity only: the environ holds this bag
        self._environ = id(environ)
        self._open: list[tuple[Any, Session]] = []
        self._inner: list[Bag] = []
        self.ended = False
        self.response: Any = None

    def is_of(self, environ: Environ) -> bool:
        """Tell whether the bag belongs to this environ; a copy carries the bag of another."""
        return self._environ == id(environ)

    def add(self, request: Any, session: Session) -> None:
        """Take a session over."""
        self._open.append((request, session))

    def adopt(self, bag: Bag) -> None:
        """Close another bag together with this one."""
        self._inner.append(bag)

    def remember(self, request: Any, response: Any) -> None:
        """Keep the response of a subrequest (a response callback)."""
        self.response = response

    def end(self, response: Any) -> None:
        """Close the sessions for good.

        :param response: what was sent; None when that did not end well.
        """
        self.ended = True
        try:
            if response is not None:
                for inner in self._inner:
                    inner.end(inner.response)
                if self._open and _status(response) < 400:
                    for request, session in self._open:
                        _warn_if_uncommitted(request, session)
        finally:
            self.close()

    def close(self) -> None:
        """Roll back and close every session, even if closing one is interrupted."""
        try:
            while self._inner:
                self._inner.pop().end(None)
            while self._open:
                self._open.pop()[1].abandon()
        finally:
            if self._inner or self._open:
                self.close()


def open_session(request: Any, database: Database) -> Session:
    """Open a session that is closed with its request.

    :param request: a Pyramid request.
    :param database: the database.
    :raises RequestEnded: the request is over, nobody would close the session.
    """
    environ = request.environ
    bag = environ.get(KEY)
    if bag is None or not bag.is_of(environ):
        bag = environ[KEY] = _bag_without_policy(request)
    if bag is None or bag.ended:
        raise RequestEnded(
            f"request.{database.name} was first used after its request had ended, when nobody "
            f"would close the session; use request.{database.name} earlier in the request, or "
            f"take a session of your own: with database.session()"
        )
    session = database.get_session()
    bag.add(request, session)
    return session


def _bag_without_policy(request: Any) -> Bag | None:
    """Make a bag for a subrequest or a prepared request (``prepare()``, ``pshell``)."""
    bag, outer = Bag(request.environ), _outer_bag()
    if outer is not None:
        outer.adopt(bag)
    if _has_finished(request):
        return bag if outer is not None else None

    def finished(request: Any) -> None:
        if outer is None or bag.response is None or _is_complete(bag.response, request.environ):
            bag.end(bag.response)

    request.add_response_callback(bag.remember)
    request.add_finished_callback(finished)
    return bag


def _outer_bag() -> Bag | None:
    """Return the bag of the request that the current one is a subrequest of."""
    for pushed in reversed(manager.stack):
        environ = getattr(pushed["request"], "environ", {})
        bag: Bag | None = environ.get(KEY)
        if bag is not None and bag.is_of(environ) and not bag.ended:
            return bag
    return None


def _has_finished(request: Any) -> bool:
    """Tell whether the router is done with a request: it takes the context away at the end."""
    return "view_name" in request.__dict__ and "context" not in request.__dict__


# --- the policy


def make_policy(inner: Policy) -> Policy:
    """Wrap an execution policy so that it owns the sessions of its requests.

    :param inner: the policy that runs requests, e.g. pyramid_retry's.
    """

    def policy(environ: Environ, router: Any) -> Any:
        outer = environ.get(KEY)
        bag = environ[KEY] = Bag(environ)
        try:
            response = inner(environ, _Router(router, bag))
        except BaseException:
            bag.end(None)
            raise
        finally:
            if outer is not None:
                # an application in another, or in itself, on one environ
                environ[KEY] = outer
        if _is_complete(response, environ):
            bag.end(response)
            return response
        return _StreamedResponse(response, bag)

    return policy


class _Router:
    """The router, as a policy sees it: each new request is an attempt of its own."""

    __slots__ = ("_bag", "_router")

    def __init__(self, router: Any, bag: Bag) -> None:
        self._router = router
        self._bag = bag

    def __getattr__(self, name: str) -> Any:
        return getattr(self._router, name)

    def request_context(self, environ: Environ) -> Any:
        # an attempt must not wait for the locks of the one before
        self._bag.close()
        return self._router.request_context(environ)


class _StreamedResponse:
    """A response whose body may use the sessions while it is sent."""

    def __init__(self, response: Any, bag: Bag) -> None:
        self._response = response
        self._bag = bag

    def __getattr__(self, name: str) -> Any:
        return getattr(self._response, name)

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        try:
            body: Iterable[bytes] = self._response(environ, start_response)
            kind = _SizedBody if hasattr(body, "__len__") else _Body
            return kind(body, self._bag, self._response)
        except BaseException:
            self._bag.end(None)
            raise


class _Body:
    """A body that ends the bag when it is sent, fails or is closed by the server."""

    def __init__(self, body: Iterable[bytes], bag: Bag, response: Any) -> None:
        self._body: Iterable[bytes] | None = body
        self._chunks = iter(body)
        self._bag = bag
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._chunks)
        except StopIteration:
            self._end(self._response)
            raise
        except BaseException:
            self._end(None)
            raise

    def close(self) -> None:
        """Called by the server, also when the client has gone away."""
        self._end(None)

    def _end(self, response: Any) -> None:
        body, self._body = self._body, None
        if body is None:
            return
        try:
            close = getattr(body, "close", None)
            if close is not None:
                close()
        except BaseException:
            self._bag.end(None)
            raise
        self._bag.end(response)


class _SizedBody(_Body):
    """A body that tells how many chunks it has, as its server may want to know."""

    def __init__(self, body: Any, bag: Bag, response: Any) -> None:
        super().__init__(body, bag, response)
        self._length = len(body)

    def __len__(self) -> int:
        return self._length


# --- what a response tells


def _is_complete(response: Any, environ: Mapping[str, Any]) -> bool:
    """Tell whether the body cannot use a session: it is there, or it is a file.

    A file stays as it is, so that the server can send it in its own way
    (``wsgi.file_wrapper``), and a slow download holds no connection.
    """
    body = getattr(response, "app_iter", None)
    if isinstance(body, (list, tuple)):
        return True
    if isinstance(body, (FileIter, WebObFileIter)) or type(body) is environ.get(
        "wsgi.file_wrapper"
    ):
        body = getattr(body, "file", None) or getattr(body, "filelike", None)
    fileno = getattr(body, "fileno", None)
    try:
        return fileno is not None and fileno() >= 0
    except (OSError, ValueError):
        return False  # a file in memory, or one of the application's own making


def _status(response: Any) -> int:
    return int(getattr(response, "status_code", 500))


def _warn_if_uncommitted(request: Any, session: Session) -> None:
    error = request.exception
    if error is not None and not isinstance(error, HTTPException):
        return
    try:
        forgotten = session.has_uncommitted
    except Exception:
        # a comparison of the application's own types; the answer is on its way
        log.warning("whether a commit is missing cannot be told", exc_info=True)
        return
    if forgotten:
        name, route = session.database_name, request.matched_route
        log.warning(
            "commit is missing: %s %r (%s) ended well, but the changes of its session of the "
            "database %r were never committed and are rolled back; call request.%s.commit()",
            request.method,
            request.environ.get("PATH_INFO", ""),
            f"route {route.name!r}" if route else f"view {request.__dict__.get('view_name')!r}",
            name,
            name,
        )
