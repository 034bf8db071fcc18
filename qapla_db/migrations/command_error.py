"""Errors of ours in the manner of Alembic, whose command shows its own as one line."""

from __future__ import annotations

import os
import traceback

from alembic.util import CommandError

from qapla_db.errors import MigrationError, QaplaError

__all__ = ["as_command_error", "not_to_end_here"]


def as_command_error(error: QaplaError) -> QaplaError:
    """Return an error of ours as one that is Alembic's CommandError too."""
    if isinstance(error, CommandError):
        return error
    kind = _command_error(type(error))
    shown = kind.__new__(kind, error.message)
    shown.__dict__.update(error.__dict__)
    return shown


def not_to_end_here(error: SystemExit, name: str, directory: str) -> MigrationError:
    """Return the error for a revision that ends the program, which would look like success.

    :param name: the database's name.
    :param directory: its migrations directory.
    """
    inside = os.path.abspath(directory) + os.sep
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if os.path.abspath(frame.filename).startswith(inside)
    ]
    where = f"{frames[-1].filename}, line {frames[-1].lineno}," if frames else "something"
    notes = [note.removeprefix(f"{name}: ") for note in getattr(error, "__notes__", ())]
    message = (
        f"the migrations of the database {name!r} were not run to their end: {where} ends the "
        f"program (SystemExit: {error}). A revision that must not go on raises another error."
    )
    return MigrationError(" ".join([message, *notes]))


def _command_error(kind: type[QaplaError]) -> type[QaplaError]:
    def reduce(error: QaplaError) -> tuple[object, ...]:
        plain = kind.__new__(kind, error.message)
        plain.__dict__.update(error.__dict__)
        return as_command_error, (plain,)

    namespace = {"__reduce__": reduce, "__doc__": kind.__doc__, "__module__": kind.__module__}
    return type(kind.__name__, (kind, CommandError), namespace)
