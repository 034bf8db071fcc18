"""The pages, and the same as JSON below ``/api``."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from kombu.exceptions import OperationalError as BrokerError
from pyramid.config import Configurator
from pyramid.csrf import CookieCSRFStoragePolicy
from pyramid.exceptions import BadCSRFOrigin, BadCSRFToken, URLDecodeError
from pyramid.httpexceptions import (
    HTTPAccepted,
    HTTPBadRequest,
    HTTPConflict,
    HTTPException,
    HTTPNotFound,
    HTTPSeeOther,
    HTTPServiceUnavailable,
    HTTPUnsupportedMediaType,
)
from pyramid.renderers import render
from pyramid.request import Request
from pyramid.response import Response
from pyramid.view import view_config
from sqlalchemy.exc import OperationalError, TimeoutError
from sqlalchemy.orm.exc import StaleDataError

from qapla_db import Page
from qapla_db.errors import NotFound, ServerError
from rotarran.application.db import Airport, Event
from rotarran.application.drivers import (
    AirportReadDriver,
    AirportWriteDriver,
    EventReadDriver,
    EventWriteDriver,
)
from rotarran.application.forms import airport_changes, check_form, page_number, short_text
from rotarran.tasks import compute_neighbours

log = logging.getLogger(__name__)

FIELDS = [column.key for column in Airport.__table__.columns]


def includeme(config: Configurator) -> None:
    """Add the routes, each page with its twin below ``/api``."""
    pages = {
        "airports": "/",
        "airport": "/airports/{code}",
        "neighbours": "/airports/{code}/neighbours",
        "audit": "/audit",
    }
    for name, path in pages.items():
        config.add_route(name, path)
        config.add_route(f"api_{name}", "/api/airports" if path == "/" else f"/api{path}")
    # a page of another site can send a form, but it does not know the token
    config.set_csrf_storage_policy(CookieCSRFStoragePolicy(httponly=True))
    config.set_default_csrf_options(require_csrf=True, callback=check_form)
    config.add_static_view("static", "rotarran.application:static", cache_max_age=3600)
    config.scan("rotarran.application.views")


@view_config(route_name="airports", request_method="GET", renderer="templates/airports.jinja2")
@view_config(route_name="api_airports", request_method="GET", renderer="json")
def airports(request: Request) -> dict[str, Any]:
    """Show one page of the airports that match the words of a search."""
    page = page_number(request.params.get("page", "1"))
    words = short_text("q", request.params.get("q", ""), 60)
    found = AirportReadDriver(request.main).search(words, page)
    return {
        "q": words,
        "airports": [airport_dict(airport) for airport in found],
        **page_dict(found),
    }


@view_config(route_name="airport", request_method="GET", renderer="templates/airport.jinja2")
@view_config(route_name="api_airport", request_method="GET", renderer="json")
def airport(request: Request) -> dict[str, Any]:
    """Show one airport and its nearest neighbours."""
    found = find_airport(request)
    return {
        "airport": airport_dict(found),
        "neighbours": [
            {
                "code": neighbour.other_code,
                "name": neighbour.other.name,
                "country": neighbour.other.country,
                "distance": round(neighbour.distance_km, 1),
                "computed_at": neighbour.computed_at.isoformat(timespec="seconds"),
            }
            for neighbour in found.neighbours
        ],
    }


@view_config(route_name="airport", request_method="POST")
def edit_airport(request: Request) -> Response:
    """Change an airport from the form."""
    values = request.POST.mixed()
    values.pop("csrf_token", None)
    change(request, values)
    raise HTTPSeeOther(request.route_path("airport", code=request.matchdict["code"]))


@view_config(route_name="api_airport", request_method="POST", renderer="json", require_csrf=False)
def edit_airport_json(request: Request) -> dict[str, Any]:
    """Change an airport from JSON."""
    require_json(request)
    try:
        values = request.json_body
    except (ValueError, LookupError, RecursionError):
        raise HTTPBadRequest("the body is not JSON that can be read") from None
    if not isinstance(values, dict):
        raise HTTPBadRequest("the body must be a JSON object")
    return {"airport": airport_dict(change(request, values))}


def change(request: Request, values: Mapping[str, Any]) -> Airport:
    """Change an airport and say so in the audit trail."""
    version, changes = airport_changes(values)
    found = find_airport(request)
    conflict = HTTPConflict("somebody else has changed this airport since; look and edit again")
    if found.version != version:
        raise conflict
    try:
        changed = AirportWriteDriver(request.main).change(found, changes)
    except StaleDataError:
        raise conflict from None
    if changed:
        EventWriteDriver(request.audit).create(
            who=visitor(request), action="edited", airport_code=found.code, details=changed
        )
        # what can fail has failed by now; should the process end between the two
        # commits, a change is there of which the audit trail does not know
        request.main.commit()
        request.audit.commit()
    return found


@view_config(route_name="neighbours", request_method="POST")
def start_neighbours(request: Request) -> Response:
    """Start the task that computes the nearest airports; back to the page."""
    start_task(request)
    raise HTTPSeeOther(
        request.route_path("airport", code=request.matchdict["code"], _query={"started": "1"})
    )


@view_config(route_name="api_neighbours", request_method="POST", require_csrf=False)
def start_neighbours_json(request: Request) -> Response:
    """Start the task that computes the nearest airports."""
    require_json(request)
    return HTTPAccepted(json_body={"task": start_task(request)}, content_type="application/json")


def start_task(request: Request) -> str:
    """Send the task to the worker and return its id."""
    code = find_airport(request).code
    return str(compute_neighbours.delay(code, visitor(request)).id)


@view_config(route_name="audit", request_method="GET", renderer="templates/audit.jinja2")
@view_config(route_name="api_audit", request_method="GET", renderer="json")
def audit(request: Request) -> dict[str, Any]:
    """Show who did what, the newest first."""
    page = page_number(request.params.get("page", "1"))
    events = EventReadDriver(request.audit).latest(page)
    return {"events": [event_dict(event) for event in events], **page_dict(events)}


@view_config(context=HTTPException)
@view_config(context=URLDecodeError)
@view_config(context=UnicodeDecodeError)
@view_config(context=OperationalError)
@view_config(context=TimeoutError)
@view_config(context=ServerError)
@view_config(context=BrokerError)
def problem(error: Exception, request: Request) -> Response:
    """Answer what cannot be done, as a page or as JSON."""
    response: Any
    if isinstance(error, BadCSRFOrigin | BadCSRFToken):
        response = HTTPBadRequest("the form is not of our page, or too old; load the page again")
    elif isinstance(error, HTTPException):
        response = error
    elif isinstance(error, UnicodeDecodeError):
        response = HTTPBadRequest("the address or the form is not valid UTF-8")
    else:
        log.error("a server that we need cannot be reached", exc_info=error)
        response = HTTPServiceUnavailable("a server that we need cannot be reached; try again")
    if response.status_code < 400:
        return response
    text = {"status": response.status_code, "error": response.title, "detail": response.detail}
    if request.environ["PATH_INFO"].startswith("/api/"):
        response.json_body, response.content_type = text, "application/json"
    else:
        response.text = render("templates/problem.jinja2", text, request)
        response.content_type = "text/html"
    return response


def require_json(request: Request) -> None:
    """Refuse what a page of another site could send without the browser's asking us first."""
    if request.content_type != "application/json":
        raise HTTPUnsupportedMediaType("the Content-Type must be application/json")


