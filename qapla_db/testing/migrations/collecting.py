"""Tests of the migrations of every database of an application, with one line in conftest.py."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Collection, Generator, Iterable
from pathlib import Path
from typing import Any

import pytest

from qapla_db.application import DatabaseApplication, instances_of
from qapla_db.errors import InvalidArgument, QaplaError, SettingMissing
from qapla_db.testing.applications import application_of
from qapla_db.testing.migrations.checks import CHECKS, explained
from qapla_db.testing.migrations.trials import Trials

__all__ = ["migration_tests"]

Collectors = list[pytest.Collector]
CollectFile = Callable[[Path, pytest.Collector], Generator[None, Collectors, Collectors]]
MakeApplication = Callable[[], DatabaseApplication]


def migration_tests(
    app_class: type[DatabaseApplication],
    *,
    make_application: MakeApplication | None = None,
    databases: Collection[str] | None = None,
    skip: Collection[str] = (),
) -> CollectFile:
    """Make tests of the migrations of an application, in a ``conftest.py``.

    ::

        pytest_collect_file = migration_tests(ShipApplication)

    They are run with the directory of that file, as ``conftest.py::migrations::main::up_down_up``
    and the like: for each database that has migrations ``single_head``, ``from_nothing``,
    ``models_match``, ``up_down_up``, ``offline_sql`` and ``rehearsal``. All have the marker
    ``qapla_db_migrations``. They use scratch databases beside the test database, which need not
    exist and is not touched.

    :param app_class: the application's class.
    :param make_application: returns the application, where several objects of the class exist.
    :param databases: the names of those to test; all if it is not given.
    :param skip: the names of tests to leave out.
    :raises InvalidArgument: there is no such test.
    """
    unknown = sorted(set(skip) - set(CHECKS)) if not isinstance(skip, str) else [skip]
    if unknown:
        raise InvalidArgument(
            f"migration_tests(skip=...) names {', '.join(map(repr, unknown))}; it is a list of "
            f"some of {', '.join(CHECKS)}"
        )
    subject = _Subject(app_class, make_application)
    checks = [name for name in CHECKS if name not in skip]

    @pytest.hookimpl(wrapper=True)
    def pytest_collect_file(
        file_path: Path, parent: pytest.Collector
    ) -> Generator[None, Collectors, Collectors]:
        found = yield
        if not _is_assigned_in(file_path, pytest_collect_file, parent.config):
            return found
        ours: Conftest = Conftest.from_parent(parent, path=file_path)
        ours.content = subject, databases, checks
        if parent.session.isinitpath(file_path):
            # it is named for these tests; of several conftest.py only one can be imported
            found = [one for one in found if not isinstance(one, pytest.Module)]
        return [*found, ours]

    return pytest_collect_file


def _is_assigned_in(path: Path, hook: object, config: pytest.Config) -> bool:
    """Tell whether a conftest.py has this hook; it is called for those below it too."""
    return path.name == "conftest.py" and any(
        path.samefile(plugin.__file__)
        for plugin in config.pluginmanager.get_plugins()
        if getattr(plugin, "pytest_collect_file", None) is hook
    )


class _Subject:
    """The application whose migrations are tested."""

    def __init__(
        self, app_class: type[DatabaseApplication], make_application: MakeApplication | None
    ) -> None:
        self._class = app_class
        self._make = make_application

    def names(self, config: pytest.Config) -> list[str]:
        """Return the names of the databases that have migrations.

        The tests' modules are not imported yet, and may make the object that is to be tested:
        one that is made here is closed again.
        """
        known = instances_of(self._class) if isinstance(self._class, type) else []
        application = self.application(config)
        try:
            return [name for name in application.dbs if _has_migrations(application, name)]
        finally:
            if self._make is None and application not in known:
                application.close()

    def application(self, config: pytest.Config) -> DatabaseApplication:
        """Return the application, prepared for tests."""
        find = self._make or (lambda: application_of(self._class, "migration_tests()"))
        application = find().run_tests()
        config.add_cleanup(application.close)
        return application


def _has_migrations(application: DatabaseApplication, name: str) -> bool:
    try:
        return bool(application.dbs[name].migrations_path)
    except SettingMissing:
        return False


class Conftest(pytest.File):
    """The conftest.py, as what the tests are collected from."""

    content: tuple[_Subject, Collection[str] | None, list[str]]

    def collect(self) -> Iterable[pytest.Collector]:
        found: Migrations = Migrations.from_parent(self, name="migrations")
        found.content = self.content
        yield found


class Migrations(pytest.Collector):
    """The migrations of an application."""

    content: tuple[_Subject, Collection[str] | None, list[str]]

    def collect(self) -> Iterable[pytest.Collector]:
        self.add_marker(pytest.mark.qapla_db_migrations)
        subject, wanted, checks = self.content
        for name in self._names(subject, wanted):
            found: DatabaseMigrations = DatabaseMigrations.from_parent(self, name=name)
            found.content = subject, checks
            yield found

    def _names(self, subject: _Subject, wanted: Collection[str] | None) -> list[str]:
        try:
            names = subject.names(self.config)
        except Exception as error:
            raise self.CollectError(
                f"the application of migration_tests() cannot be prepared for tests: {_said(error)}"
            ) from error
        unknown = sorted(set(wanted or ()) - set(names))
        if unknown:
            raise self.CollectError(
                f"migration_tests(databases=...) names {', '.join(map(repr, unknown))}; "
                f"with migrations there are: {', '.join(names) or 'none'}"
            )
        return [name for name in names if wanted is None or name in wanted]


def _said(error: Exception) -> str:
    if isinstance(error, QaplaError):
        return error.message
    place = traceback.extract_tb(error.__traceback__)[-1]
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said} ({place.filename}, line {place.lineno})"


class DatabaseMigrations(pytest.Collector):
    """The migrations of a database: what was tried of them serves several tests."""

    content: tuple[_Subject, list[str]]
    _trials: Trials | None = None

    def collect(self) -> Iterable[pytest.Item]:
        for name in self.content[1]:
            yield MigrationTest.from_parent(self, name=name)

    def trials(self) -> Trials:
        if self._trials is None:
            application = self.content[0].application(self.config)
            self._trials = Trials(application.dbs[self.name])
        return self._trials

    def teardown(self) -> None:
        if self._trials is not None:
            self._trials.close()


class MigrationTest(pytest.Item):
    """A test of the migrations of a database."""

    def runtest(self) -> None:
        parent: Any = self.parent
        trials = parent.trials()
        with explained(trials, self.name):
            CHECKS[self.name](trials)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, None, f"migrations of {getattr(self.parent, 'name', '')}: {self.name}"
