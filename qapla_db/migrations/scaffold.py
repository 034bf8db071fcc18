"""The files that migrations begin with: alembic.ini, env.py, the template of revisions.

Nothing that exists is overwritten.
"""

from __future__ import annotations

import configparser
import importlib
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from sqlalchemy.orm import registry

from qapla_db.database import Database
from qapla_db.errors import InvalidArgument, MigrationError, SettingMissing

__all__ = ["Application", "Scaffold", "Symbol", "scaffold"]

INI = "alembic.ini"

USUAL = ("models", "model", "db", "database")
"""Names of modules that are looked at where importing the application has shown no models."""

_ENV = """\
{imports}

AlembicEnv({application}, {model}, "{name}").run()
"""

_TEMPLATE = '''\
"""${message}

Revision: ${up_revision}
Revises: ${down_revision | comma,n}
Created: ${create_date}
"""

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    ${downgrades if downgrades else "pass"}
'''


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


@dataclass(frozen=True)
class Application:
    """How an ``env.py`` gets the application.

    :ivar lines: what it imports.
    :ivar expression: the application, to Python.
    :ivar module: name of its module, whose package may have the models; None for none.
    """

    lines: tuple[str, ...]
    expression: str
    module: str | None


@dataclass
class Scaffold:
    """What was written, what was there already, and what the user has to add."""

    written: list[Path] = field(default_factory=list)
    kept: list[Path] = field(default_factory=list)
    to_add: list[str] = field(default_factory=list)


def scaffold(
    databases: Sequence[Database],
    application: Application,
    root: Path,
    models: Mapping[str, str] | None = None,
) -> Scaffold:
    """Write what is missing of the migrations of databases.

    :param databases: prepared ones of one application.
    :param application: how ``env.py`` gets it.
    :param root: the project's directory, where ``alembic.ini`` is.
    :param models: name of a database -> ``module:Base``; where a name is missing the
        only declarative base that can be meant is taken.
    :returns: what was done.
    :raises MigrationError: the models of a database cannot be told.
    :raises OSError: a directory cannot be written to.
    """
    done = Scaffold()
    homes = {database.name: _home(database, root, done) for database in databases}
    missing = [one for one in databases if not (homes[one.name] / "env.py").exists()]
    bases = _bases_of(missing, application, root, models or {})
    for database in databases:
        home = homes[database.name]
        if database.name in bases:
            text = _env(database.name, application, bases[database.name])
            _write(home / "env.py", text, done)
        else:
            done.kept.append(home / "env.py")
        _write(home / "script.py.mako", _TEMPLATE, done)
        (home / "versions").mkdir(exist_ok=True)
    _write_ini(root, homes, done)
    return done


def _home(database: Database, root: Path, done: Scaffold) -> Path:
    """Return the directory of a database's migrations."""
    try:
        return Path(database.migrations_path).absolute()
    except SettingMissing:
        path = f"migrations/{database.name}"
        package = getattr(database.host, "settings_package", "settings").replace(".", "/")
        line = f'paths.set("{database.paths_key}", "{path}", "project_root")'
        done.to_add.append(f"{package}/default.py: {line}")
        return root / path


def _write(path: Path, text: str, done: Scaffold) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        done.kept.append(path)
    else:
        done.written.append(path)


def _env(name: str, application: Application, base: Symbol) -> str:
    imports = {"from qapla_db.env import AlembicEnv", *application.lines, base.line}
    modules = sorted(_modules_of(base) - {base.module})
    plain = [f"import {module}  # its models are tables of {name}" for module in modules]
    plain += [line for line in imports if line.startswith("import ")]
    lines = [*plain, *sorted(line for line in imports if not line.startswith("import "))]
    return _ENV.format(
        imports="\n".join(lines),
        application=application.expression,
        model=base.attribute,
        name=name,
    )


def _modules_of(base: Symbol) -> set[str]:
    """Return the modules that define models of a base, as far as they are imported."""
    mapped: registry = _resolve(base).registry
    return {mapper.class_.__module__ for mapper in mapped.mappers} - {"__main__"}


