"""The commands that look into databases and models."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, NoReturn

import typer

from qapla_db.cli.options import All, Choice, Names
from qapla_db.cli.output import on_terminal, say

__all__ = ["COMMANDS"]


def diagram(choice: Choice, names: Names = None, everything: All = False) -> None:
    """Print the entity-relationship diagram of the models, as Mermaid."""
    from qapla_db.cli.diagram import mermaid
    from qapla_db.cli.explain import explained
    from qapla_db.migrations.models import models_of

    databases = choice.databases(names, everything)
    for database in databases:
        with explained(database):
            text = mermaid(models_of(database))
        if len(databases) > 1:
            say(f"%% {database.name}")
        say(text.rstrip())


def shell(choice: Choice) -> None:
    """Start Python with the application, its databases, a session of each and the models.

    IPython is used where it is installed. Nothing is committed that you do not commit.
    """
    from contextlib import ExitStack

    found = choice.find()
    with ExitStack() as stack:
        names: dict[str, Any] = {"app": found.host, "dbs": found.host.dbs}
        for database in found.host.dbs.values():
            names |= {key: one for key, one in _models(database).items() if key not in names}
        for database in found.host.dbs.values():
            names[database.name] = stack.enter_context(database.session())
        _interact(names, f"app, dbs; sessions: {', '.join(found.host.dbs)}")


def _models(database: Any) -> dict[str, type]:
    """Return the mapped classes of a database by their names; none without migrations."""
    from qapla_db.errors import QaplaError
    from qapla_db.migrations.models import models_of

    try:
        wanted = models_of(database)
    except QaplaError as error:
        say(f"{database.name}: no models, for {error.message}", err=True)
        return {}
    modules = [module for module in list(sys.modules.values()) if isinstance(module, ModuleType)]
    return {
        value.__name__: value
        for module in modules
        for value in list(vars(module).values())
        if isinstance(value, type)
        and "__mapper__" in vars(value)
        and any(getattr(value, "metadata", None) is one for one in wanted)
    }


def _interact(names: dict[str, Any], greeting: str) -> None:
    try:
        from IPython import start_ipython  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        pass  # outside of the block, lest every traceback of the user begins with this one
    else:
        start_ipython(argv=["--no-banner"], user_ns=names)
        return
    import code

    banner = f"Python {sys.version.split()[0]}\n{greeting}"
    try:
        code.interact(banner=banner if on_terminal() else "", local=names, exitmsg="")
    except SystemExit as error:  # exit() was called
        _end_with(error.code)


def _end_with(code: str | int | None) -> NoReturn:
    """End the program as Python does with the code of a ``SystemExit``."""
    if isinstance(code, str):
        say(code, err=True)
        code = 1
    raise typer.Exit(code or 0)


COMMANDS: dict[str, Callable[..., None]] = {"diagram": diagram, "shell": shell}
