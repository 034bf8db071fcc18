"""Names that tell which process something belongs to, and whether it is gone."""

from __future__ import annotations

import functools
import hashlib
import itertools
import os
import re
import socket
from contextlib import suppress
from pathlib import Path

__all__ = ["TOKEN_PARTS", "is_abandoned", "new_token"]

TOKEN_PARTS = 4
"""How many parts a token has, with ``_`` between them."""

_TOKEN = re.compile(r"(?P<host>[0-9a-f]{8})_(?P<pid>[0-9a-z]+)_(?P<start>[0-9a-z]+)_[0-9a-z]+")
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_ENDED = ("Z", "X")  # of a process whose parent has not asked for its end yet

_numbers = itertools.count(1)


def new_token() -> str:
    """Return a token that nobody else gets: host, process, its start and a number.

    It has lower case letters, digits and ``_`` only, and about 25 characters.
    """
    pid = os.getpid()
    parts = [pid, _started(pid) or 0, next(_numbers)]
    return "_".join([_host(), *map(_short, parts)])


def is_abandoned(token: str) -> bool:
    """Tell whether the process that made a token is certainly gone.

    A process of another machine or container, and whatever else cannot be told,
    counts as alive.
    """
    match = _TOKEN.fullmatch(token)
    if match is None or match["host"] != _host() or os.name != "posix":
        return False  # on Windows the question below would end the process
    pid, start = int(match["pid"], 36), int(match["start"], 36)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    now = _started(pid)
    return now is not None and start != 0 and now != start


def _started(pid: int) -> int | None:
    """Return when a process was started, as Linux counts; None where it does not tell.

    For one that has ended, and is still listed, it is -1.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (OSError, ValueError):
        return None
    fields = text.rpartition(")")[2].split()  # the name before may hold anything
    return -1 if fields[0] in _ENDED else int(fields[19])


@functools.cache
def _host() -> str:
    """Return what tells machines and containers apart: process numbers mean nothing elsewhere."""
    space, machine = 0, ""
    with suppress(OSError, ValueError):
        space = os.stat("/proc/self/ns/pid").st_ino
    with suppress(OSError, ValueError):
        machine = Path("/etc/machine-id").read_text()
    parts = (socket.gethostname(), machine, space)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:8]


def _short(number: int) -> str:
    digits = ""
    while number or not digits:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
    return digits
