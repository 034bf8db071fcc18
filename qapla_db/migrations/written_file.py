"""The file of a revision as it was written: whether Python can read it."""

from __future__ import annotations

import ast
import builtins
import symtable
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import decode_source
from pathlib import Path

from qapla_db.database import Database
from qapla_db.errors import MigrationError
from qapla_db.migrations.directory import TEMPLATE

__all__ = ["removed_if_broken"]

_OF_MODULES = {"__name__", "__file__", "__doc__", "__builtins__", "__spec__", "__package__"}


@contextmanager
def removed_if_broken(database: Database) -> Iterator[None]:
    """Remove what the block wrote if it is no Python, or uses names that are not there.

    :raises MigrationError: it is so.
    """
    directory = Path(database.migrations_path).absolute()
    before = set(directory.rglob("*.py"))
    failed: Exception | None = None
    try:
        yield
    except (SyntaxError, ValueError, NameError) as error:  # Alembic loads what it wrote
        failed = error
    written = set(directory.rglob("*.py")) - before
    broken = {path: why for path in written if (why := _problem(path))}
    if broken:
        for path in broken:
            path.unlink()
        raise MigrationError(
            f"no revision of {database.name!r} is written, for what {directory / TEMPLATE} makes "
            f"of it {'; '.join(broken.values())}, or correct the template; without one "
            "'qapla-db init' writes a new one"
        ) from failed
    if failed is not None:
        raise failed


def _problem(path: Path) -> str | None:
    """Return what is wrong with a file, and what to do about it."""
    source = path.read_bytes()
    try:
        missing = sorted(_undefined(source, str(path)))
    except (SyntaxError, ValueError) as error:
        return f"does not compile: {' '.join(str(error).split())}. Choose another message"
    if not missing:
        return None
    return (
        f"has no import of {', '.join(missing)}. Have it imported: the template needs a line "
        '${imports if imports else ""}, and a render_item= of yours adds to its imports'
    )


def _undefined(source: bytes, path: str) -> set[str]:
    """Return the names that code uses and nothing in it, and no builtin, defines."""
    tree = ast.parse(source, path)
    compile(source, path, "exec")  # which finds more than the parser
    if any(
        isinstance(node, ast.ImportFrom) and node.names[0].name == "*" for node in ast.walk(tree)
    ):
        return set()  # it cannot be known
    module = symtable.symtable(decode_source(source), path, "exec")
    symbols = [
        (symbol, scope is module) for scope in _scopes(module) for symbol in scope.get_symbols()
    ]
    of_module = [one for one, is_top in symbols if is_top or one.is_global()]
    defined = {
        one.get_name()
        for one in of_module
        if one.is_assigned() or one.is_imported() or one.is_namespace()
    }
    used = {one.get_name() for one in of_module if one.is_referenced()}
    return used - defined - set(vars(builtins)) - _OF_MODULES


def _scopes(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    yield table
    for child in table.get_children():
        yield from _scopes(child)
