"""Every error that qapla_db raises.

::

    QaplaError
    ├── ConfigurationError
    │   ├── SettingMissing
    │   ├── SettingInvalid (ValueError)
    │   ├── SettingsModuleMissing
    │   └── DriverMissing
    ├── LifecycleError
    │   ├── NotPrepared
    │   ├── AlreadyPrepared
    │   ├── Closed
    │   └── RequestEnded
    ├── Misuse (TypeError)
    ├── InvalidArgument (ValueError)
    ├── UnknownDatabase (KeyError)
    ├── Refused
    ├── ReadOnlyError
    ├── SessionConflict
    ├── TransactionFailed
    ├── ServerError
    ├── NotFound
    ├── PageNotFound
    ├── MultipleFound
    ├── Conflict
    ├── Unsupported
    ├── UnknownField (InvalidArgument)
    ├── InvalidRow (InvalidArgument)
    ├── InvalidToken (InvalidArgument)
    ├── MigrationError
    │   ├── MigrationLockTimeout
    │   ├── MigrationIncomplete
    │   └── RecordMismatch
    ├── SandboxError
    │   ├── SandboxConflict
    │   └── SandboxBroken
    ├── DatabaseNotNamed (AssertionError)
    ├── Leak (AssertionError)
    ├── RehearsalFailed (AssertionError)
    └── UnexpectedQueries (AssertionError)

A message names the database, the setting or argument at fault and the next
step. No message carries a password.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = [
    "AlreadyPrepared",
    "Closed",
    "ConfigurationError",
    "Conflict",
    "DatabaseNotNamed",
    "DriverMissing",
    "InvalidArgument",
    "InvalidRow",
    "InvalidToken",
    "Leak",
    "LifecycleError",
    "MigrationError",
    "MigrationIncomplete",
    "MigrationLockTimeout",
    "Misuse",
    "MultipleFound",
    "NotFound",
    "NotPrepared",
    "PageNotFound",
    "QaplaError",
    "ReadOnlyError",
    "RecordMismatch",
    "Refused",
    "RehearsalFailed",
    "RequestEnded",
    "SandboxBroken",
    "SandboxConflict",
    "SandboxError",
    "ServerError",
    "SessionConflict",
    "SettingInvalid",
    "SettingMissing",
    "SettingsModuleMissing",
    "TransactionFailed",
    "UnexpectedQueries",
    "UnknownDatabase",
    "UnknownField",
    "Unsupported",
]


class QaplaError(Exception):
    """Root of every error of qapla_db."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[object, ...]:
        # Celery and multiprocessing send errors between processes
        return _restore, (type(self), self.__dict__.copy())


def _restore(cls: type[QaplaError], state: dict[str, object]) -> QaplaError:
    error = cls.__new__(cls, state["message"])
    error.__dict__.update(state)
    return error


class ConfigurationError(QaplaError):
    """The settings do not describe a usable database or application."""


class SettingMissing(ConfigurationError):
    """A required setting is not there."""

    def __init__(self, message: str, *, key: str) -> None:
        super().__init__(message)
        self.key = key


class SettingInvalid(ConfigurationError, ValueError):
    """A setting is there, but its value cannot be used."""

    def __init__(self, message: str, *, key: str) -> None:
        super().__init__(message)
        self.key = key


class SettingsModuleMissing(ConfigurationError):
    """A required settings module cannot be found."""


class DriverMissing(ConfigurationError):
    """The driver of a database is not installed."""


class LifecycleError(QaplaError):
    """The application is in another phase than the call needs."""


class NotPrepared(LifecycleError):
    """The application or database was used before it was prepared."""


class AlreadyPrepared(LifecycleError):
    """The application is prepared, for another endpoint."""


class Closed(LifecycleError):
    """The application or database was used after it was closed."""


class RequestEnded(LifecycleError):
    """A session of a request was asked for after the request had ended."""


class Misuse(QaplaError, TypeError):
    """A part of qapla_db was used in a way that cannot work."""


class InvalidArgument(QaplaError, ValueError):
    """An argument has a value that cannot be used."""


