"""The application: its phases, its plugins, its faces."""

from __future__ import annotations

import importlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from webtest import TestApp

from qapla_db import Application, Database, DatabaseApplication
from qapla_db.errors import (
    AlreadyPrepared,
    Closed,
    LifecycleError,
    Misuse,
    NotPrepared,
    SettingInvalid,
    SettingMissing,
    SettingsModuleMissing,
    UnknownDatabase,
)
from tests.support import WAIT, SmallApplication, make_application

URL = {"db:main:url": "sqlite://"}

RUNS: dict[str, Callable[[Application, Any], Any]] = {
    "wsgi": Application.run_wsgi,
    "tests": Application.run_tests,
    "shell": Application.run_shell,
    "command": Application.run_command,
    "celery": Application.run_celery,
}


class Recorder:
    """A plugin that writes down what is called, and may fail in it."""

    def __init__(self, name: str, calls: list[str], fails: str = "") -> None:
        self.name, self.calls, self.fails = name, calls, fails

    def _call(self, hook: str) -> None:
        self.calls.append(f"{hook} {self.name}")
        if hook == self.fails:
            raise RuntimeError(f"{self.name} fails in {hook}")

    def prepare_app(self, app: Application) -> None:
        assert "preparing" == app.phase
        assert app.endpoint is not None
        self._call("prepare")

    def after_fork(self) -> None:
        self._call("after_fork")

    def close(self) -> None:
        self._call("close")


class PluginApplication(Application):
    settings_package = "tests.empty_settings"

    def __init__(self, *plugins: Any) -> None:
        super().__init__()
        self.plugins = plugins

    def append_app_plugins(self) -> None:
        for plugin in self.plugins:
            self.add_plugin(plugin)


# --- phases


@pytest.mark.parametrize("endpoint", RUNS)
def test_phases(endpoint: str) -> None:
    """An application is created, prepared for what it is run as, and closed."""
    app = SmallApplication()
    assert ("created", None) == (app.phase, app.endpoint)
    RUNS[endpoint](app, URL)
    assert ("prepared", endpoint) == (app.phase, app.endpoint)
    assert app.dbs["main"].host is app
    app.close()
    assert "closed" == app.phase
    app.close()


@pytest.mark.parametrize("endpoint", RUNS)
def test_prepare_again_for_the_same(endpoint: str) -> None:
    """Preparing again for the same endpoint, with the same values or none, changes nothing."""
    with SmallApplication() as app:
        first = RUNS[endpoint](app, URL)
        database, settings = app.dbs["main"], app.settings
        for again in (None, {}, dict(URL), {"db.main.url": "sqlite://"}):
            assert first is RUNS[endpoint](app, again)
        assert database is app.dbs["main"]
        assert settings is app.settings


@pytest.mark.parametrize(
    ("first", "again", "key"),
    [
        (URL, {"db:main:url": "sqlite:///s3cr3t.db"}, "db:main:url"),
        (URL, {"db.main.url": "sqlite:///s3cr3t.db"}, "db:main:url"),
        (URL, {**URL, "title": "s3cr3t"}, "title"),
        ({**URL, "title": "s3cr3t"}, URL, "title"),
        ({**URL, "db.main.options.echo": "true"}, URL, "db:main:options:echo"),
    ],
)
def test_prepare_again_with_other_values(
    first: dict[str, str], again: dict[str, str], key: str
) -> None:
    """Other values for what is prepared already are an error that names keys and shows no value."""
    with SmallApplication() as app:
        app.run_wsgi(first)
        with pytest.raises(AlreadyPrepared, match=f"they differ in '{key}'. Pass") as caught:
            app.run_wsgi(again)
        assert "s3cr3t" not in str(caught.value)
        assert ("prepared", "wsgi") == (app.phase, app.endpoint)
        assert ":memory:" == app.dbs["main"].backend.name_of(app.dbs["main"].settings.url)
        app.run_wsgi(first)


def test_values_of_a_failed_preparation_are_forgotten() -> None:
    """What was passed to a preparation that failed is not compared with."""
    with SmallApplication() as app:
        with pytest.raises(SettingInvalid):
            app.run_wsgi({"db:main:url": "nosuch://"})
        app.run_wsgi(URL)
        app.run_wsgi(URL)


