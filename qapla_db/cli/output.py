"""What the commands print: lines and tables for people, JSON for machines, errors in a line."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import typer

from qapla_db.errors import QaplaError

if TYPE_CHECKING:
    from qapla_db.migrations.lint import Finding

__all__ = [
    "WrongUsage",
    "ask_to_type",
    "nothing_but_json",
    "on_terminal",
    "print_error",
    "print_finding",
    "print_json",
    "print_table",
    "say",
    "short",
    "yes_or_no",
]


class WrongUsage(QaplaError):
    """The command line asks for what does not exist; exit code 2."""


def say(line: str = "", *, err: bool = False) -> None:
    """Print a line."""
    typer.echo(line, err=err)


def on_terminal() -> bool:
    """Tell whether there is somebody who can be asked."""
    return _is_terminal(sys.stdin) and _is_terminal(sys.stdout)


def _is_terminal(stream: TextIO | None) -> bool:
    """Tell whether a stream, which Python lacks where the process got it closed, is a terminal."""
    return stream is not None and not stream.closed and stream.isatty()


def yes_or_no(question: str) -> bool:
    """Ask on the terminal; whatever is not yes is no.

    :raises typer.Abort: the end of the input is no answer.
    """
    try:
        answer = input(f"{question} [y/N] ")
    except EOFError:
        say()
        raise typer.Abort from None
    return answer.strip().lower() in ("y", "yes")


def ask_to_type(text: str, question: str) -> bool:
    """Ask on the terminal for a text, and tell whether it was typed."""
    say(question)
    try:
        return input("> ").strip() == text
    except EOFError:
        say()
        return False


_for_json: list[TextIO] = []


@contextmanager
def nothing_but_json() -> Iterator[None]:
    """Send what the application and its migrations print elsewhere: only JSON is printed.

    It goes to standard error, also what their own programs print.
    """
    own = sys.stdout
    if own is None:
        yield
        return
    with ExitStack() as stack:
        stack.callback(_for_json.clear)
        _for_json.append(stack.enter_context(_apart(own)))
        stack.enter_context(redirect_stdout(sys.stderr))
        yield


@contextmanager
def _apart(stream: TextIO) -> Iterator[TextIO]:
    """Yield a stream to where one leads, while the file descriptor 1 leads to standard error."""
    try:
        is_first = stream.fileno() == 1
        error = sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):  # there is no file behind it
        is_first = False
    if not is_first:
        yield stream
        return
    stream.flush()
    kept = os.dup(1)
    os.dup2(error, 1)
    try:
        with open(
            kept, "w", encoding=stream.encoding, errors=stream.errors, closefd=False
        ) as apart:
            yield apart
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def print_json(value: Any) -> None:
    """Print a value as JSON; what JSON does not know is written as text."""
    typer.echo(json.dumps(value, indent=2, default=str), file=_for_json[-1] if _for_json else None)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table: with lines on a terminal, as wide as it; in a pipe nothing is cut off.

    :param columns: their titles.
    """
    if _is_terminal(sys.stdout):
        _print_rich_table(columns, rows)
        return
    lines = [columns, *rows]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        say("  ".join(cells).rstrip())


def _print_rich_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in columns:
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    Console(highlight=False).print(table)


def print_error(error: BaseException, *, debug: bool) -> None:
    """Print an error as one line; with its traceback before when that was asked for.

    An error that is not of ours is of the user's code or of a library, so the line
    says where it was raised.
    """
    if debug:
        traceback.print_exception(error)
    line = f"{typer.style('error', fg='red')}: {_message(error)}"
    if not isinstance(error, QaplaError) and not debug:
        line += " (--debug shows the traceback)"
    say(line, err=True)


def _message(error: BaseException) -> str:
    if isinstance(error, QaplaError):
        return " ".join(error.message.split())
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}. Look who owns it, or use another directory"
    text = " ".join(str(error).split())
    kind = type(error).__name__
    if isinstance(error, SystemExit):
        return f"the project's code ends the program ({kind}: {text}){_place(error)}"
    return f"{kind}: {text}{_place(error)}" if text else f"{kind}{_place(error)}"


def _place(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return ""  # says it itself
    here = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if f"{os.sep}site-packages{os.sep}" not in frame.filename and frame.filename[:1] != "<"
    ]
    return f" ({here[-1].filename}, line {here[-1].lineno})" if here else ""


def print_finding(finding: Finding) -> None:
    """Print what lint has found, with the place where an editor finds it."""
    place = f"{short(finding.path)}:{finding.line}" if finding.line else short(finding.path)
    say(f"{place}: {finding.rule}: {finding.message}; {finding.remedy}")


def short(path: str | Path) -> str:
    """Return a path as seen from the working directory, where it is below it."""
    here = Path.cwd()
    return str(Path(path).relative_to(here) if Path(path).is_relative_to(here) else path)
