"""What comes from outside, checked."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

from pyramid.httpexceptions import HTTPBadRequest
from pyramid.request import Request

LAST_PAGE = 1_000_000
LENGTHS = {"name": 120, "city": 120}
ELEVATION = (-2_000.0, 30_000.0)
LARGEST = 2**31 - 1


def check_form(request: Request) -> bool:
    """Refuse a form that cannot be read, before Pyramid looks for the CSRF token in it."""
    try:
        token = request.POST.get("csrf_token", "")
    except (ValueError, LookupError, DeprecationWarning):  # the last: another charset than UTF-8
        raise HTTPBadRequest("the form cannot be read; it must be in UTF-8") from None
    if not (isinstance(token, str) and token.isascii()):
        raise HTTPBadRequest("csrf_token must be the one of the form's page")
    return True


def page_number(value: str) -> int:
    """Return the number of a page."""
    if value.isascii() and value.isdecimal() and len(value) < 10 and 1 <= int(value) <= LAST_PAGE:
        return int(value)
    raise HTTPBadRequest(f"page must be a whole number from 1 to {LAST_PAGE}")


def short_text(field: str, value: object, longest: int) -> str:
    """Return a line of text without the space around it."""
    if not isinstance(value, str):
        raise HTTPBadRequest(f"{field} must be text")
    value = value.strip()
    if len(value) > longest:
        raise HTTPBadRequest(f"{field} is too long: at most {longest} characters")
    if not value.isprintable() or "\ufffd" in value:  # U+FFFD stands for bytes that are no UTF-8
        raise HTTPBadRequest(f"{field} holds characters that cannot be printed")
    return value


def number(field: str, value: object) -> float:
    """Return a finite number."""
    try:
        plain = isinstance(value, str | int | float) and "_" not in str(value)
        result = float(value) if plain else None  # type: ignore[arg-type]
    except (ValueError, OverflowError):
        result = None
    if result is None or isinstance(value, bool) or not isfinite(result):
        raise HTTPBadRequest(f"{field} must be a number")
    return result


def whole_number(field: str, value: object) -> int:
    """Return a whole number."""
    result = number(field, value)
    if not result.is_integer() or abs(result) > LARGEST:
        raise HTTPBadRequest(f"{field} must be a whole number")
    return int(result)


def airport_changes(values: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
    """Return the version that was edited, and the new values of the airport's fields."""
    unknown = sorted(set(values) - {*LENGTHS, "elevation", "version"})
    if unknown:
        raise HTTPBadRequest(f"unknown fields: {', '.join(unknown)[:200]}")
    if "version" not in values:
        raise HTTPBadRequest("version is missing: it tells which state was edited")
    changes: dict[str, Any] = {
        field: short_text(field, values[field], longest)
        for field, longest in LENGTHS.items()
        if field in values
    }
    if changes.get("name") == "":
        raise HTTPBadRequest("name must not be empty")
    if "elevation" in values:
        changes["elevation"] = number("elevation", values["elevation"])
        if not ELEVATION[0] <= changes["elevation"] <= ELEVATION[1]:
            raise HTTPBadRequest("elevation must lie between {:g} and {:g} feet".format(*ELEVATION))
    return whole_number("version", values["version"]), changes
