"""Where the databases stand: for people, for a readiness probe and for the start of a process."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

import sqlalchemy as sa
from alembic.script import ScriptDirectory
from alembic.util import CommandError

from qapla_db.database import Database
from qapla_db.errors import (
    MigrationError,
    QaplaError,
    SettingMissing,
)
from qapla_db.migrations.drift import differences
from qapla_db.migrations.looking import expect_present, look_at, probe, version_table_of
from qapla_db.migrations.position import Position, position, script_of
from qapla_db.record import RecordTable
from qapla_db.record_reader import has_answered
from qapla_db.registry import Host
from qapla_db.session import Session

__all__ = [
    "DatabaseStatus",
    "assert_migrated",
    "status_of",
]


@dataclass(frozen=True)
class DatabaseStatus:
    """Where one database stands.

    :ivar name: its name in the application.
    :ivar address: its URL without password.
    :ivar environment: ``db:<name>:environment``.
    :ivar exists: whether it is on its server; None when that cannot be told.
    :ivar reachable: whether it answers.
    :ivar problem: what is wrong, with the next step; None when nothing is.
    :ivar server: kind and version of its server.
    :ivar current: the revisions that it is at.
    :ivar heads: the last revisions of its migrations directory.
    :ivar pending: what an upgrade would apply, in its order; None when that cannot be told.
    :ivar unknown: revisions that it is at and the directory does not have: newer
        code has migrated it, or another branch.
    :ivar drift: where its models differ from it; None when that was not asked for,
        or cannot be told.
    :ivar migrating: who migrates it now; None when nobody does, or that cannot be told.
    :ivar recorded: whether its record, where it has one, is as the settings say.
    """

    name: str
    address: str
    environment: str
    exists: bool | None = None
    reachable: bool = False
    problem: str | None = None
    server: str | None = None
    current: tuple[str, ...] = ()
    heads: tuple[str, ...] = ()
    pending: tuple[str, ...] | None = None
    unknown: tuple[str, ...] = ()
    drift: tuple[str, ...] | None = None
    migrating: str | None = None
    recorded: bool = True

    @property
    def ready(self) -> bool:
        """Whether this code can work with it: it answers, and lacks no revision of ours.

        One that is recorded under another name or environment is not the one that is meant.

        One that newer code has migrated further is ready, so that the processes of
        before go on while new ones start.
        """
        return self.reachable and self.recorded and self.pending == ()

    def as_json(self) -> dict[str, Any]:
        """Return it in types that JSON has."""
        found = {**asdict(self), "ready": self.ready}
        return {key: list(one) if isinstance(one, tuple) else one for key, one in found.items()}


def status_of(database: Database, *, drift: bool = False) -> DatabaseStatus:
    """Return where a database stands; it may be down, missing or broken.

    So may its migrations directory: what its code raises is a problem of the status.

    :param database: a prepared database.
    :param drift: compare its models with it too, which takes longer.
    """
    settings = database.settings
    status = DatabaseStatus(settings.name, settings.address, settings.environment)
    try:
        probe(database)
    except QaplaError as error:
        status = replace(status, problem=error.message, exists=_exists(database, error))
    else:
        status = replace(status, reachable=True, exists=True)
    try:
        script = script_of(database)
        status = replace(status, heads=tuple(sorted(script.get_heads())))
        if status.reachable:
            status = _looked(database, script, status)
        if drift and status.reachable and status.pending == () and not status.unknown:
            status = replace(status, drift=tuple(differences(database)))
    except (QaplaError, CommandError, sa.exc.SQLAlchemyError) as error:
        status = replace(status, problem=status.problem or _one_line(error))
    except Exception as error:  # the files of a directory may raise anything
        status = replace(status, problem=status.problem or _broken(database, error))
    return status


def _broken(database: Database, error: Exception) -> str:
    return (
        f"the migrations of the database {database.name!r} cannot be read: "
        f"{type(error).__name__}: {_one_line(error)}. Correct the files in "
        f"{database.migrations_path}; a KeyError is a revision whose file is missing"
    )


def _exists(database: Database, error: QaplaError) -> bool | None:
    """Tell whether a database is there that cannot be connected to; None without an answer."""
    if database.backend.is_server and not has_answered(database.settings, error.__cause__):
        return None  # it would be waited for again
    with suppress(QaplaError, sa.exc.SQLAlchemyError):
        return database.exists()
    return None


def _looked(database: Database, script: ScriptDirectory, status: DatabaseStatus) -> DatabaseStatus:
    found = look_at(database)
    where = position(script, found.current, found.record.revisions if found.record else ())
    return replace(
        status,
        server=found.server,
        migrating=found.migrating,
        recorded=found.mismatch is None,
        current=where.current,
        pending=where.pending,
        unknown=where.unknown,
        problem=found.mismatch or (_unknown(database, where) if where.pending is None else None),
    )


def _unknown(database: Database, where: Position) -> str:
    return (
        f"the database {database.name!r} is at {', '.join(where.unknown)}, which "
        f"{database.migrations_path} does not have: newer code or another branch has migrated "
        "it, or the file was deleted. Update this code, or bring the file back"
    )


def _one_line(error: BaseException) -> str:
    return " ".join(str(getattr(error, "orig", None) or error).split())


# --- at the start of a process


def assert_migrated(app: Host) -> None:
    """Raise unless every database of an application has all revisions of this code.

    It is for the start of a process, and cheap: one query for each database, which
    opens the connection that the process needs anyway. A database without a
    migrations directory in ``paths`` is passed over; one that newer code has
    migrated further is right.

    :param app: a prepared application.
    :raises MigrationError: a database is behind, or cannot be asked; the message
        names each and the command to run.
    """
    problems: list[str] = []
    behind: list[str] = []
    for database in app.dbs.values():
        try:
            where = _where(database)
        except SettingMissing:
            continue
        except (QaplaError, sa.exc.SQLAlchemyError) as error:
            problems.append(f"{_called(database)} cannot be asked: {_one_line(error)}")
            continue
        if where.pending is None:
            problems.append(_unknown(database, where))
        elif where.pending:
            behind.append(database.name)
            problems.append(
                f"{_called(database)} is at {', '.join(where.current) or 'base'} and lacks "
                f"{', '.join(where.pending)}"
            )
    if problems:
        run = f". Run: qapla-db upgrade {' '.join(behind)}" if behind else ""
        raise MigrationError(f"{'; '.join(problems)}{run}")


def _called(database: Database) -> str:
    return f"the database {database.name!r} at {database.settings.address}"


def _where(database: Database) -> Position:
    script = script_of(database)
    table, schema = version_table_of(database)
    expect_present(database)
    with database.session(read_only=True) as session:
        found = position(script, _current(session, table, schema))
        if found.unknown:
            record = RecordTable(table, schema).read(session.connection())
            found = position(script, found.current, record.revisions if record else ())
    return found


def _current(session: Session, table: str, schema: str | None) -> list[str]:
    versions = sa.table(table, sa.column("version_num"), schema=schema)
    try:
        return list(session.scalars(sa.select(versions.c.version_num)))
    except sa.exc.DBAPIError:
        # asked only now, so that a database that is migrated is asked one thing
        session.rollback()
        if sa.inspect(session.connection()).has_table(table, schema=schema):
            raise
        return []
