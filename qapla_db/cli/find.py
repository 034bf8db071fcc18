"""Where the application comes from: command line, environment, pyproject.toml or settings.py."""

from __future__ import annotations

import importlib
import os
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from qapla_db.application import DatabaseMixin
from qapla_db.cli.output import WrongUsage
from qapla_db.cli.standalone import SETTINGS, settings_application
from qapla_db.database import Database
from qapla_db.errors import AlreadyPrepared, ConfigurationError, QaplaError

__all__ = ["Found", "find", "prepare"]

VARIABLE = "QAPLA_APP"

_WAYS = (
    'name it with -A module:attribute, in QAPLA_APP, or as app = "module:attribute" in '
    "[tool.qapla_db] of pyproject.toml; or name the directory of a settings.py with DB_CONFIG: "
    "--settings_path DIR"
)


@dataclass(frozen=True)
class Found:
    """An application, and how it was found.

    :ivar host: the application, not prepared by us yet.
    :ivar text: ``module:attribute``; None for one that is made of a ``settings.py``.
    :ivar origin: where the text stands, for messages.
    :ivar root: the project's directory.
    :ivar called: the attribute was called to get the application: a class or a factory.
    """

    host: Any
    text: str | None
    origin: str
    root: Path
    called: bool = False

    def databases(self, names: Sequence[str], everything: bool) -> list[Database]:
        """Return databases by name, or all of them.

        :raises WrongUsage: a name is not registered, or none was given and there are several.
        """
        known = self.host.dbs
        unknown = [name for name in names if name not in known]
        registered = ", ".join(known)
        if not known:
            raise WrongUsage(
                f"the application of {self.origin} has no databases; register them with "
                "add_database_app([Database(...)]) in append_app_plugins()"
            )
        if unknown:
            raise WrongUsage(
                f"no database is named {', '.join(map(repr, unknown))}; there are: {registered}"
            )
        if names and everything:
            raise WrongUsage("name databases or use --all, not both")
        if not names and not everything and len(known) > 1:
            raise WrongUsage(f"which database? Name one or more of {registered}, or use --all")
        return [known[name] for name in dict.fromkeys(names)] or list(known.values())

    def dispose(self) -> None:
        """Close the connections in the pools of the application."""
        for database in vars(self.host).get("_dbs", {}).values():
            database.dispose()


def find(app: str | None, settings_path: str | None) -> Found:
    """Find the application.

    :param app: ``module:attribute``: an application, or a class or function without
        arguments that makes one.
    :param settings_path: directory of a ``settings.py`` with ``DB_CONFIG``.
    :raises WrongUsage: nothing is said, or what is said does not lead to an application.
    """
    here = _working_directory()
    if app is not None and settings_path is not None:
        raise WrongUsage("-A names an application and --settings_path does without; use one")
    if settings_path is not None:
        return _from_settings(Path(settings_path).absolute())
    if app is not None:
        return _load(app, "-A", here)
    if os.environ.get(VARIABLE):
        return _load(os.environ[VARIABLE], VARIABLE, here)
    for directory in (here, *here.parents):
        text = _in_pyproject(directory / "pyproject.toml")
        if text is not None:
            return _load(text, str(directory / "pyproject.toml"), directory)
    if (here / SETTINGS).is_file():
        return _from_settings(here)
    raise WrongUsage(f"there is no application: {_WAYS}")


def prepare(found: Found, endpoint: str) -> None:
    """Prepare the application, unless it is prepared for the same.

    :param endpoint: ``command`` or ``tests``.
    :raises AlreadyPrepared: its module prepares it for something else.
    """
    host = found.host
    actual = getattr(host, "endpoint", None)
    if actual is None and hasattr(host, "prepare"):
        host.prepare(endpoint)
    elif actual not in (None, endpoint):
        raise AlreadyPrepared(
            f"importing {found.text!r} ({found.origin}) prepares the application for {actual!r}, "
            f"and this command needs it for {endpoint!r}; name a module that only makes the "
            "application and leaves run_*() to others"
        )


