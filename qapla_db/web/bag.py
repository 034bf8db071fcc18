"""Who closes the sessions of a request, and when.

Pyramid's finished callbacks run before a streamed body is sent, and one that
raises skips the rest; so they cannot own a session. The execution policy can:
it sees every request begin, every attempt of a retry, every error and the
response. It puts a bag into the WSGI environ, ``request.<name>`` puts its
session into the bag, and the bag is closed when the body has been sent.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from pyramid.httpexceptions import HTTPException
from pyramid.router import default_execution_policy
from pyramid.threadlocal import manager

from qapla_db.database import Database
from qapla_db.errors import RequestEnded
from qapla_db.session import Session
from qapla_db.web.body import StreamedResponse, is_file, sent_by

__all__ = ["make_policy", "open_session"]

log = logging.getLogger("qapla_db")

KEY = "qapla_db.sessions"  # of the bag in the environ

Environ = dict[str, Any]
Policy = Callable[[Environ, Any], Any]


class Bag:
    """The open sessions of one request, and of the subrequests that stream into it.

    :param environ: the WSGI environ of the request.
    """

    __slots__ = ("ended", "inner", "opened", "owner", "response")

    def __init__(self, environ: Environ) -> None:
        # a copied environ carries the bag of another; only its identity, as it holds this bag
        self.owner = id(environ)
        self.opened: list[tuple[Any, Session]] = []
        self.inner: list[Bag] = []
        self.ended = False
        self.response: Any = None

    def remember(self, request: Any, response: Any) -> None:
        """Keep the response of a subrequest (a response callback)."""
        self.response = response

    def end(self, response: Any) -> None:
        """Close the sessions for good.

        :param response: what was sent; None when that did not end well.
        """
        self.ended = True
        if not self.opened and not self.inner:
            return
        try:
            if response is not None:
                for inner in self.inner:
                    inner.end(inner.response)
                for request, session in self.opened:
                    if session.has_uncommitted and _ended_well(request, response):
                        _warn(request, session)
        except Exception:
            # a comparison of the application's own types; the answer is on its way
            log.warning("whether a commit is missing cannot be told", exc_info=True)
        finally:
            if self.inner or len(self.opened) > 1:
                self.close()
            else:  # the usual request
                self.opened.pop()[1].abandon()

    def close(self) -> None:
        """Roll back and close every session, even if closing one is interrupted."""
        try:
            while self.inner:
                self.inner.pop().end(None)
            while self.opened:
                self.opened.pop()[1].abandon()
        finally:
            if self.inner or self.opened:
                self.close()


def open_session(request: Any, database: Database) -> Session:
    """Open a session that is closed with its request.

    :param request: a Pyramid request.
    :param database: the database.
    :raises RequestEnded: the request is over, nobody would close the session.
    """
    environ = request.environ
    bag = environ.get(KEY)
    if bag is None or bag.owner != id(environ):
        bag = _bag_without_policy(request)
    if bag is None or bag.ended:
        raise RequestEnded(
            f"request.{database.name} was first used after its request had ended, when nobody "
            f"would close the session; use request.{database.name} earlier in the request, or "
            f"take a session of your own: with database.session()"
        )
    session = database.get_session()
    bag.opened.append((request, session))
    return session


def _bag_without_policy(request: Any) -> Bag | None:
    """Find a bag for a subrequest or a prepared request (``prepare()``, ``pshell``).

    One that is over, but for its body, shares the bag of who reads that body.
    """
    outer = _outer_bag()
    if _has_finished(request):
        return outer
    bag = request.environ[KEY] = Bag(request.environ)
    if outer is not None:
        outer.inner.append(bag)

    def finished(request: Any) -> None:
        body = getattr(bag.response, "app_iter", ())
        if outer is None or isinstance(body, (list, tuple)) or is_file(body, request.environ):
            bag.end(bag.response)

    request.add_response_callback(bag.remember)
    request.add_finished_callback(finished)
    return bag


def _outer_bag() -> Bag | None:
    """Return the bag of the request that the current one is a subrequest of, or streams into."""
    for pushed in reversed(manager.stack):
        environ = getattr(pushed["request"], "environ", {})
        bag: Bag | None = environ.get(KEY)
        if bag is not None and bag.owner == id(environ) and not bag.ended:
            return bag
    sender = sent_by()
    return sender if isinstance(sender, Bag) and not sender.ended else None


def _has_finished(request: Any) -> bool:
    """Tell whether the router is done with a request: it takes the context away at the end."""
    return "view_name" in request.__dict__ and "context" not in request.__dict__


# --- the policy


def make_policy(inner: Policy) -> Policy:
    """Wrap an execution policy so that it owns the sessions of its requests.

    :param inner: the policy that runs requests, e.g. pyramid_retry's.
    """

    repeats = inner is not default_execution_policy

    def policy(environ: Environ, router: Any) -> Any:
        outer = environ.get(KEY)
        bag = environ[KEY] = Bag(environ)
        try:
            response = inner(environ, _Router(router, bag) if repeats else router)
        except BaseException:
            bag.end(None)
            raise
        finally:
            if outer is not None:
                # an application in another, or in itself, on one environ
                environ[KEY] = outer
        body = getattr(response, "app_iter", None)
        if isinstance(body, (list, tuple)) or is_file(body, environ):
            bag.end(response)
            return response
        return StreamedResponse(response, bag)

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


# --- the missing commit


def _ended_well(request: Any, response: Any) -> bool:
    error = request.exception
    if error is not None and not isinstance(error, HTTPException):
        return False
    return int(getattr(response, "status_code", 500)) < 400


def _warn(request: Any, session: Session) -> None:
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
