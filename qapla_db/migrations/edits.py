"""Files of revisions that were edited after they were applied."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from alembic.script import Script, ScriptDirectory

from qapla_db.database import Database
from qapla_db.errors import Refused
from qapla_db.migrations.checksum import checksum_of, is_edited
from qapla_db.migrations.looking import expect_present, record_table
from qapla_db.migrations.position import script_of
from qapla_db.record import Applied, Record

__all__ = ["Edit", "accept_edits", "edits", "edits_in"]


@dataclass(frozen=True)
class Edit:
    """A revision that was applied, and whose file was edited since.

    :ivar script: the file as it is.
    :ivar applied: what the record says of it.
    """

    script: Script
    applied: Applied


def edits_in(script: ScriptDirectory, record: Record) -> Iterator[Edit]:
    """Yield the edited ones among the revisions of a record, the oldest first."""
    for one in reversed(list(script.walk_revisions())):
        applied = record.revisions.get(one.revision)
        if applied is not None and is_edited(one.path, applied.checksum):
            yield Edit(one, applied)


def edits(database: Database) -> list[Edit]:
    """Return the revisions of a live database that were edited after they were applied.

    :param database: a prepared database.
    :raises RecordMismatch: it is recorded under another name or environment.
    :raises ServerError: there is no file of it.
    """
    expect_present(database)
    with database.session(read_only=True) as session:
        record = record_table(database).check(session.connection(), database.settings)
    return [] if record is None else list(edits_in(script_of(database), record))


def accept_edits(database: Database, *, confirm: str) -> list[str]:
    """Take the files of revisions that were edited for those that were applied.

    It is for an edit that does to a database what the revision did before. From then on
    :func:`~qapla_db.migrations.check.check` does not name them any more.

    :param database: a prepared database.
    :param confirm: its name and environment, ``name@environment``.
    :returns: the revisions.
    :raises Refused: it is another database than the one that was confirmed.
    :raises RecordMismatch: it is recorded under another name or environment.
    """
    settings = database.settings
    identity = f"{settings.name}@{settings.environment.strip()}"
    if confirm != identity:
        raise Refused(
            f"the record of the database {settings.name!r} at {settings.address} is not changed: "
            f"it is {identity}, which is not {confirm!r}"
        )
    found = edits(database)
    now = [replace(one.applied, checksum=checksum_of(one.script.path)) for one in found]
    table = record_table(database)
    with database.transaction() as session:
        table.add(session.connection(), settings, now)
    return [one.revision for one in now]