class UnknownDatabase(QaplaError, KeyError):
    """No database of this name is registered."""

    def __init__(self, name: object, known: Iterable[str]) -> None:
        self.name = name
        self.known = tuple(known)
        names = ", ".join(repr(one) for one in self.known) or "none"
        super().__init__(
            f"no database is named {name!r}; registered: {names}. "
            "Register it with add_database_app([Database(...)]) in append_app_plugins()"
        )


class Refused(QaplaError):
    """A destructive step was refused, because it could hit data that matters."""


class ReadOnlyError(QaplaError):
    """A read-only session was asked to write."""


class SessionConflict(QaplaError):
    """Two sessions of one thread would wait for each other for ever."""


class TransactionFailed(QaplaError):
    """A commit was asked for, but a statement has failed and the server stores nothing."""


class ServerError(QaplaError):
    """A database server could not be started, reached or used."""


class NotFound(QaplaError):
    """The row that was asked for does not exist."""

    def __init__(self, model: type[object], key: object) -> None:
        self.model = model
        self.key = key
        super().__init__(f"{model.__name__} with the primary key {key!r} does not exist")


class PageNotFound(QaplaError):
    """A page beyond the last one was asked for.

    :ivar page: its number.
    :ivar pages: how many there are, None where that is not known.
    """

    def __init__(self, message: str, *, page: int, pages: int | None) -> None:
        super().__init__(message)
        self.page = page
        self.pages = pages


class MultipleFound(QaplaError):
    """More than one row answers where at most one was expected."""


class Conflict(QaplaError):
    """A row would break a rule of the database, most often that a key is unique.

    :ivar model: the mapped class.
    :ivar row: the number of the row, counted from 0, where several were given.
    :ivar field: the field at fault, where it is known.
    """

    def __init__(
        self,
        message: str,
        *,
        model: type[object],
        row: int | None = None,
        field: str | None = None,
    ) -> None:
        super().__init__(message)
        self.model = model
        self.row = row
        self.field = field


class Unsupported(QaplaError):
    """This database, or this model, cannot do what was asked for without a risk to the data."""


class InvalidRow(InvalidArgument):
    """A row of many cannot be stored.

    :ivar row: its number, counted from 0.
    :ivar field: the field at fault, where it is known.
    """

    def __init__(self, message: str, *, row: int, field: str | None = None) -> None:
        super().__init__(message)
        self.row = row
        self.field = field


class InvalidToken(InvalidArgument):
    """A token of a keyset page is malformed, or belongs to another ordering."""


class UnknownField(InvalidArgument):
    """A model has no attribute of this name.

    :ivar row: the number of the row, counted from 0, where several were given.
    """

    def __init__(
        self,
        model: type[object],
        unknown: Iterable[str],
        known: Iterable[str],
        *,
        row: int | None = None,
    ) -> None:
        self.model = model
        self.unknown = tuple(unknown)
        self.known = tuple(known)
        self.row = row
        where = "" if row is None else f"row {row}: "
        super().__init__(
            f"{where}{model.__name__} has no field {', '.join(map(repr, self.unknown))}; "
            f"its fields are {', '.join(self.known)}"
        )


class MigrationError(QaplaError):
    """A migration could not be run."""


class MigrationLockTimeout(MigrationError):
    """Another process is migrating the same database."""


class MigrationIncomplete(MigrationError):
    """After a migration the database is not where it should be."""


class RecordMismatch(MigrationError):
    """A database is recorded under another name or environment than the settings say."""


class SandboxError(QaplaError):
    """The isolation of a test could not be kept."""


class SandboxConflict(SandboxError):
    """Two sessions of a test wrote in an order that one connection cannot show."""


class SandboxBroken(SandboxError):
    """Something ended the outer transaction of a test behind the sandbox."""


class DatabaseNotNamed(QaplaError, AssertionError):
    """A test used a database that it had not named."""


class Leak(QaplaError, AssertionError):
    """A test left connections checked out, or threads running."""


class RehearsalFailed(QaplaError, AssertionError):
    """The rehearsal of an upgrade found what no revision declares."""


class UnexpectedQueries(QaplaError, AssertionError):
    """A block of a test sent other statements than it said."""