def test_prepare_for_another() -> None:
    """Preparing for another endpoint is an error that names both, and changes nothing."""
    with SmallApplication() as app:
        app.run_celery(URL)
        with pytest.raises(AlreadyPrepared, match=r"for 'celery' and cannot .* for 'tests' too"):
            app.run_tests()
        assert "celery" == app.endpoint
        assert app.dbs["main"].ping() > 0


@pytest.mark.parametrize("name", ["dbs", "settings", "paths", "passed_settings"])
def test_use_before_preparation(name: str) -> None:
    """What preparation brings is an error before it, which says what to call."""
    with pytest.raises(NotPrepared, match=r"SmallApplication .*call run_wsgi\(\), run_celery\(\)"):
        getattr(SmallApplication(), name)


@pytest.mark.parametrize("name", ["dbs", "settings", "paths"])
def test_use_after_close(name: str) -> None:
    """A closed application says that it is closed, and is not prepared again."""
    app = SmallApplication().run_command(URL)
    app.close()
    with pytest.raises(Closed, match="SmallApplication was closed"):
        getattr(app, name)
    with pytest.raises(Closed, match="make a new one"):
        app.run_command(URL)
    with pytest.raises(Closed):
        app.make_wsgi_app()


def test_web_application_before_preparation() -> None:
    """Neither the web application nor its config exist before preparation."""
    app = SmallApplication()
    with pytest.raises(NotPrepared):
        app.make_wsgi_app()
    with pytest.raises(NotPrepared, match="append_web_plugins"):
        app.config  # noqa: B018


def test_repr_answers_where_it_is() -> None:
    """The representation names phase and endpoint."""
    with SmallApplication() as app:
        assert "<SmallApplication: created>" == repr(app)
        app.run_shell(URL)
        assert "<SmallApplication: prepared for 'shell'>" == repr(app)
    assert "closed" in repr(app)


def test_without_databases() -> None:
    """An application that registers no database says how to do it."""

    class Empty(DatabaseApplication):
        settings_package = "tests.empty_settings"

    with Empty() as app, pytest.raises(NotPrepared, match=r"add_database_app\(\[Database"):
        app.run_command().dbs  # noqa: B018


def test_unknown_database() -> None:
    """A database that is not registered is an error that lists those that are."""
    with make_application({"main": "sqlite://", "audit": "sqlite://"}) as app:
        with pytest.raises(UnknownDatabase, match="'nope'; registered: 'main', 'audit'"):
            app.dbs["nope"]


# --- threads


def test_preparation_by_many_threads() -> None:
    """Threads that prepare at once get one preparation, finished for each of them."""
    prepared = []
    start = threading.Barrier(8)

    class Counting(SmallApplication):
        def append_app_plugins(self) -> None:
            prepared.append(threading.get_ident())
            super().append_app_plugins()

    def run() -> Database:
        start.wait(WAIT)
        return app.run_command({f"db:{name}:url": "sqlite://" for name in app.names}).dbs["d19"]

    with Counting(tuple(f"d{number}" for number in range(20))) as app:
        with ThreadPoolExecutor(8) as pool:
            found = [future.result(WAIT) for future in [pool.submit(run) for _ in range(8)]]
    assert 1 == len(prepared)
    assert 1 == len(set(found))


def test_web_application_by_many_threads() -> None:
    """Threads that run it for the web at once get one and the same WSGI application."""
    with SmallApplication() as app, ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(app.run_wsgi, URL) for _ in range(8)]
        assert 1 == len({id(future.result(WAIT)) for future in futures})


# --- preparation that fails


@pytest.mark.parametrize(
    ("bad", "error"), [({}, SettingMissing), ({"db:main:url": "nosuch://"}, SettingInvalid)]
)
def test_failing_preparation_leaves_it_usable(bad: dict[str, str], error: type[Exception]) -> None:
    """After a preparation that failed the application is as new, for any endpoint."""
    app = SmallApplication(("audit", "main"))
    with pytest.raises(error, match="'db:main:url'"):
        app.run_wsgi({"db:audit:url": "sqlite://", **bad})
    assert ("created", None) == (app.phase, app.endpoint)
    with pytest.raises(NotPrepared):
        app.dbs  # noqa: B018
    with app.run_tests({"db:audit:url": "sqlite://", **URL}):
        assert ["audit", "main"] == list(app.dbs)


