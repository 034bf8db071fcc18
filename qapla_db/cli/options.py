"""The options that several commands have, and the choice of application, which all have."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from qapla_db.cli.output import WrongUsage, nothing_but_json

if TYPE_CHECKING:
    from qapla_db.cli.find import Found
    from qapla_db.database import Database

__all__ = [
    "All",
    "App",
    "Choice",
    "Debug",
    "Json",
    "Names",
    "NamesAndRevision",
    "SettingsPath",
    "Tests",
    "one_revision",
    "shared_options",
]

Names = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="NAMES",
        help="Names of databases; not needed where only one is registered.",
        show_default=False,
    ),
]
NamesAndRevision = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="NAMES REVISION",
        help="Names of databases, and a revision: an id, head, base, +1, -1.",
        show_default=False,
    ),
]
All = Annotated[bool, typer.Option("--all", help="All registered databases.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

_PANEL = "Application"

App = Annotated[
    str | None,
    typer.Option(
        "-A",
        "--app",
        metavar="MODULE:ATTRIBUTE",
        help="The application; else QAPLA_APP, or tool.qapla_db in pyproject.toml.",
        rich_help_panel=_PANEL,
        show_default=False,
    ),
]
SettingsPath = Annotated[
    str | None,
    typer.Option(
        "--settings_path",
        "--settings-path",
        metavar="DIR",
        help="Without an application: the directory of a settings.py with DB_CONFIG.",
        rich_help_panel=_PANEL,
        show_default=False,
    ),
]
Tests = Annotated[
    bool,
    typer.Option("--tests", help="Use the databases of the tests.", rich_help_panel=_PANEL),
]
Debug = Annotated[
    bool,
    typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel=_PANEL),
]

_SHARED: dict[str, Any] = {
    "shared_app": App,
    "shared_settings_path": SettingsPath,
    "shared_tests": Tests,
    "shared_debug": Debug,
}


@dataclass(frozen=True)
class Choice:
    """Which application a command works on, as the command line says it.

    :ivar app: ``-A``.
    :ivar settings_path: ``--settings_path``.
    :ivar tests: prepare it for tests.
    :ivar debug: show tracebacks.
    """

    app: str | None = None
    settings_path: str | None = None
    tests: bool = False
    debug: bool = False
    opened: list[Found] = field(default_factory=list, compare=False, repr=False)

    def with_more(
        self, app: str | None, settings_path: str | None, tests: bool, debug: bool
    ) -> Choice:
        """Return the choice after options behind the command's name, which win."""
        if app is not None or settings_path is not None:
            self = replace(self, app=app, settings_path=settings_path)
        return replace(self, tests=self.tests or tests, debug=self.debug or debug)

    def find(self) -> Found:
        """Find the application and prepare it for ``command``, or for ``tests``."""
        from qapla_db.cli.find import find, prepare

        found = find(self.app, self.settings_path)
        self.opened.append(found)
        prepare(found, "tests" if self.tests else "command")
        return found

    def dispose(self) -> None:
        """Close the connections that the command has left in pools."""
        for found in self.opened:
            found.dispose()

    def databases(self, names: list[str] | None, everything: bool) -> list[Database]:
        """Return the databases that were named, or all of them.

        :raises WrongUsage: a name is not registered, or none was given and there are several.
        """
        return self.find().databases(names or [], everything)

    def databases_and_others(
        self, words: list[str] | None, everything: bool
    ) -> tuple[list[Database], list[str]]:
        """Return the databases among the words, and the words that are something else."""
        found = self.find()
        names = [word for word in words or [] if word in found.host.dbs]
        others = [word for word in words or [] if word not in found.host.dbs]
        if not names and not everything and len(found.host.dbs) > 1 and others:
            raise WrongUsage(
                f"{', '.join(map(repr, others))} is no name of a database; name one or more of "
                f"{', '.join(found.host.dbs)}, or use --all"
            )
        return found.databases(names, everything), others


def one_revision(others: list[str], default: str | None) -> str:
    """Return the only word that is no database's name.

    :raises WrongUsage: there are several, or none and no default.
    """
    if len(others) > 1:
        raise WrongUsage(
            f"{', '.join(map(repr, others))}: one revision at most; the others are no names of "
            "databases"
        )
    if others and not others[0].strip():
        raise WrongUsage(
            "the revision is empty, as a variable of the shell that is not set; write its id, "
            "head or base"
        )
    if not others and default is None:
        raise WrongUsage("which revision? Write its id, base, or how many to go: -1")
    return others[0] if others else str(default)


def shared_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of :class:`Choice`, and the choice as its first argument."""
    # typer reads signature and annotations; both are of the module of the command
    hints = get_type_hints(function, include_extras=True)
    own = list(inspect.signature(function).parameters.values())[1:]
    parameters = [
        one.replace(annotation=hints[one.name], kind=inspect.Parameter.KEYWORD_ONLY) for one in own
    ]
    for name, annotation in _SHARED.items():
        default = False if name in ("shared_tests", "shared_debug") else None
        parameters.append(
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
            )
        )
    parameters.append(
        inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    )

    @functools.wraps(function)
    def run(*, ctx: Any, **arguments: Any) -> Any:
        shared = [arguments.pop(name) for name in _SHARED]
        root = ctx.find_root()
        root.obj = (root.obj or Choice()).with_more(*shared)
        with nothing_but_json() if arguments.get("as_json") else nullcontext():
            try:
                return function(root.obj, **arguments)
            finally:
                root.obj.dispose()

    del run.__wrapped__
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    return run
