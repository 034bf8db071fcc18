"""Sockets of connections that a forked process has inherited."""

from __future__ import annotations

import os
import stat

__all__ = ["detach_socket"]


def detach_socket(descriptor: int) -> None:
    """Point this process's copy of a socket at nothing; the parent's stays as it is.

    Whoever still uses the connection in this process gets an error at once,
    instead of a share in the conversation of another process.
    """
    if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        return
    nothing = os.open(os.devnull, os.O_RDWR)
    try:
        os.dup2(nothing, descriptor, inheritable=False)
    finally:
        os.close(nothing)
