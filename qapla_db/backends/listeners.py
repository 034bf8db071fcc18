"""What an engine listens to: how it connects, and what becomes of errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import ExceptionContext

from qapla_db.backends.states import is_read_only
from qapla_db.errors import SettingInvalid

if TYPE_CHECKING:
    from qapla_db.backends.base import Backend

__all__ = ["Connect", "ErrorMap"]


class Connect:
    """Listener: connects, and says where a keyword is from that the driver does not take."""

    def __init__(self, backend: Backend, label: str, key: str) -> None:
        self.backend = backend
        self.label = label
        self.key = key

    def __call__(
        self, dialect: sa.Dialect, record: object, arguments: Any, keywords: dict[str, Any]
    ) -> Any:
        try:
            return dialect.connect(*arguments, **keywords)
        except Exception as error:
            if not self.backend.refuses_arguments(error):
                raise
            problem = str(error).strip()
        # outside the handler: the chained error's frames would show the password to a debugger
        raise SettingInvalid(
            f"the driver of the database {self.label!r} cannot be called: {problem}; correct the "
            f"query of {self.key!r} or 'connect_args' in 'db:{self.label}:options'",
            key=self.key,
        )


class ErrorMap:
    """Listener: maps what the driver says to what SQLAlchemy does with the connection."""

    def __init__(self, backend: Backend, note: str) -> None:
        self.backend = backend
        self.note = note

    def __call__(self, context: ExceptionContext) -> None:
        backend, wrapped = self.backend, context.sqlalchemy_exception
        connection = context.connection
        is_told_to_end = not isinstance(context.original_exception, Exception)
        if is_told_to_end and connection is not None:
            # SQLAlchemy is about to throw the connection away, with its statement running
            backend.stop_statement(connection)
        if not isinstance(wrapped, sa.exc.DBAPIError):
            return
        code = backend.error_code(context.original_exception)
        if code in backend.lost_codes and not (
            code in backend.read_only_codes and connection is not None and is_read_only(connection)
        ):
            context.is_disconnect = True
        if connection is None:
            wrapped.add_note(self.note)
