"""Types of columns as revisions have them: with the imports of all that they are made of.

Alembic by itself names the module of a user's type and does not import it, and leaves a
type inside of another without its module.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import reduce
from typing import Any, Literal

from alembic.autogenerate.api import AutogenContext
from sqlalchemy.types import TypeEngine

from qapla_db.errors import MigrationError
from qapla_db.migrations.autogenerate.enums import made_elsewhere
from qapla_db.migrations.command_error import as_command_error

__all__ = ["RenderItem", "with_imports"]

RenderItem = Callable[[str, Any, AutogenContext], str | Literal[False]]

_DIALECTS = "sqlalchemy.dialects."


def with_imports(theirs: RenderItem | None) -> RenderItem:
    """Return Alembic's hook ``render_item``, which asks the user's own hook first.

    A ``user_module_prefix`` of the user's leaves it to Alembic.
    """

    def render(kind: str, found: Any, context: AutogenContext) -> str | Literal[False]:
        text = False if theirs is None else theirs(kind, found, context)
        if text is not False or kind != "type":
            return text
        if context.opts.get("user_module_prefix") is not None or not _is_ours(found, context):
            return False
        return made_elsewhere(found, context) or _rendered(found, context)

    return render


def _is_ours(found: TypeEngine[Any], context: AutogenContext) -> bool:
    """Tell whether a type is the user's, or one of a dialect that Alembic is not at now."""
    module = type(found).__module__
    if module.startswith(_DIALECTS):
        here = type(context.migration_context.dialect).__module__
        return not here.startswith(f"{_DIALECTS}{module.split('.')[2]}.")
    return not module.startswith("sqlalchemy.")


def _rendered(found: TypeEngine[Any], context: AutogenContext) -> str | Literal[False]:
    call = _parsed(found)
    if found._variant_mapping:
        _name(type(found), found, context)
        return False  # Alembic writes the variants, each by itself
    nodes = list(ast.walk(call))
    attributes = {one.arg for one in nodes if isinstance(one, ast.keyword) and one.arg}
    kinds = {kind.__name__: kind for kind in _kinds(found, attributes)}
    for node in nodes:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            kind = kinds.get(node.func.id)
            node.func.id = node.func.id if kind is None else _name(kind, found, context)
    return ast.unparse(call)


def _parsed(found: TypeEngine[Any]) -> ast.Call:
    """Return how a type says that it is made."""
    try:
        call = ast.parse(repr(found), mode="eval").body
    except SyntaxError:  # of a __repr__() of the user's
        call = None
    if not isinstance(call, ast.Call):
        raise _unwritable(found, f"its repr() is {found!r}, and not what makes it")
    try:
        keywords = {one.arg: one.value for one in call.keywords if one.arg}
        inspect.signature(type(found)).bind(*call.args, **keywords)
    except TypeError as error:
        raise _unwritable(found, f"its repr() is {found!r}, but that has {error}") from None
    return call


def _kinds(found: TypeEngine[Any], attributes: set[str]) -> Iterator[type[TypeEngine[Any]]]:
    """Yield the class of a type, and before it those of types inside of it."""
    # some are of the class until an instance has another
    inside = [*vars(found).values(), *(getattr(found, name, None) for name in attributes)]
    for value in inside:
        if isinstance(value, TypeEngine):
            yield from _kinds(value, attributes)
    yield type(found)


def _name(kind: type[TypeEngine[Any]], found: TypeEngine[Any], context: AutogenContext) -> str:
    """Return how a revision names a class, and note what it has to import."""
    module = kind.__module__
    if module.startswith(_DIALECTS):
        dialect = module.split(".")[2]
        context.imports.add(f"from sqlalchemy.dialects import {dialect}")
        return f"{dialect}.{kind.__name__}"
    if module.startswith("sqlalchemy."):
        return f"{context.opts['sqlalchemy_module_prefix'] or ''}{kind.__name__}"
    stands: object = None
    with suppress(AttributeError, KeyError):
        stands = reduce(getattr, kind.__qualname__.split("."), sys.modules[module])
    if module == "__main__" or stands is not kind:
        raise _unwritable(found, f"a revision cannot import it from {module!r}")
    context.imports.add(f"import {module}")
    return f"{module}.{kind.__qualname__}"


def _unwritable(found: TypeEngine[Any], why: str) -> MigrationError:
    kind = type(found)
    error = as_command_error(
        MigrationError(
            f"no revision is written, for the type {kind.__qualname__} of {kind.__module__} cannot "
            f"be written into one: {why}. Put it into a module of the application, with a "
            "__repr__() that Python can read; or give AlembicEnv a render_item= that writes it"
        )
    )
    assert isinstance(error, MigrationError)
    return error