# --- alembic.ini


def _write_ini(root: Path, homes: Mapping[str, Path], done: Scaffold) -> None:
    path = root / INI
    is_new = not path.exists()
    here = "" if "%" in str(root) else "%(here)s/"
    common = ["path_separator = os", f"prepend_sys_path = {here[:-1] or '.'}"]
    parser = _parsed(path)
    taken = set(parser.sections())
    sections = []
    for name, home in homes.items():
        location = (
            f"{here}{home.relative_to(root).as_posix()}"
            if home.is_relative_to(root)
            else (str(home).replace("%", "%%"))
        )
        if home in _locations(parser, root):
            continue
        section = name if "alembic" in taken else "alembic"
        if section in taken:
            done.to_add.append(f"{path}: [{section}] script_location = {location}")
            continue
        taken.add(section)
        options = common if not is_new and "path_separator" not in parser.defaults() else []
        sections.append("\n".join([f"[{section}]", *options, f"script_location = {location}"]))
    if not sections:
        done.kept.append(path)
        return
    text = "\n\n".join(sections) + "\n"
    if is_new:
        template = "file_template = %%(year)d%%(month).2d%%(day).2d_%%(rev)s_%%(slug)s"
        _write(path, "\n".join(["[DEFAULT]", *common, template, "", text]), done)
        return
    with path.open("a", encoding="utf-8") as file:
        file.write(f"\n{text}")
    done.written.append(path)


def _parsed(path: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(path, encoding="utf-8")
    except (configparser.Error, ValueError) as error:
        raise MigrationError(
            f"{path} cannot be read: {' '.join(str(error).split())}; correct it, or move it away"
        ) from error
    return parser


def _locations(parser: configparser.ConfigParser, root: Path) -> Iterator[Path]:
    for section in parser.sections():
        value = parser[section].get("script_location", "").replace("%(here)s", str(root))
        if value:
            yield Path(os.path.normpath(root / value.replace("%%", "%")))


# --- the declarative bases


def _bases_of(
    databases: Sequence[Database],
    application: Application,
    root: Path,
    given: Mapping[str, str],
) -> dict[str, Symbol]:
    """Return the declarative base of each database."""
    found = {one.name: Symbol.parse(given[one.name]) for one in databases if one.name in given}
    for symbol in found.values():
        _resolve(symbol)
    rest = [one.name for one in databases if one.name not in found]
    if not rest:
        return found
    candidates = [one for one in _candidates(application, root) if one not in found.values()]
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
    if not _is_base(value):
        raise MigrationError(
            f"{str(symbol)!r} is no declarative base; name the class that the models are made of"
        )
    return value


def _candidates(application: Application, root: Path) -> list[Symbol]:
    """Return the declarative bases of the application's package, or beside its module."""
    if application.module is None:
        return []
    package = application.module.partition(".")[0]
    found = sorted(set(_bases_in(_own_modules(package, root))), key=str)
    if not found:
        _import_usual(application.module)
        found = sorted(set(_bases_in(_own_modules(package, root))), key=str)
    return found


def _own_modules(package: str, root: Path) -> list[ModuleType]:
    def is_own(name: str, module: ModuleType) -> bool:
        if name == package or name.startswith(f"{package}."):
            return True
        file = getattr(module, "__file__", None)
        return file is not None and os.path.dirname(os.path.abspath(file)) == str(root)

    # a module may be no module at all: some libraries put other objects there
    modules = [(name, one) for name, one in sys.modules.items() if isinstance(one, ModuleType)]
    return [one for name, one in modules if name != "__main__" and is_own(name, one)]


def _import_usual(module: str) -> None:
    packages = [module, *_parents(module), ""]
    for package in packages:
        for name in USUAL:
            path = f"{package}.{name}" if package else name
            with suppress(ModuleNotFoundError):
                importlib.import_module(path)


def _parents(module: str) -> Iterator[str]:
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