def test_failing_preparation_closes_what_was_prepared() -> None:
    """Plugins registered before the one that failed are closed, and nothing is kept of them."""
    calls: list[str] = []
    good = Recorder("good", calls)
    app = PluginApplication(good, Recorder("bad", calls, fails="prepare"))
    with pytest.raises(RuntimeError, match="bad fails in prepare"):
        app.run_command()
    assert ["prepare good", "prepare bad", "close good"] == calls
    app.plugins = (good,)
    app.run_command()
    app.close()
    assert ["prepare good", "close good"] == calls[3:]


def test_preparation_inside_preparation() -> None:
    """Preparing from within append_app_plugins() is an error instead of a second preparation."""

    class Circular(SmallApplication):
        def append_app_plugins(self) -> None:
            self.run_command()

    app = Circular()
    with pytest.raises(AlreadyPrepared, match="being prepared for 'wsgi'"):
        app.run_wsgi(URL)
    assert "created" == app.phase


# --- plugins


def test_plugins_are_closed_in_reverse() -> None:
    """Plugins are prepared in the order of registration and closed in the other."""
    calls: list[str] = []
    with PluginApplication(*(Recorder(name, calls) for name in "abc")) as app:
        app.run_command()
    assert ["prepare a", "prepare b", "prepare c", "close c", "close b", "close a"] == calls


def test_close_even_if_one_fails(caplog: pytest.LogCaptureFixture) -> None:
    """Every plugin is closed though others fail; the first failure is raised, all are logged."""
    calls: list[str] = []
    plugins = [Recorder(name, calls, fails="close" if name in "bc" else "") for name in "abc"]
    app = PluginApplication(*plugins)
    app.run_command()
    with pytest.raises(RuntimeError, match="c fails in close"):
        app.close()
    assert ["close c", "close b", "close a"] == calls[3:]
    assert "closed" == app.phase
    assert 2 == sum("could not be closed" in record.message for record in caplog.records)
    app.close()


def test_plugin_with_some_hooks() -> None:
    """A plugin may have any of the hooks."""

    class OnlyClose:
        closed = False

        def close(self) -> None:
            self.closed = True

    plugin = OnlyClose()
    with PluginApplication(plugin) as app:
        app.run_command()
        assert not plugin.closed
    assert plugin.closed


@pytest.mark.parametrize("plugin", [None, "main", object(), Database, Recorder])
def test_not_a_plugin(plugin: Any) -> None:
    """What has no hook, and a class in place of an instance, is refused."""
    with pytest.raises(Misuse, match="is not a plugin; pass an instance"):
        PluginApplication(plugin).run_command()


@pytest.mark.parametrize("databases", [["main"], [Database], [None]])
def test_not_a_database(databases: Any) -> None:
    """add_database_app() takes databases and says so."""

    class Wrong(SmallApplication):
        def append_app_plugins(self) -> None:
            self.add_database_app(databases)

    with pytest.raises(Misuse, match=r"write add_database_app\(\[Database\('main'\)\]\)"):
        Wrong().run_command(URL)


def test_plugin_at_the_wrong_time() -> None:
    """A plugin is registered while the application is prepared and at no other time."""
    app = PluginApplication()
    for phase in ("created", "prepared", "closed"):
        with pytest.raises(Misuse, match=rf"phase '{phase}'; call it in append_app_plugins\(\)"):
            app.add_plugin(Recorder("late", []))
        if phase == "created":
            app.run_command()
        else:
            app.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_after_fork_reaches_every_plugin() -> None:
    """In a forked child each plugin is told, though one of them fails; in the parent none is."""
    calls: list[str] = []
    plugins = [Recorder(name, calls, fails="after_fork" if name == "a" else "") for name in "abc"]
    with PluginApplication(*plugins) as app:
        app.run_command()
        calls.clear()
        child = os.fork()
        if child == 0:
            os._exit(0 if ["after_fork a", "after_fork b", "after_fork c"] == calls else 1)
        assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert [] == calls


# --- preparing connects nowhere


