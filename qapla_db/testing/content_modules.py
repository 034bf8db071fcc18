"""The modules of the project that revisions import, found without importing any."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from qapla_db.testing.places import is_library

__all__ = ["is_foreign", "modules_imported"]

_DATA = (".csv", ".json", ".sql", ".toml", ".tsv", ".txt", ".yaml", ".yml")
_SMALL = 1_000_000
"""Bytes of the longest file that counts as data of a package."""

_PLAIN = re.compile(rb"^(?:from[ ]+[\w.]+[ ]+)?import[ ]+\w[\w., ]*$", re.MULTILINE)
_FUNCTIONS = {"import_module", "__import__"}
_BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")


def modules_imported(texts: Iterable[bytes]) -> dict[str, bytes]:
    """Return the files of the project's modules that Python texts import, and those these import.

    With a package come the small data files that lie beside its modules, which are often read
    when it is imported and never again in the process.

    :param texts: of revisions.
    :returns: the absolute path of each file, with what it holds.
    """
    waiting = [name for text in texts for name in _names(text, "")]
    seen: set[str] = set()
    found: dict[str, bytes] = {}
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        waiting.append(name.rpartition(".")[0])
        path, package = _file_of(name)
        if path and path not in found and path.endswith(".py") and not is_foreign(path):
            with suppress(OSError):
                found[path] = Path(path).read_bytes()
                waiting += _names(found[path], package)
                directory = Path(path).parent
                if package and str(directory) not in seen:
                    seen.add(str(directory))
                    found |= _data_in(directory)
    return found


def is_foreign(path: str) -> bool:
    """Tell whether a file is one of Python or of a library."""
    return is_library(path) or "site-packages" in path or "dist-packages" in path


def _data_in(directory: Path) -> dict[str, bytes]:
    return {
        str(file): file.read_bytes()
        for file in directory.iterdir()
        if file.suffix in _DATA and file.is_file() and file.stat().st_size <= _SMALL
    }


# --- what a text imports


@lru_cache(4096)
def _names(text: bytes, package: str) -> tuple[str, ...]:
    """Return what a module may import: of ``from a import b`` both ``a`` and ``a.b``."""
    # most revisions have a few plain lines, for which it takes too long to parse them
    plain = _PLAIN.findall(text)
    tree = _parsed(b"\n".join(plain)) if len(plain) == text.count(b"import") else None
    tree = tree or _parsed(text)
    if tree is None:
        return ()
    found = [name for node in _statements(tree) for name in _of_statement(node)]
    if b"import_module" in text or b"__import__" in text:
        found += [name for node in ast.walk(tree) for name in _of_call(node)]
    return tuple(_absolute(name, package) for name in dict.fromkeys(found))


def _parsed(text: bytes) -> ast.AST | None:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return None


def _statements(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield statements at any depth; no expression, which would take most of the time."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        for block in _BLOCKS:
            inner = getattr(node, block, ())
            if isinstance(inner, list):
                waiting += inner


def _of_statement(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        module = "." * node.level + (node.module or "")
        yield module
        joined = module if module.endswith(".") else f"{module}."
        yield from (f"{joined}{alias.name}" for alias in node.names if alias.name != "*")


def _of_call(node: ast.AST) -> Iterator[str]:
    if not isinstance(node, ast.Call) or not node.args:
        return
    function, first = node.func, node.args[0]
    called = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    is_text = isinstance(first, ast.Constant) and isinstance(first.value, str)
    if called in _FUNCTIONS and is_text:
        yield str(first.value)  # type: ignore[attr-defined]


def _absolute(name: str, package: str) -> str:
    rest = name.lstrip(".")
    dots = len(name) - len(rest)
    if not dots:
        return name
    parents = package.split(".")
    return ".".join([*parents[: len(parents) - dots + 1], rest]).strip(".")


# --- where a module is


def _file_of(name: str) -> tuple[str | None, str]:
    """Return the file of a module and the package that its relative imports start from."""
    top, *rest = name.split(".")
    if not top or top in sys.stdlib_module_names:
        return None, ""
    loaded = sys.modules.get(name)
    file = getattr(loaded, "__file__", None)
    if isinstance(file, str):
        return file, name if hasattr(loaded, "__path__") else name.rpartition(".")[0]
    file, directories = _top(top)
    for part in rest:
        file, directories = _inside(directories, part)
    return file, name if directories else name.rpartition(".")[0]


def _top(name: str) -> tuple[str | None, list[str]]:
    """Return the file of a top module, and the directories of its submodules.

    All of Python's finders are asked, for an editable install may have one of its own; of one
    that is loaded its path says more, which may have been extended.
    """
    loaded = sys.modules.get(name)
    # finders of others may raise what they like
    with suppress(Exception):
        if loaded is not None:
            file = getattr(loaded, "__file__", None)
            return file, list(map(str, getattr(loaded, "__path__", ())))
        spec = importlib.util.find_spec(name)
        if spec is not None:
            places = list(map(str, spec.submodule_search_locations or ()))
            return spec.origin if spec.has_location else None, places
    return None, []


def _inside(directories: list[str], part: str) -> tuple[str | None, list[str]]:
    """Find a module in a package as Python's finder does: a package, a module, a namespace."""
    spaces: list[str] = []
    for directory in directories:
        path = Path(directory, part)
        if (path / "__init__.py").is_file():
            return str(path / "__init__.py"), [str(path)]
        if path.with_name(f"{part}.py").is_file():
            return str(path.with_name(f"{part}.py")), []
        if path.is_dir():
            spaces.append(str(path))
    return None, spaces
