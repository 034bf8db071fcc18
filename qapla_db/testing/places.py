"""The line of the application or the test that something comes from."""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path
from types import FrameType

__all__ = ["place"]

_LIBRARIES = (
    *(sysconfig.get_path(one) + os.sep for one in ("stdlib", "platstdlib", "purelib", "platlib")),
    str(Path(__file__).parents[1]) + os.sep,
    "<frozen ",
    "<sqlalchemy ",
    "<string>",
)
"""Where the files of those begin whose lines nobody looks for."""


def place(frame: FrameType | None = None) -> str:
    """Return ``file:line in function`` of the innermost frame that is no library's.

    :param frame: where to begin; the caller's by default.
    """
    frame = frame or sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_LIBRARIES):
        frame = frame.f_back
    if frame is None:
        return "code that is not known"
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"
