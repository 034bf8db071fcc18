"""config.include("qapla_db"): databases of a Pyramid application without an Application class."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationConflictError, ConfigurationExecutionError
from pyramid.response import Response
from webtest import TestApp

from qapla_db.errors import (
    AlreadyPrepared,
    Closed,
    ConfigurationError,
    InvalidArgument,
    SettingInvalid,
    SettingMissing,
    UnknownDatabase,
)
from tests.support import wait_until
from tests.web.conftest import MakeSite, URLs
from tests.web.site import Base, ok, pool_of, views, write

SQLITE = pytest.mark.parametrize("kind", ["sqlite"])


def _settings(urls: URLs) -> dict[str, str]:
    given = {
        f"db.{name}.url": url.render_as_string(hide_password=False) for name, url in urls.items()
    }
    return {"qapla_db.databases": " ".join(urls), **given}


@pytest.fixture
def config(urls: URLs) -> Iterator[Configurator]:
    """A Configurator in which qapla_db is included, with the databases main and audit."""
    config = Configurator(settings=_settings(urls))
    config.include("qapla_db")
    host = config.registry["qapla_db"]
    for database in host.dbs.values():
        Base.metadata.create_all(database.engine)
    yield config
    host.close()


def test_an_included_application(config: Configurator) -> None:
    """A plain Pyramid application gets its sessions, and finds its databases in the registry."""

    def view(request: Any) -> Response:
        for name in ("main", "audit"):
            write(request, name=name)
        request.main.commit()
        dbs = request.registry["qapla_db"].dbs
        return Response(", ".join(dbs))

    views(home=view)(config)
    dbs = config.registry["qapla_db"].dbs
    assert "main, audit" == TestApp(config.make_wsgi_app()).get("/home").text
    with dbs["main"].session() as main, dbs["audit"].session() as audit:
        count = sa.text("SELECT count(*) FROM note")
        assert (1, 0) == (main.scalar(count), audit.scalar(count))
    assert {0} == {pool_of(database) for database in dbs.values()}


@SQLITE
def test_settings_with_dots(urls: URLs) -> None:
    """Every setting of a database may be written with dots, as an .ini file does."""
    given = {
        **_settings(urls),
        "db.main.options.pool_size": "3",
        "db.main.environment": "staging",
        "qapla_db.endpoint": "tests",
    }
    config = Configurator(settings=given)
    config.include("qapla_db")
    host = config.registry["qapla_db"]
    main = host.dbs["main"]
    assert ("tests", "staging", "db:main:url") == (
        host.endpoint,
        main.settings.environment,
        main.settings.source,
    )
    assert 3 == main.engine.pool.size()
    host.close()


@SQLITE
def test_the_environment_wins_over_the_ini(urls: URLs, monkeypatch: pytest.MonkeyPatch) -> None:
    """QAPLA_DB_MAIN_URL is used in place of db.main.url, for deployments without a second .ini."""
    monkeypatch.setenv("QAPLA_DB_MAIN_URL", "sqlite:///elsewhere.sqlite3")
    config = Configurator(settings=_settings(urls))
    config.include("qapla_db")
    assert "elsewhere.sqlite3" == config.registry["qapla_db"].dbs["main"].settings.url.database


@SQLITE
@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"db.audit.url": ""}, SettingMissing, r"'db\.audit\.url' is not set for the database"),
        ({"qapla_db.endpoint": "web"}, SettingInvalid, r"'qapla_db\.endpoint' is 'web'"),
        ({"qapla_db.databases": "main session"}, InvalidArgument, r"request\.session is Pyramid"),
        ({"qapla_db.databases": "main main"}, InvalidArgument, "two databases are named 'main'"),
        ({"qapla_db.databases": "not-a-name"}, InvalidArgument, "'not-a-name' cannot be"),
    ],
)
def test_wrong_settings(
    urls: URLs, changed: dict[str, str], error: type[Exception], message: str
) -> None:
    """A mistake in the settings is told when qapla_db is included, in the words of the .ini."""
    config = Configurator(settings={**_settings(urls), **changed})
    with pytest.raises(error, match=message):
        config.include("qapla_db")


def test_no_databases_at_all() -> None:
    """An application that includes qapla_db and names no database is told which setting to set."""
    config = Configurator(settings={})
    config.include("qapla_db")
    with pytest.raises(ConfigurationExecutionError, match=r"'qapla_db\.databases' is not set"):
        config.make_wsgi_app()


def test_included_twice(config: Configurator) -> None:
    """Including it again, directly or through another add-on, changes nothing."""
    views(home=ok)(config)
    host = config.registry["qapla_db"]
    config.include("qapla_db")
    config.include("qapla_db.web.pyramid")
    config.make_wsgi_app()
    assert host is config.registry["qapla_db"]


@pytest.mark.parametrize("how", ["pyramid.includes", "before", "after"])
def test_included_in_an_application_class(make_site: MakeSite, how: str) -> None:
    """In an application that registers its own databases the include adds nothing."""

    def view(request: Any) -> Response:
        write(request)
        request.main.commit()
        return Response("ok")

    def configure(config: Any) -> None:
        if how == "after":
            config.include("qapla_db")
        views(home=view)(config)

    settings = {"pyramid.includes": "qapla_db"} if how == "pyramid.includes" else {}
    site = make_site(configure, settings)
    if how == "before":
        add = site.add_database_web

        def include_first() -> None:
            site.config.include("qapla_db")
            add()

        site.add_database_web = include_first  # type: ignore[method-assign]
    site.client().get("/home")
    assert ["written"] == site.stored()


def _another_add_on(config: Configurator) -> None:
    config.add_request_method(lambda request: "mine", "main", reify=True)


def test_a_name_that_an_add_on_takes(config: Configurator) -> None:
    """Another add-on with the same request attribute is a conflict that names both places."""
    config.include(_another_add_on)
    with pytest.raises(ConfigurationConflictError) as caught:
        config.make_wsgi_app()
    text = str(caught.value)
    assert "('request extensions', 'main')" in text
    assert "config.add_request_method(" in text
    assert 'config.include("qapla_db")' in text


def test_the_databases_can_be_looked_at(config: Configurator) -> None:
    """Pyramid's introspection shows each database by name, without a password."""
    config.make_wsgi_app()
    found = config.introspector.get_category("qapla_db databases")
    assert found is not None
    shown = {one["introspectable"].title: one["introspectable"]["database"] for one in found}
    dbs = config.registry["qapla_db"].dbs
    assert {f"request.{name}: {dbs[name].settings.address}": dbs[name] for name in dbs} == shown