def test_preparation_opens_no_connection(tmp_path: Path) -> None:
    """Preparing works with every server down, and makes no file."""
    file = tmp_path / "new.db"
    urls = {
        "down": "postgresql://127.0.0.1:1/x",
        "nowhere": "mysql://no-such-host.invalid/x",
        "file": f"sqlite:///{file}",
        "embedded": f"embedded:///{tmp_path / 'cluster'}",
    }
    with make_application(urls) as app:
        assert set(urls) == set(app.dbs)
        assert [] == list(tmp_path.iterdir())


# --- the web


def test_pastedeploy_entry_point() -> None:
    """Called as PasteDeploy calls it, the application answers requests with its settings."""
    settings = {"db.main.url": "sqlite://", "self": "x", "settings": "y", "global_config": "z"}
    with SmallApplication() as app:
        web = TestApp(app({"here": "/x", "__file__": "/x/y.ini"}, **settings))
        assert "wsgi" == app.endpoint
        assert "z" == app.settings["global_config"]
        assert web.app.registry.settings["self"] == "x"
        assert 404 == web.get("/", status="*").status_code


def test_pshell_prepares_the_shell() -> None:
    """Called by pshell, the application is prepared for the shell."""
    with SmallApplication() as app:
        app({"__script__": "pshell"}, **{"db.main.url": "sqlite://"})
        assert "shell" == app.endpoint


def test_error_of_a_phase_has_one_base() -> None:
    """Who wants to treat all mistakes of the life cycle alike catches LifecycleError."""
    for error in (NotPrepared, AlreadyPrepared, Closed):
        assert issubclass(error, LifecycleError)


def test_settings_module_of_the_application(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An application reads the settings package that its class names, dotted if need be."""
    package = tmp_path / "some_shop" / "config"
    package.mkdir(parents=True)
    for directory in (package, package.parent):
        (directory / "__init__.py").touch()
    body = (
        "def make_settings(settings, paths):\n    settings['db:main:url'] = 'sqlite:///of_shop'\n"
    )
    (package / "default.py").write_text(body)
    monkeypatch.syspath_prepend(str(tmp_path))

    class Shop(SmallApplication):
        settings_package = "some_shop.config"

    with Shop() as app:
        app.run_command()
        assert "of_shop" == app.dbs["main"].settings.url.database
        assert str(tmp_path) == app.paths.get("project_root")
    for name in [one for one in sys.modules if one.partition(".")[0] == "some_shop"]:
        del sys.modules[name]


SETTINGS = "def make_settings(settings, paths): settings['db:main:url'] = 'sqlite:///{}'"


@pytest.fixture
def projects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """A directory of two projects, both on the path, that name their settings package alike."""
    package = f"settings_{tmp_path.name}".replace("-", "_")
    for name in ("first", "second"):
        (tmp_path / name / package).mkdir(parents=True)
        (tmp_path / name / package / "default.py").write_text(SETTINGS.format(name))
        monkeypatch.syspath_prepend(str(tmp_path / name))
    (tmp_path / "second" / package / "__init__.py").touch()
    (tmp_path / "first" / f"{package}_app.py").write_text(
        "from qapla_db import Application\n\nclass App(Application):\n    pass\n"
    )
    yield tmp_path, package
    for module in [name for name in sys.modules if name.startswith(package)]:
        del sys.modules[module]


def test_settings_of_another_project(
    projects: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings without ``__init__.py`` do not silently become those of another project."""
    home, package = projects

    class ThisApplication(Application):
        settings_package = package

    monkeypatch.chdir(home / "first")
    with pytest.raises(SettingsModuleMissing, match=rf"first/{package} has no __init__\.py"):
        ThisApplication().run_command()
    with pytest.raises(SettingsModuleMissing, match="add the file"):
        ThisApplication().settings_for("wsgi")
    monkeypatch.chdir(home / "second")
    with ThisApplication() as app:
        assert "sqlite:///second" == app.run_command().settings["db:main:url"]


def test_settings_beside_the_application(projects: tuple[Path, str]) -> None:
    """The same, wherever the application is started."""
    _, package = projects
    application = importlib.import_module(f"{package}_app").App
    application.settings_package = package
    with pytest.raises(SettingsModuleMissing, match=rf"first/{package} has no __init__\.py"):
        application().run_command()
