"""The entry point of ``qapla-db``: the commands, and one place for errors and exit codes.

Exit codes: 0 done, or yes; 1 the answer is no; 2 wrong usage; 3 an error, such as a
server that is down or a refusal; 130 Ctrl-C.

The modules of the commands import at their top nothing but typer, so that ``--help``
is quick; a command imports what it needs.
"""

from __future__ import annotations

import re
import sys
from typing import Annotated, Any

import typer
import typer.core

from qapla_db import __version__
from qapla_db.cli import checks, databases, inspect, record, revisions, upgrades
from qapla_db.cli.options import App, Choice, Debug, SettingsPath, Tests, shared_options
from qapla_db.cli.output import WrongUsage, print_error, say

__all__ = ["app", "run"]

_WRONG_USAGE, _ERROR, _INTERRUPTED = 2, 3, 130

# UsageError, which typer does not export, is the base of BadParameter
_ITS_OWN: Any = (typer.Exit, typer.Abort, typer.BadParameter.__bases__[0], BrokenPipeError)
"""What typer itself handles."""


_STEPS = re.compile(r"-\d+")


class Commands(typer.core.TyperGroup):
    """The commands, with errors shown as one line."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except _ITS_OWN:
            raise
        except KeyboardInterrupt:
            if sys.stderr is not None and sys.stderr.isatty():
                say(err=True)  # the shell goes on in a line of its own
            raise
        except (Exception, SystemExit) as error:
            # whatever code a module of the project ends with: the command has not done its work
            print_error(error, debug=isinstance(ctx.obj, Choice) and ctx.obj.debug)
            raise typer.Exit(_WRONG_USAGE if isinstance(error, WrongUsage) else _ERROR) from None


class Command(typer.core.TyperCommand):
    """A command, to which ``-1`` is a revision and not an option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        rest: list[str] = []
        steps: list[str] = []
        for one in args[:end]:
            is_value = bool(rest) and rest[-1] in self._before_a_value
            (steps if _STEPS.fullmatch(one) and not is_value else rest).append(one)
        if steps:
            args = [*rest, "--", *steps, *args[end + 1 :]]
        return super().parse_args(ctx, args)

    @property
    def _before_a_value(self) -> set[str]:
        """The options that take the word behind them."""
        options = (one for one in self.params if not getattr(one, "is_flag", True))
        return {name for one in options for name in one.opts}


app = typer.Typer(
    cls=Commands,
    name="qapla-db",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        say(f"qapla-db {__version__}")
        raise typer.Exit


@app.callback()
def main(
    ctx: typer.Context,
    app: App = None,
    settings_path: SettingsPath = None,
    tests: Tests = False,
    debug: Debug = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """The databases of an application: make them, migrate them, look after them.

    The application is named by -A module:attribute, by QAPLA_APP, or by app
    under tool.qapla_db in pyproject.toml. Commands take names of databases, or --all.
    """
    ctx.obj = Choice().with_more(app, settings_path, tests, debug)


def _register() -> None:
    for module in (revisions, upgrades, databases, record, checks, inspect):
        for name, function in module.COMMANDS.items():
            second = f"A second name of {function.__name__}." if _is_alias(name, function) else None
            app.command(name, cls=Command, help=second)(shared_options(function))


def _is_alias(name: str, function: Any) -> bool:
    return name.replace("-", "_") != str(function.__name__)


_register()


def run() -> None:
    """Run the command line of this process."""
    try:
        app(prog_name="qapla-db")
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