@SQLITE
def test_the_host_is_that_of_one_endpoint(config: Configurator) -> None:
    """Whoever asks the host for another endpoint, or a database it has not, is told so."""
    host = config.registry["qapla_db"]
    host.prepare("wsgi")
    assert host.settings is host.settings_for("wsgi").settings
    with pytest.raises(AlreadyPrepared, match=r"set up for 'wsgi'.*'qapla_db\.endpoint'"):
        host.prepare("celery")
    with pytest.raises(ConfigurationError, match="what 'tests' would use cannot be told"):
        host.settings_for("tests")
    with pytest.raises(UnknownDatabase):
        host.dbs["other"]
    assert "<ConfiguredHost for 'wsgi': main, audit>" == repr(host)


@pytest.mark.parametrize("kind", ["postgresql"])
def test_engines_are_closed_with_the_registry(urls: URLs) -> None:
    """When a test throws its application away, its connections go with it."""
    config = Configurator(settings=_settings(urls))
    config.include("qapla_db")
    views(home=lambda request: Response(str(request.main.scalar(sa.text(_MY_PID)))))(config)
    pid = int(TestApp(config.make_wsgi_app()).get("/home").text)
    del config
    gc.collect()
    engine = sa.create_engine(urls["audit"], poolclass=sa.NullPool)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        alive = sa.text("SELECT count(*) FROM pg_stat_activity WHERE pid = :pid").params(pid=pid)
        wait_until(lambda: not connection.scalar(alive), "the backend of the connection ends")


_MY_PID = "SELECT pg_backend_pid()"


@SQLITE
def test_one_engine_that_cannot_be_closed(
    config: Configurator, caplog: pytest.LogCaptureFixture
) -> None:
    """When closing one database fails, that is logged and the others are closed."""

    def fail(engine: sa.Engine) -> None:
        raise LookupError

    host = config.registry["qapla_db"]
    main, audit = host.dbs["main"], host.dbs["audit"]
    sa.event.listen(audit.engine, "engine_disposed", fail)
    host.close()
    assert ["the database 'audit' could not be closed"] == [
        record.message for record in caplog.records
    ]
    with pytest.raises(Closed):
        main.engine  # noqa: B018


@SQLITE
def test_engines_are_closed_at_exit(urls: URLs) -> None:
    """A process that just ends closes its engines without a complaint."""
    code = f"""
import sqlalchemy as sa
from pyramid.config import Configurator
config = Configurator(settings={_settings(urls)!r})
config.include("qapla_db")
engine = config.registry["qapla_db"].dbs["main"].engine
sa.event.listen(engine, "close", lambda *about: print("closed"))
engine.connect().close()
print("end")
"""
    # Pyramid's own imports
    quiet = ["-W", "ignore:'cgi' is:DeprecationWarning", "-W", "ignore:pkg_resources:UserWarning"]
    quiet += ["-W", "ignore:Deprecated call to `pkg_resources:DeprecationWarning"]
    done = subprocess.run(
        [sys.executable, "-W", "error", *quiet, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ("end\nclosed\n", "", 0) == (done.stdout, done.stderr, done.returncode)
