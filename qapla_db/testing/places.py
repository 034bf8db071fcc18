"""The line of the application or the test that something comes from."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import FrameType

__all__ = ["UNKNOWN", "is_library", "library_frames", "place"]

UNKNOWN = "code that is not known"
"""The place of who has none outside of libraries."""

_LIBRARIES = (
    *(sysconfig.get_path(one) + os.sep for one in ("stdlib", "platstdlib", "purelib", "platlib")),
    str(Path(__file__).parents[1]) + os.sep,
    "<frozen ",
    "<sqlalchemy ",
    "<string>",
)
"""Where the files of those begin whose lines nobody looks for."""


@cache
def is_library(filename: str) -> bool:
    """Tell whether a file is one of Python, of an installed library or of ours."""
    return filename.startswith(_LIBRARIES)


def library_frames(frame: FrameType | None = None) -> Iterator[FrameType]:
    """Yield the frames of libraries, from the innermost to the first that is no library's.

    :param frame: where to begin; the caller's by default.
    """
    frame = frame or sys._getframe(1)
    while frame is not None and is_library(frame.f_code.co_filename):
        yield frame
        frame = frame.f_back


def place(frame: FrameType | None = None) -> str:
    """Return ``file:line in function`` of the innermost frame that is no library's.

    :param frame: where to begin; the caller's by default.
    """
    found = frame or sys._getframe(1)
    while is_library(found.f_code.co_filename):  # of each connection and transaction of a test
        if found.f_back is None:
            return UNKNOWN
        found = found.f_back
    return f"{found.f_code.co_filename}:{found.f_lineno} in {found.f_code.co_name}"