def _working_directory() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError:
        raise WrongUsage("the working directory was deleted; change to one that is there") from None


def _in_pyproject(path: Path) -> str | None:
    """Return what a pyproject.toml names, None when it names nothing."""
    if not path.is_file():
        return None
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WrongUsage(f"{path} cannot be read: {error}") from None
    section = content.get("tool", {}).get("qapla_db")
    if section is None:
        return None
    text = section.get("app") if isinstance(section, dict) else None
    if not isinstance(text, str) or not text:
        raise WrongUsage(
            f"[tool.qapla_db] in {path} does not name the application; write "
            'app = "module:attribute"'
        )
    return text


def _from_settings(directory: Path) -> Found:
    _put_on_path(directory, Path.cwd())
    host = settings_application(directory)
    return Found(host, None, str(directory / SETTINGS), directory)


# --- module:attribute


def _load(text: str, origin: str, root: Path) -> Found:
    name, colon, attribute = text.partition(":")
    parts = name.split(".") + (attribute.split(".") if colon else [])
    if not all(part.isidentifier() for part in parts):
        raise WrongUsage(f"{origin} says {text!r}; write module:attribute, such as shop.app:main")
    _put_on_path(root)
    module = _import(name, origin, root)
    if not colon:
        raise WrongUsage(f"{origin} says {text!r}; write {_suggestion(module)}")
    value: Any = module
    for part in attribute.split("."):
        try:
            value = getattr(value, part)
        except AttributeError:
            raise WrongUsage(
                f"{origin} says {text!r}, but {name} has no {attribute!r}; write "
                f"{_suggestion(module)}"
            ) from None
    called = not _is_host(value)
    return Found(_call(value, text, origin) if called else value, text, origin, root, called)


def _is_host(value: object) -> bool:
    if isinstance(value, type | ModuleType):
        return False
    return isinstance(value, DatabaseMixin) or callable(getattr(value, "prepare", None))


def _call(value: Any, text: str, origin: str) -> Any:
    """Return what a class or a factory makes."""
    made = None
    if callable(value):
        try:
            made = value()
        except TypeError as error:
            if error.__traceback__ is not None and error.__traceback__.tb_next is not None:
                raise _failed(f"calling {text!r} ({origin})", error) from error
            raise WrongUsage(
                f"{origin} says {text!r}, which cannot be called without arguments: {error}"
            ) from None
        except (Exception, SystemExit) as error:
            raise _failed(f"calling {text!r} ({origin})", error) from error
    if not _is_host(made):
        kind = type(value if made is None else made).__name__
        raise WrongUsage(
            f"{origin} says {text!r}, which is no application but of the type {kind}; name a "
            "DatabaseApplication, its class, or a function that makes one"
        )
    return made


def _import(name: str, origin: str, root: Path) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise _failed(f"importing {name} ({origin})", error) from error
        raise WrongUsage(
            f"{origin} names the module {name!r}, but there is no {error.name!r} in {root} and "
            "none is installed"
        ) from None
    except (Exception, SystemExit) as error:
        raise _failed(f"importing {name} ({origin})", error) from error


def _failed(what: str, error: BaseException) -> QaplaError:
    """Return the error of the user's code that failed before there was an application."""
    if isinstance(error, QaplaError):
        return error
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    if isinstance(error, SyntaxError):
        place = ""  # says it itself
    return ConfigurationError(f"{what} failed: {type(error).__name__}: {error}{place}")


def _suggestion(module: ModuleType) -> str:
    hosts = [name for name, value in vars(module).items() if _is_host(value)]
    return " or ".join(f"{module.__name__}:{name}" for name in hosts) or (
        f"{module.__name__}:attribute, the attribute being an application"
    )


def _put_on_path(*directories: Path) -> None:
    for directory in reversed(directories):
        if str(directory) not in sys.path:
            sys.path.insert(0, str(directory))
