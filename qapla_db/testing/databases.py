"""The test databases of a run: made once, and again after a test that really committed."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import sqlalchemy as sa

from qapla_db.database import Database
from qapla_db.errors import LifecycleError, ServerError
from qapla_db.record import sharing
from qapla_db.record_reader import connected, recorded_as
from qapla_db.record_table import plain
from qapla_db.settings import MOVED, DatabaseSettings, moved_key
from qapla_db.testing.contents import are_unchanged, content_of, files_read, is_current
from qapla_db.testing.guarding import Guard
from qapla_db.testing.templates import Templates, templates_of

__all__ = ["TestDatabase", "physical"]

log = logging.getLogger("qapla_db")

_UNKNOWN = "its migrations start processes, or were edited meanwhile"

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
        self._databases = databases
        self._settings = databases[0].settings
        self._rebuild = rebuild
        self._content = ""
        self._has_template = self._is_made = False
        self._templates: Templates | None = None
        self._is_extra = False
        self._is_fresh = True
        self._is_prepared = self._is_dirty = False
        self.restored = 0
        self._moved = ""
        self._guards: dict[Database, Guard] = {}

    def __repr__(self) -> str:
        return f"<test database {self._settings.name!r}: {self._settings.address}>"

    @property
    def _open(self) -> list[Database]:
        """Its names in the applications that have not been closed."""
        return [one for one in self._databases if _is_open(one)]

    @property
    def _names(self) -> list[Database]:
        """Its names in one application that has not been closed."""
        names = self._open or self._databases
        return [one for one in names if one.host is names[0].host]

    def serves(self, databases: list[Database]) -> bool:
        """Tell whether it is what another application would be given for these names, too."""
        return (
            self._is_made
            and self._settings.is_same_database(databases[0].settings)
            and self._content == content_of(databases, self._kept.version())
        )

    def join(self, databases: list[Database]) -> None:
        """Let another application use it."""
        self._databases = [*self._databases, *databases]
        self.guard(databases)

    def guard(self, databases: Iterable[Database] | None = None) -> None:
        """Refuse connections from now on, but where they are :meth:`lifted`."""
        for one in self._databases if databases is None else databases:
            self._guards[one] = Guard(one)

    @contextmanager
    def lifted(self, databases: Iterable[Database] | None = None) -> Iterator[None]:
        """Let everybody use it, under these of its names or all of them, during a block."""
        with ExitStack() as stack:
            for one in self._databases if databases is None else databases:
                if one in self._guards:
                    stack.enter_context(self._guards[one].lifted())
            yield

    # --- where it is

    def place(self) -> None:
        """Reserve the database, which may be dropped, for this run.

        While another run has it, it is one with a number.

        :raises Refused: that could be somebody's data.
        :raises ServerError: the server cannot be reached.
        """
        settings = self._settings
        if settings.backend.name == "sqlite":
            # a relative one is another file after chdir()
            for database in self._databases:
                database.move(database.backend.server_url(database.settings.url))
            self._settings = settings = self._databases[0].settings
        worker = os.environ.get("PYTEST_XDIST_WORKER", "")
        name = settings.backend.name_of(settings.url)
        base = name.removesuffix(f"_{worker}") if worker else name
        self._templates = templates_of(self._databases[0], base)
        if self._templates.claim(name) and (base == name or self._is_nobodys(name)):
            self._is_extra = base != name
            return
        for number in range(2, MOST_RUNS + 1):
            other = f"{name}_{number}"
            if self._templates.claim(other) and self._is_nobodys(other):
                self._move(other)
                return
        raise ServerError(
            f"{MOST_RUNS} runs of tests use the database {settings.name!r} at "
            f"{settings.address} and its numbered ones at this time; end some of them"
        )

    def _is_nobodys(self, name: str) -> bool:
        """Tell whether a name that no settings have is free, or one that a run before has left."""
        backend = self._settings.backend
        url = backend.renamed(self._settings.url, name)
        settings = replace(self._settings, url=url)
        if not backend.exists(url, settings.default_url, settings.access):
            return True
        names = {database.name for database in self._databases}
        environment = plain(settings.environment)
        records = recorded_as(settings)
        return any(
            one.name in names and plain(one.environment) == environment for one in records
        ) or (not records and _is_empty(settings))

    def _move(self, name: str) -> None:
        self._is_extra = True
        self._moved = moved_key(self._settings.url, self._settings.backend)
        for database in self._databases:
            backend = database.backend
            url = backend.renamed(database.settings.url, name)
            backend.check_name(url)
            database.move(url)
        self._databases[0].check_droppable()
        self._settings = self._databases[0].settings
        # for processes that the tests start, which prepare an application of their own
        _say_moved({**_moved(), self._moved: name})

    # --- its content

    def make(self) -> None:
        """Make it, empty and migrated, whatever it holds now."""
        templates = self._kept
        self._content = content_of(self._names, templates.version())
        if self._rebuild or not self._clone():
            with templates.building():
                # somebody may have built it while we waited
                if self._rebuild or not self._clone():
                    self._build(templates)
        self._is_made = True

    def _clone(self) -> bool:
        templates = self._kept
        files = templates.find(self._content)
        is_same = files is not None and are_unchanged(files, self._databases)
        self._has_template = is_same and templates.clone(self._content)
        return self._has_template

    def _build(self, templates: Templates) -> None:
        # with a template a run needs no Alembic, which takes its time to load
        from qapla_db.migrations.commands import recreate

        with files_read(self._databases) as files:
            templates.make_droppable()
            recreate(templates.database)
        if not self._settings.backend.is_volatile(self._settings.url):
            self._dispose()
            if not (files.is_complete and is_current(self._content)):
                log.info("no template of %r is kept: %s", self._settings.name, _UNKNOWN)
                self._has_template = False
                return
        try:
            self._has_template = templates.keep(self._content, files)
        except sa.exc.DBAPIError as error:
            reason = " ".join(str(error.orig).split())
            log.warning("no template of %r can be kept: %s", self._settings.name, reason)
            self._has_template = False

    def make_again(self) -> None:
        """Make it again what it was after :meth:`make`, by the shortest way that is exact."""
        self._dispose()
        self._is_dirty = True
        with self.lifted():
            try:
                self._copy_or_make()
            except sa.exc.DBAPIError as error:
                if not error.connection_invalidated:
                    raise
                self._kept.reconnect()  # a test has ended all connections of the server
                self._copy_or_make()
        self._is_fresh, self._is_prepared, self._is_dirty = True, False, False
        self.restored += 1

    def _copy_or_make(self) -> None:
        if not (self._has_template and self._kept.clone(self._content)):
            self.make()

    def _mend(self) -> None:
        """After a test whose traces could not be undone, try it once more."""
        if self._is_dirty:
            self.make_again()

    def _dispose(self) -> None:
        for database in self._open:
            database.dispose()

    # --- tests that commit

    def prepare_restore(self) -> None:
        """Prepare for :meth:`restore`, before a test that commits.

        Sandboxes have let sequences go on, so that it is made what it was once more.
        """
        self._mend()
        if not self._is_fresh:
            self.restore()
        if self._has_template and not self._is_prepared:
            with self.lifted():
                self._kept.prepare_restore()
            self._is_prepared = True

    def restore(self) -> None:
        """Make it again what it was, after a test that committed."""
        self._is_dirty = True
        self._dispose()  # what a session was set to is not seen by the next test
        with self.lifted():
            if not (self._is_prepared and self._kept.restore()):
                self.make_again()
        self._is_fresh, self._is_dirty = True, False
        self.restored += 1

    def will_be_used(self) -> None:
        """Know that a test uses it in a sandbox, where sequences go on."""
        self._mend()
        self._is_fresh = False

    # --- ends

    def close(self) -> None:
        """Release it; one that no settings name, of a worker or with a number, is dropped."""
        if self._templates is None:
            return
        if self._moved:
            _say_moved({key: name for key, name in _moved().items() if key != self._moved})
        try:
            if self._is_extra:
                self._dispose()
                settings = self._settings
                settings.backend.drop(settings.url, settings.default_url, settings.access)
        finally:
            self._templates.close()

    @property
    def _kept(self) -> Templates:
        assert self._templates is not None, "place() comes first"
        # of the applications that have it the first may be closed by now
        self._templates.database = next(iter(self._open), self._databases[0])
        return self._templates


def _is_empty(settings: DatabaseSettings) -> bool:
    with connected(settings) as connection:
        return not sa.inspect(connection).get_table_names()


def _is_open(database: Database) -> bool:
    try:
        return database.settings is not None
    except LifecycleError:
        return False


def _moved() -> dict[str, str]:
    found: dict[str, str] = json.loads(os.environ.get(MOVED) or "{}")
    return found


def _say_moved(names: dict[str, str]) -> None:
    if names:
        os.environ[MOVED] = json.dumps(names)
    else:
        os.environ.pop(MOVED, None)
