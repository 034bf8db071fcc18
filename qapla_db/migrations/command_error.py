"""Errors of ours in the manner of Alembic, whose command shows its own as one line."""

from __future__ import annotations

from alembic.util import CommandError

from qapla_db.errors import QaplaError

__all__ = ["as_command_error"]


def as_command_error(error: QaplaError) -> QaplaError:
    """Return an error of ours as one that is Alembic's CommandError too."""
    if isinstance(error, CommandError):
        return error
    kind = _command_error(type(error))
    shown = kind.__new__(kind, error.message)
    shown.__dict__.update(error.__dict__)
    return shown


def _command_error(kind: type[QaplaError]) -> type[QaplaError]:
    def reduce(error: QaplaError) -> tuple[object, ...]:
        plain = kind.__new__(kind, error.message)
        plain.__dict__.update(error.__dict__)
        return as_command_error, (plain,)

    namespace = {"__reduce__": reduce, "__doc__": kind.__doc__, "__module__": kind.__module__}
    return type(kind.__name__, (kind, CommandError), namespace)
