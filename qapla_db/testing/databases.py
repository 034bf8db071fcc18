"""The test databases of a run: made once, and again after a test that really committed."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable

import sqlalchemy as sa

from qapla_db.database import Database
from qapla_db.errors import ServerError
from qapla_db.migrations.commands import recreate
from qapla_db.record import sharing
from qapla_db.testing.contents import are_unchanged, content_of, files_read
from qapla_db.testing.templates import Templates, templates_of

__all__ = ["TestDatabase", "physical"]

log = logging.getLogger("qapla_db")

MOST_RUNS = 50
"""Runs of the same tests at one time."""


def physical(databases: Iterable[Database]) -> list[list[Database]]:
    """Group names of databases that are one database on a server."""
    found: list[list[Database]] = []
    for database in databases:
        if not any(database in group for group in found):
            found.append(sharing(database))
    return found


class TestDatabase:
    """One database of the tests, under all its names.

    Migrated once it is kept as a template, and made from that by the runs that follow, as long
    as nothing is changed that migrations depend on.

    :param databases: its names, prepared for tests and not used yet.
    :param rebuild: migrate it anew even if there is a template.
    :ivar restored: how often it was made again what it was.
    """

    __test__ = False

    def __init__(self, databases: list[Database], *, rebuild: bool = False) -> None:
        self.databases = databases
        self._first = databases[0]
        self._rebuild = rebuild
        self._digest = ""
        self._templates: Templates | None = None
        self._is_extra = False
        self._is_fresh = True
        self._is_prepared = False
        self.restored = 0
        self._environment: dict[str, str | None] = {}

    def __repr__(self) -> str:
        return f"<test database {self._first.name!r}: {self._first.settings.address}>"

    # --- where it is

    def place(self) -> None:
        """Reserve the database, which may be dropped, for this run.

        While another run has it, it is one with a number.

        :raises Refused: that could be somebody's data.
        :raises ServerError: the server cannot be reached.
        """
        settings = self._first.settings
        worker = os.environ.get("PYTEST_XDIST_WORKER", "")
        name = settings.backend.name_of(settings.url)
        base = name.removesuffix(f"_{worker}") if worker else name
        self._is_extra = base != name
        self._templates = templates_of(self._first, base)
        if self._templates.claim(name):
            return
        for number in range(2, MOST_RUNS + 1):
            other = f"{name}_{number}"
            if self._templates.claim(other):
                self._move(other)
                return
        raise ServerError(
            f"{MOST_RUNS} runs of tests use the database {self._first.name!r} at "
            f"{settings.address} and its numbered ones at this time; end some of them"
        )

    def _move(self, name: str) -> None:
        self._is_extra = True
        for database in self.databases:
            backend = database.backend
            url = backend.renamed(database.settings.url, name)
            backend.check_name(url)
            database.move(url)
            # for processes that the tests start, which prepare an application of their own
            key = f"QAPLA_TEST_DB_{database.name.upper()}_URL"
            self._environment[key] = os.environ.get(key)
            os.environ[key] = url.render_as_string(hide_password=False)
        self._first.check_droppable()

    # --- its content

    def make(self) -> None:
        """Make it, empty and migrated, whatever it holds now."""
        templates = self._open
        self._digest = content_of(self.databases, templates.version())
        if not self._rebuild and self._clone():
            return
        with templates.building():
            # somebody may have built it while we waited
            if self._rebuild or not self._clone():
                self._build(templates)

    def _clone(self) -> bool:
        templates = self._open
        files = templates.find(self._digest)
        return files is not None and are_unchanged(files) and templates.clone(self._digest)

    def _build(self, templates: Templates) -> None:
        with files_read() as files:
            recreate(self._first)
        settings = self._first.settings
        if not settings.backend.is_volatile(settings.url):
            self._dispose()
        try:
            kept = templates.keep(self._digest, files)
        except sa.exc.DBAPIError as error:
            reason = " ".join(str(error.orig).split())
            log.warning("no template of %r can be kept: %s", self._first.name, reason)
            kept = False
        if not kept:
            self._digest = ""

    def make_again(self) -> None:
        """Make it again what it was after :meth:`make`, by the shortest way that is exact."""
        self._dispose()
        if not (self._digest and self._open.clone(self._digest)):
            self.make()
        self._is_fresh, self._is_prepared = True, False
        self.restored += 1

    def _dispose(self) -> None:
        for database in self.databases:
            database.dispose()

    # --- tests that commit

    def prepare_restore(self) -> None:
        """Prepare for :meth:`restore`, before a test that commits.

        Sandboxes have let sequences go on, so that it is made what it was once more.
        """
        if not self._is_fresh:
            self.restore()
        if self._digest and not self._is_prepared:
            self._open.prepare_restore()
            self._is_prepared = True

    def restore(self) -> None:
        """Make it again what it was, after a test that committed."""
        if not (self._is_prepared and self._open.restore()):
            self.make_again()
        self._is_fresh = True
        self.restored += 1

    def will_be_used(self) -> None:
        """Know that a test uses it in a sandbox, where sequences go on."""
        self._is_fresh = False

    # --- ends

    def close(self) -> None:
        """Release it; one that no settings name, of a worker or with a number, is dropped."""
        if self._templates is None:
            return
        for key, value in self._environment.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value
        try:
            if self._is_extra:
                self._first.drop()
        finally:
            self._templates.close()

    @property
    def _open(self) -> Templates:
        assert self._templates is not None, "place() comes first"
        return self._templates
