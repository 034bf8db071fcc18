"""Where a database is: addresses for people, and in a form that can be compared."""

from __future__ import annotations

import contextlib
import logging
import socket
from typing import Any

import sqlalchemy as sa

__all__ = ["is_secret", "one_value", "safe_url", "server_name"]

log = logging.getLogger("qapla_db")

_SECRET_WORDS = ("pass", "pwd", "secret", "token", "odbc_connect")


def safe_url(url: sa.URL) -> str:
    """Render a URL for people: no password in it, not in its query either."""
    query = {key: "***" if is_secret(key) else value for key, value in url.query.items()}
    return url.set(query=query).render_as_string(hide_password=True)


def is_secret(key: str) -> bool:
    """Tell whether a value of this name is, or has in it, something like a password."""
    return any(word in key.lower() for word in _SECRET_WORDS)


def server_name(host: str) -> str:
    """Return a form of a host's name in which two spellings of one host are equal."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_DGRAM) if host else []
    except (OSError, UnicodeError):
        log.debug("a database's host cannot be resolved; its name is compared as it is")
        return host.lower()
    if not found or any(_is_ours(family, address) for family, _, _, _, address in found):
        return "localhost"
    return min(str(address[0]) for *_, address in found)


def _is_ours(family: int, address: tuple[Any, ...]) -> bool:
    # an address can be bound only on the machine that it belongs to
    with socket.socket(family, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.bind((address[0], 0, *address[2:]))
        return True
    return False


def one_value(value: str | tuple[str, ...] | None) -> str:
    """Return the first value of a URL query item, or an empty string."""
    if value is None:
        return ""
    return value if isinstance(value, str) else value[0]
