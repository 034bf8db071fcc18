"""Which declarative base the models of a database are made of."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from sqlalchemy import MetaData
from sqlalchemy.orm import registry

from qapla_db.database import Database
from qapla_db.errors import InvalidArgument, MigrationError

__all__ = ["Symbol", "bases_of", "modules_of"]

USUAL = ("models", "model", "db", "database")
"""Names of modules that models are usually in."""


@dataclass(frozen=True)
class Symbol:
    """Something in a module: ``shop.models:Base``."""

    module: str
    attribute: str

    @classmethod
    def parse(cls, text: str) -> Symbol:
        """Read ``module:attribute``.

        :raises InvalidArgument: it is none.
        """
        module, colon, attribute = text.partition(":")
        parts = [*module.split("."), *attribute.split(".")]
        if not colon or not all(part.isidentifier() for part in parts):
            raise InvalidArgument(f"{text!r} is not of the form module:attribute")
        return cls(module, attribute)

    @property
    def line(self) -> str:
        """The line that imports it."""
        return f"from {self.module} import {self.attribute.partition('.')[0]}"

    def __str__(self) -> str:
        return f"{self.module}:{self.attribute}"


def bases_of(
    databases: Sequence[Database],
    module: str | None,
    root: Path,
    given: Mapping[str, str],
) -> dict[str, Symbol]:
    """Return the declarative base of each database.

    :param databases: those whose base is wanted, of one application.
    :param module: of the application, whose package may have the models; None for none.
    :param root: the project's directory.
    :param given: name of a database -> ``module:Base``; for the others the only base
        that can be meant is taken.
    :raises MigrationError: the base of a database cannot be told.
    """
    found = {one.name: Symbol.parse(given[one.name]) for one in databases if one.name in given}
    for symbol in found.values():
        _resolve(symbol)
    rest = [one.name for one in databases if one.name not in found]
    if not rest:
        return found
    candidates = [one for one in _candidates(module, root) if one not in found.values()]
    registered = list(databases[0].host.dbs)
    if len(registered) == 1 and len(candidates) == 1:
        return {rest[0]: candidates[0]}
    named = {name: [one for one in candidates if _is_called(one, name)] for name in rest}
    for name in rest:
        if len(named[name]) == 1:
            found[name] = named[name][0]
    rest = [name for name in rest if name not in found]
    unnamed = [one for one in candidates if not any(_is_called(one, name) for name in registered)]
    if len(rest) == 1 and len(unnamed) == 1:
        found[rest[0]], rest = unnamed[0], []
    if rest:
        raise _cannot_tell(rest[0], candidates, several=len(registered) > 1)
    return found


def _is_called(base: Symbol, name: str) -> bool:
    """Tell whether a base is of a database by its name: ``AuditModel``, ``audit.models:Base``."""
    plain = name.replace("_", "").lower()
    own = base.attribute.replace("_", "").lower()
    return own.startswith(plain) or name in base.module.split(".")


def _cannot_tell(name: str, candidates: Sequence[Symbol], *, several: bool) -> MigrationError:
    prefix = f"{name}=" if several else ""
    if candidates:
        shown = ", ".join(map(str, candidates))
        return MigrationError(
            f"the models of the database {name!r} could be those of {shown}; say which: "
            f"--models {prefix}{candidates[0]}"
        )
    return MigrationError(
        f"no declarative base was found for the models of the database {name!r}; write one "
        "(class Base(DeclarativeBase): ...) and name it: "
        f"--models {prefix}module:Base"
    )


def _resolve(symbol: Symbol) -> Any:
    """Return what a symbol stands for: a declarative base.

    :raises MigrationError: it is none.
    """
    try:
        value: Any = importlib.import_module(symbol.module)
        for part in symbol.attribute.split("."):
            value = getattr(value, part)
    except (ImportError, AttributeError) as error:
        raise MigrationError(f"the models {str(symbol)!r} cannot be found: {error}") from error
    metadata = value if isinstance(value, MetaData) else getattr(value, "metadata", None)
    if not isinstance(metadata, MetaData) or hasattr(value, "__mapper__"):
        raise MigrationError(
            f"{str(symbol)!r} is no declarative base; name the class that the models are made of"
        )
    return value


def _candidates(module: str | None, root: Path) -> list[Symbol]:
    """Return the declarative bases of the application's package, or beside its module."""
    if module is None:
        return []
    _import_usual(module, root)
    package = module.partition(".")[0]
    return sorted(set(_bases_in(_own_modules(package, root))), key=str)


def _own_modules(package: str, root: Path) -> list[ModuleType]:
    def is_own(name: str, module: ModuleType) -> bool:
        if name == package or name.startswith(f"{package}."):
            return True
        file = getattr(module, "__file__", None)
        return file is not None and os.path.dirname(os.path.abspath(file)) == str(root)

    # a module may be no module at all: some libraries put other objects there
    modules = [(name, one) for name, one in sys.modules.items() if isinstance(one, ModuleType)]
    return [one for name, one in modules if name != "__main__" and is_own(name, one)]


def _import_usual(module: str, root: Path) -> None:
    """Import what models are usually in, which the application may not have done."""
    beside = [name for name in USUAL if (root / f"{name}.py").exists() or (root / name).is_dir()]
    for path in [*(f"{one}.{name}" for one in _packages(module) for name in USUAL), *beside]:
        try:
            importlib.import_module(path)
        except ModuleNotFoundError as error:
            if error.name != path:
                raise


def _packages(module: str) -> Iterator[str]:
    """Yield the packages that a module is in, and itself if it is one."""
    if hasattr(sys.modules.get(module), "__path__"):
        yield module
    while "." in module:
        module = module.rpartition(".")[0]
        yield module


def _bases_in(modules: Iterable[ModuleType]) -> Iterator[Symbol]:
    for module in modules:
        for name, value in list(vars(module).items()):
            if _is_base(value) and getattr(value, "__module__", None) == module.__name__:
                yield Symbol(module.__name__, name)


def _is_base(value: object) -> bool:
    """Tell whether a class is what models are made of, and no model itself."""
    if not isinstance(value, type) or "__mapper__" in vars(value) or hasattr(value, "__mapper__"):
        return False
    return isinstance(vars(value).get("registry"), registry)


def modules_of(base: Symbol) -> set[str]:
    """Return the modules that define models of a base, as far as they are imported."""
    mapped = getattr(_resolve(base), "registry", None)
    mappers = mapped.mappers if isinstance(mapped, registry) else ()
    return {mapper.class_.__module__ for mapper in mappers} - {"__main__"}