def find_airport(request: Request) -> Airport:
    """Return the airport that the address names."""
    code = request.matchdict["code"]
    try:
        if not (code.isascii() and code.isalnum() and len(code) <= 4):
            raise HTTPNotFound("no airport has this code")
        return AirportReadDriver(request.main).get_by_id(code.upper())
    except NotFound:
        raise HTTPNotFound(f"no airport has the code {code.upper()}") from None


def visitor(request: Request) -> str:
    """Name who is asking."""
    return f"visitor {request.remote_addr or 'unknown'}"


def page_dict(page: Page[Any]) -> dict[str, Any]:
    """Describe a page; one beyond the last does not exist."""
    pages = page.pages or 1
    if page.page > pages:
        raise HTTPNotFound(f"there is no page {page.page}; the last one is {pages}")
    return {"page": page.page, "pages": pages, "total": page.total}


def airport_dict(airport: Airport) -> dict[str, Any]:
    """Return an airport's fields."""
    return {field: getattr(airport, field) for field in FIELDS}


def event_dict(event: Event) -> dict[str, Any]:
    """Return an event's fields."""
    return {
        "at": event.at.isoformat(sep=" ", timespec="seconds"),
        "who": event.who,
        "action": event.action,
        "airport_code": event.airport_code,
        "details": event.details,
    }
