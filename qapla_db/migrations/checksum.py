"""Whether the file of a revision is still what was applied."""

from __future__ import annotations

import ast
import hashlib
import os
import warnings
from pathlib import Path

__all__ = ["checksum_of", "is_edited"]

_NOT_CODE = frozenset({"ctx", "kind", "type_comment"})
"""Fields of a syntax tree that say nothing of what runs, or what another one says already."""


def checksum_of(path: str | os.PathLike[str] | None) -> str | None:
    """Return the SHA-256 of what a revision's file does.

    Comments, docstrings, blank lines and formatting make no difference, nor does the
    version of Python. None when there is no source: it cannot be read, or is compiled.
    """
    source = _source(path)
    return None if source is None else _of_code(source)


def is_edited(path: str | os.PathLike[str] | None, recorded: str | None) -> bool:
    """Tell whether a revision's file does something else than when it was applied.

    :param path: its file.
    :param recorded: the checksum of then, also one of the file's bytes as they were.
    """
    source = _source(path)
    if source is None or recorded is None:
        return False
    return recorded not in (_of_code(source), _of_bytes(source))


def _source(path: str | os.PathLike[str] | None) -> bytes | None:
    if path is None or not str(path).endswith(".py"):
        return None
    try:
        text = Path(path).read_bytes()
    except OSError:
        return None
    return text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _of_bytes(source: bytes) -> str:
    return hashlib.sha256(source).hexdigest()


def _of_code(source: bytes) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about escapes in texts, as of other versions
            return _of_bytes(_written(ast.parse(source)).encode())
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return _of_bytes(source)  # broken, as no file is that was applied


def _written(node: object) -> str:
    """Return a syntax tree as text that is the same in every version of Python.

    As ``ast.dump()`` is not: fields were added, and those without a value left out.
    """
    if isinstance(node, list):
        return f"[{' '.join(_written(one) for one in node if not _is_text(one))}]"
    if not isinstance(node, ast.AST):
        return ascii(node)
    fields = [
        (name, _written(value)) for name, value in ast.iter_fields(node) if name not in _NOT_CODE
    ]
    given = [f"{name}={text}" for name, text in fields if text not in ("None", "[]")]
    return f"{type(node).__name__}({' '.join(given)})"


def _is_text(node: object) -> bool:
    """Tell whether a statement is a text that nothing is done with, as a docstring is."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
