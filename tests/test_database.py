"""A named database: its engine, and the database itself on its server."""

from __future__ import annotations

import itertools
import logging
import sys
import textwrap
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from morfdict import Paths
from sqlalchemy import event, pool

from qapla_db import Database, DatabaseMixin
from qapla_db.errors import (
    AlreadyPrepared,
    Closed,
    InvalidArgument,
    NotPrepared,
    Refused,
    ServerError,
    SettingInvalid,
    SettingMissing,
)
from tests.support import WAIT, SmallApplication, make_application

FreshURL = Callable[[str], sa.URL]
SECRET = "s3cr3t"
NOWHERE = "postgresql://127.0.0.1:1"

_numbers = itertools.count(1)


def prepare(url: object, **settings: Any) -> SmallApplication:
    """An application with one database, and settings of it without ``db:main:``."""
    values = {f"db:main:{key}": value for key, value in settings.items()}
    return make_application({"main": url}, settings=values)


# --- preparation and the end


def test_use_before_preparation() -> None:
    """A database that was not prepared says what to call."""
    database = Database("main")
    assert "<Database 'main': not prepared>" == repr(database)
    for name in ("settings", "engine", "backend", "host", "migrations_path"):
        with pytest.raises(NotPrepared, match=r"the database 'main' was used before.*run_wsgi\(\)"):
            getattr(database, name)
    for use in (database.get_session, database.session, database.ping, database.drop):
        with pytest.raises(NotPrepared):
            use()


def test_use_after_close() -> None:
    """A database whose application was closed says so."""
    with prepare("sqlite://") as app:
        database = app.dbs["main"]
    with pytest.raises(Closed, match="'main' was used after its application was closed"):
        database.get_session()


class Sharing(SmallApplication):
    """An application with a Database object that others may have too."""

    def __init__(self, database: Database) -> None:
        super().__init__()
        self.database = database

    def append_app_plugins(self) -> None:
        self.add_database_app([self.database])


class Foreign(DatabaseMixin):
    """A host of another make, whose representation shows its settings."""

    def __init__(self, url: str) -> None:
        self.settings = {"db:main:url": url}
        self.paths = Paths()

    def __repr__(self) -> str:
        return f"Foreign({self.settings})"


def test_database_can_be_prepared_again(tmp_path: Path) -> None:
    """One Database object may be used by one application after another, each with its URL."""
    database = Database("main")
    for name in ("first", "second"):
        with Sharing(database) as app:
            app.run_command({"db:main:url": f"sqlite:///{tmp_path / name}.db"})
            database.create()
            assert database.ping() > 0
            assert str(tmp_path / f"{name}.db") == database.engine.url.database
            assert f"{name}.db" in repr(database)


def test_database_of_two_applications(tmp_path: Path) -> None:
    """A second application does not get the Database object of one that is not closed."""
    database, production = Database("main"), f"sqlite:///{tmp_path / 'production.db'}"
    first, second = Sharing(database), Sharing(database)
    foreign = Foreign(f"postgresql://u:{SECRET}@h/d")
    with first, second:
        first.prepare("wsgi", {"db:main:url": production})
        database.prepare_app(first)
        message = (
            r"'main' is prepared by Sharing \(for 'wsgi'\).*by Sharing \(for 'tests'\) too"
            r".*Database\('main'\).*close\(\) the first application"
        )
        with pytest.raises(AlreadyPrepared, match=message):
            second.run_tests({"db:main:url": f"sqlite:///{tmp_path / 'x_test.db'}"})
        with pytest.raises(AlreadyPrepared, match="by Foreign too") as caught:
            foreign.add_database_app([database])
        assert SECRET not in str(caught.value)
        assert production.partition(":")[2] in repr(database)
        assert str(tmp_path / "production.db") == database.engine.url.database
        assert first is database.host
        first.close()
        second.run_tests({"db:main:url": f"sqlite:///{tmp_path / 'x_test.db'}"})
        assert str(tmp_path / "x_test.db") == database.engine.url.database


def test_engine_is_built_once_and_stays(tmp_path: Path) -> None:
    """Threads that ask at once get one engine; disposing closes its connections, not itself."""
    with prepare(f"sqlite:///{tmp_path / 'x.db'}") as app:
        database = app.dbs["main"]
        with ThreadPoolExecutor(8) as threads:
            futures = [threads.submit(lambda: database.engine) for _ in range(8)]
            [engine] = {future.result(WAIT) for future in futures}
        database.create()
        database.ping()
        assert 1 == engine.pool.checkedin()  # type: ignore[attr-defined]
        database.dispose()
        assert engine is database.engine
        assert 0 == engine.pool.checkedin()  # type: ignore[attr-defined]
        assert database.ping() > 0


def test_migrations_path(tmp_path: Path) -> None:
    """The migrations directory is the one that paths has under the database's key."""
    paths = {"migrations_main": str(tmp_path)}
    with make_application({"main": "sqlite://", "audit": "sqlite://"}, paths=paths) as app:
        assert str(tmp_path) == app.dbs["main"].migrations_path
        with pytest.raises(SettingMissing, match=r"no 'migrations_audit'.*paths\.set\(") as caught:
            app.dbs["audit"].migrations_path  # noqa: B018
        assert "migrations_audit" == caught.value.key
    assert "migrations" == Database().paths_key
    assert "database" == Database().name


# --- options of the engine


def test_defaults(postgresql_database_url: sa.URL) -> None:
    """Without options a connection is checked before use, and named after the database."""
    with prepare(postgresql_database_url) as app:
        engine = app.dbs["main"].engine
        assert engine.pool._pre_ping
        assert 300 == engine.pool._recycle
        with engine.connect() as connection:
            name = connection.exec_driver_sql("SHOW application_name").scalar()
            assert "qapla_db:main" == name


def test_user_wins_over_defaults(postgresql_database_url: sa.URL) -> None:
    """The URL's query and the user's options win over our defaults."""
    url = postgresql_database_url.update_query_dict({"application_name": "shop"})
    options = {"pool_recycle": 7, "connect_args": {"options": "-c statement_timeout=4321"}}
    with prepare(url, options=options) as app:
        engine = app.dbs["main"].engine
        assert 7 == engine.pool._recycle
        with engine.connect() as connection:
            assert "shop" == connection.exec_driver_sql("SHOW application_name").scalar()
            assert "4321ms" == connection.exec_driver_sql("SHOW statement_timeout").scalar()


class Narrow(pool.Pool):
    """A pool that takes next to nothing."""

    def __init__(self, creator: Any, **options: Any) -> None:
        super().__init__(creator, **options)

    def _do_get(self) -> Any:
        return self._create_connection()

    def _do_return_conn(self, record: Any) -> None:
        record.close()

    def recreate(self) -> Narrow:
        return type(self)(self._creator)

    def dispose(self) -> None: ...


class Wide(pool.QueuePool):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///x.db", NOWHERE, "mysql://127.0.0.1:1/x"])
@pytest.mark.parametrize(
    "options",
    [
        {"poolclass": pool.NullPool},
        {"poolclass": pool.StaticPool},
        {"poolclass": pool.SingletonThreadPool},
        {"poolclass": pool.AssertionPool},
        {"poolclass": Narrow},
        {"poolclass": Wide},
        {"poolclass": pool.QueuePool, "pool_size": 3},
        {"pool": pool.NullPool(lambda: None)},  # type: ignore[arg-type]
    ],
)
def test_pools_of_other_kinds(url: str, options: dict[str, Any]) -> None:
    """A pool class gets of our defaults those that it takes; the user's choice stands."""
    with prepare(url, options=options) as app:
        found = app.dbs["main"].engine.pool
        assert type(found) is options.get("poolclass", pool.NullPool)
        if isinstance(found, Wide) and "sqlite" not in url:
            assert 5 == found._timeout
            assert found._pre_ping
        if "pool_size" in options:
            assert isinstance(found, pool.QueuePool)
            assert 3 == found.size()


def test_other_pools_work(tmp_path: Path) -> None:
    """Sessions work whatever the pool."""
    for poolclass in (pool.NullPool, pool.StaticPool, Narrow, Wide):
        url = f"sqlite:///{tmp_path / poolclass.__name__}.db"
        with prepare(url, options={"poolclass": poolclass}) as app:
            for _ in range(2):
                with app.dbs["main"].transaction() as session:
                    session.execute(sa.text("CREATE TABLE IF NOT EXISTS t (n INTEGER)"))


@pytest.mark.parametrize(
    "options",
    [
        {"pool_sise": 5},
        {"poolclass": pool.NullPool, "pool_size": 5},
    ],
)
def test_option_that_does_not_fit(options: dict[str, Any]) -> None:
    """An option that the engine does not take is an error that names the setting."""
    with prepare(f"postgresql://u:{SECRET}@127.0.0.1:1/x", options=options) as app:
        message = "'db:main:options' does not fit the database 'main'"
        with pytest.raises(SettingInvalid, match=message) as caught:
            app.dbs["main"].engine  # noqa: B018
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("url", [f"{NOWHERE}/x", "mysql://127.0.0.1:1/x"])
def test_argument_that_the_driver_does_not_take(url: str) -> None:
    """A misspelt argument of the driver is an error that names the settings, not the server."""
    with prepare(url, options={"connect_args": {"conect_timeout": 3}}) as app:
        database = app.dbs["main"]
        for use in (database.ping, database.exists, database.create, database.engine.connect):
            with pytest.raises(
                SettingInvalid, match=r"conect_timeout.*'db:main:options'"
            ) as caught:
                use()
            assert "server" not in str(caught.value)


@pytest.mark.parametrize("value", ["x", ["connect_timeout"], None, {1: 2}])
def test_connect_args_that_are_no_mapping(value: object) -> None:
    """Arguments of the driver that are no mapping are an error of preparation."""
    message = "'connect_args' in 'db:main:options' must be a mapping"
    with pytest.raises(SettingInvalid, match=message) as caught:
        prepare(f"{NOWHERE}/x", options={"connect_args": value})
    assert "db:main:options" == caught.value.key


# --- reaching the server


def test_ping(each_url: sa.URL) -> None:
    """A ping tells in how many seconds the database answered."""
    with prepare(each_url) as app:
        assert 0 < app.dbs["main"].ping() < WAIT


def test_ping_beside_a_transaction(tmp_path: Path) -> None:
    """A ping of SQLite neither waits for a writer nor disturbs it."""
    with prepare(f"sqlite:///{tmp_path / 'x.db'}") as app, app.dbs["main"].session() as session:
        session.execute(sa.text("CREATE TABLE t (n INTEGER)"))
        assert app.dbs["main"].ping() < WAIT


DOWN = [
    f"postgresql://u:{SECRET}@127.0.0.1:1/x?connect_timeout=2",
    f"postgresql://127.0.0.1:1/x?user=u&password={SECRET}",
    f"mysql://u:{SECRET}@127.0.0.1:1/x",
    f"mariadb://127.0.0.1:1/x?user=u&passwd={SECRET}",
]


@pytest.mark.parametrize("url", DOWN)
def test_server_that_is_down(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Who cannot reach the server learns database, address and setting, and never the password."""
    caplog.set_level(logging.DEBUG)
    options = {"echo": "debug", "echo_pool": "debug"}
    with prepare(url, options=options) as app:
        database = app.dbs["main"]
        errors = []
        for use in (
            database.ping,
            database.exists,
            database.create,
            partial(database.drop, confirm="main"),
            database.engine.connect,
        ):
            with pytest.raises((ServerError, sa.exc.OperationalError)) as caught:
                use()
            errors.append("".join(traceback.format_exception(caught.value)))
        shown = "".join([*errors, caplog.text, repr(database), repr(database.engine)])
    assert SECRET not in shown
    for error in errors:
        assert "127.0.0.1" in error
        assert "main" in error
    assert "'db:main:url' is right" in errors[0]
    assert "database 'main' at " in errors[-1]
    assert "from 'db:main:url'" in errors[-1]


def test_wrong_password(mariadb_url: sa.URL, caplog: pytest.LogCaptureFixture) -> None:
    """A server that refuses the password is quoted; the password is not."""
    caplog.set_level(logging.DEBUG)
    with prepare(mariadb_url.set(username="nobody", password=SECRET, database="x")) as app:
        with pytest.raises(ServerError, match="Access denied for user 'nobody'") as caught:
            app.dbs["main"].ping()
        with pytest.raises(ServerError, match="Check address and credentials") as second:
            app.dbs["main"].exists()
    for error in (caught.value, second.value):
        assert SECRET not in "".join(traceback.format_exception(error))
    assert SECRET not in caplog.text


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_database_that_is_missing(kind: str, fresh_url: FreshURL) -> None:
    """A database that does not exist is named in the error of whoever connects to it."""
    url = fresh_url(kind)
    with prepare(url) as app:
        with pytest.raises(ServerError, match=f"{url.database}.*that the database exists"):
            app.dbs["main"].ping()
        with pytest.raises(sa.exc.OperationalError) as caught, app.dbs["main"].session() as session:
            session.execute(sa.text("SELECT 1"))
        assert "database 'main' at " in "".join(caught.value.__notes__)


# --- create, exists, drop

NAMES = ["order", "QaplaTest", "qapla-test", 'a"b', "it's 100%s", "two `words` %(x)s;--"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_database_of_any_name(kind: str, name: str, request: pytest.FixtureRequest) -> None:
    """A database of any name is made, found, used and dropped, in spite of open transactions."""
    server: sa.URL = request.getfixturevalue(f"{kind}_url")
    with prepare(server.set(database=name)) as app, prepare(server.set(database=name)) as other:
        database = app.dbs["main"]
        assert not database.exists()
        assert not database.drop(confirm="main")
        try:
            assert database.create()
            assert not database.create()
            assert database.exists()
            with prepare(server.set(database=name.swapcase())) as swapped:
                assert name == name.swapcase() or not swapped.dbs["main"].exists()
            idle, busy = other.dbs["main"].get_session(), other.dbs["main"].get_session()
            with idle, busy, database.session() as session:
                for used in (idle, busy, session):
                    asked = "current_database()" if kind == "postgresql" else "database()"
                    assert name == used.scalar(sa.text(f"SELECT {asked}"))
                session.execute(sa.text("CREATE TABLE t (n INTEGER)"))
                session.commit()
                idle.rollback()
                busy.execute(sa.text("INSERT INTO t VALUES (1)"))
                assert database.drop(confirm="main")
            assert not database.exists()
            assert database.create()
            with database.session() as session:
                assert [] == sa.inspect(session.connection()).get_table_names()
        finally:
            database.drop(confirm="main")
        assert not database.exists()


def test_sqlite_file(tmp_path: Path) -> None:
    """A SQLite database is made with its directory, and dropped with everything beside it."""
    file = tmp_path / "new" / 'a"b % c.db'
    with prepare(sa.URL.create("sqlite", database=str(file))) as app:
        database = app.dbs["main"]
        assert not database.exists()
        assert not database.drop(confirm="main")
        assert database.create()
        assert not database.create()
        assert database.exists()
        with database.session() as session:
            session.execute(sa.text("CREATE TABLE t (n INTEGER)"))
            session.commit()
            session.execute(sa.text("INSERT INTO t VALUES (1)"))
            assert database.drop(confirm="main")
            session.invalidate()  # its pool is gone and would not close it
        assert [] == list(file.parent.iterdir())
        assert not database.exists()
        with database.session() as session:
            assert [] == sa.inspect(session.connection()).get_table_names()


def test_database_in_memory() -> None:
    """A database in memory always exists, and is empty after a drop."""
    with make_application({"main": "sqlite://"}, endpoint="tests") as app:
        database = app.dbs["main"]
        assert database.exists()
        assert not database.create()
        with database.transaction() as session:
            session.execute(sa.text("CREATE TABLE t (n INTEGER)"))
        database.drop()
        with database.session() as session:
            assert [] == sa.inspect(session.connection()).get_table_names()


@pytest.mark.parametrize("kind", ["postgresql", "sqlite", "mariadb"])
def test_many_at_once(kind: str, fresh_url: FreshURL) -> None:
    """Of those who make a database at once one made it, and nobody fails; so for dropping."""
    url = fresh_url(kind)
    barrier = threading.Barrier(4)

    def together(connection: object, cursor: object, statement: str, *rest: object) -> None:
        if statement.startswith("CREATE DATABASE"):
            barrier.wait(WAIT)  # everybody has seen that there is none

    event.listen(sa.Engine, "before_cursor_execute", together)
    with prepare(url) as app, ThreadPoolExecutor(4) as threads:
        database = app.dbs["main"]
        made = [threads.submit(database.create) for _ in range(4)]
        try:
            assert 1 == sum(future.result(WAIT) for future in made)
        finally:
            event.remove(sa.Engine, "before_cursor_execute", together)
        assert database.exists()
        dropped = [threads.submit(database.drop, confirm="main") for _ in range(4)]
        results = [future.result(WAIT) for future in dropped]
        assert any(results)
        assert not database.exists()


def test_url_without_a_name(mariadb_url: sa.URL) -> None:
    """A URL that names a server alone cannot be made or dropped."""
    for url in (mariadb_url, sa.make_url(NOWHERE)):
        with prepare(url) as app:
            database = app.dbs["main"]
            for use in (database.exists, database.create, partial(database.drop, confirm="main")):
                with pytest.raises(SettingInvalid, match="names a server and no database"):
                    use()


def test_name_that_the_server_cuts(fresh_url: FreshURL) -> None:
    """A name that the server cuts never leads to the database of the shorter name."""
    production = fresh_url("postgresql")
    production = production.set(database=f"{production.database}_".ljust(63, "d"))
    with prepare(production) as app:
        database = app.dbs["main"]
        assert database.create()
        try:
            test = production.set(database=f"{production.database}_test")
            with pytest.raises(ServerError, match=r"keeps another name than 'fresh_test_.*_test'"):
                database.backend.create(test, None)
            assert not database.backend.exists(test, None)
            assert not database.backend.drop(test, None)
            assert database.exists()
            with pytest.raises(SettingInvalid, match="at most 63 bytes"):
                prepare(test)
        finally:
            assert database.drop(confirm="main")


def test_default_url(fresh_url: FreshURL) -> None:
    """The database that default_url names is the one to make and drop from."""
    url = fresh_url("postgresql")
    with prepare(url, default_url=url.set(database="no_such_database")) as app:
        with pytest.raises(ServerError, match=r"'main'.*no_such_database.*'db:main:default_url'"):
            app.dbs["main"].create()
    with prepare(url, default_url=url.set(database="template1")) as app:
        assert app.dbs["main"].create()
        assert app.dbs["main"].drop(confirm="main")


def test_default_url_of_another_server(fresh_url: FreshURL) -> None:
    """A default_url on another server is refused before anything is made or dropped there."""
    url = fresh_url("postgresql")
    with prepare(f"{NOWHERE}/{url.database}", default_url=url.set(database="postgres")) as app:
        database = app.dbs["main"]
        for use in (database.exists, database.create, partial(database.drop, confirm="main")):
            with pytest.raises(SettingInvalid, match=r"'db:main:default_url'.*another server"):
                use()


def test_connect_args_count_for_making_too(fresh_url: FreshURL) -> None:
    """What the user's options say about connecting holds for making and dropping as well."""
    url = fresh_url("postgresql")
    options = {"connect_args": {"user": url.username}}
    with prepare(url.set(username="no_such_role"), options=options) as app:
        assert app.dbs["main"].create()
        assert app.dbs["main"].ping() > 0
        assert app.dbs["main"].drop(confirm="main")


# --- what is refused


@pytest.mark.parametrize("endpoint", ["wsgi", "command", "celery", "shell"])
def test_drop_outside_of_tests(endpoint: str) -> None:
    """Outside of tests nothing is dropped without the database's name as confirmation."""
    app = make_application({"main": f"{NOWHERE}/shop_test"}, endpoint=endpoint)
    with app, pytest.raises(Refused, match=rf"prepared for '{endpoint}'.*confirm='main'"):
        app.dbs["main"].drop()


@pytest.mark.parametrize("confirm", ["", "shop_test", "Main", "audit", "yes"])
def test_wrong_confirmation(confirm: str) -> None:
    """Only the name under which the database is registered confirms."""
    with make_application({"main": f"{NOWHERE}/shop_test"}, endpoint="tests") as app:
        with pytest.raises(Refused, match=rf"the confirmation '{confirm}' is not its name"):
            app.dbs["main"].drop(confirm=confirm)


@pytest.mark.parametrize("environment", ["production", "Production", " PRODUCTION "])
@pytest.mark.parametrize("confirm", [None, "main"])
def test_production(environment: str, confirm: str | None) -> None:
    """What is set to be production is never dropped."""
    settings = {"db:main:environment": environment}
    urls = {"main": f"{NOWHERE}/shop_test"}
    with make_application(urls, endpoint="tests", settings=settings) as app:
        with pytest.raises(Refused, match=r"'production'.*never dropped"):
            app.dbs["main"].drop(confirm=confirm)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Make an application from settings modules that set ``main`` per endpoint."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def make(**urls: str) -> SmallApplication:
        package = tmp_path / f"project_of_test_{next(_numbers)}"
        package.mkdir()
        (package / "__init__.py").touch()
        for module in ("default", *urls):
            body = f"settings['db:main:url'] = {urls[module]!r}" if module in urls else "pass"
            text = "def make_settings(settings, paths):\n" + textwrap.indent(body, "    ")
            (package / f"{module}.py").write_text(text)

        class Project(SmallApplication):
            settings_package = package.name

        return Project()

    yield make
    for module in set(sys.modules) - before:
        if module.startswith("project_of_test_"):
            del sys.modules[module]


REFUSED = [
    ({"wsgi": "postgresql://localhost:1/shop_test"}, "'wsgi' uses"),
    ({"default": "postgresql://u:p@[::1]:1/shop_test"}, "'wsgi' uses"),
    ({"celery": f"{NOWHERE}/other?dbname=shop_test"}, "'celery' uses"),
    ({"local_command": f"{NOWHERE}/shop_test"}, "'command' uses"),
    ({"wsgi": "nosuch://x"}, "what 'wsgi' uses cannot be told"),
]


@pytest.mark.parametrize(("urls", "reason"), REFUSED)
def test_test_database_that_others_use(
    project: Callable[..., Any], urls: dict[str, str], reason: str
) -> None:
    """A test database that another endpoint uses is refused, whatever the spelling."""
    with project(tests=f"{NOWHERE}/shop_test", **urls).run_tests() as app:
        with pytest.raises(Refused, match=reason):
            app.dbs["main"].drop()


def test_test_database_in_the_environment(
    project: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the environment says about the other endpoints counts as well."""
    monkeypatch.setenv("QAPLA_DB_MAIN_URL", f"{NOWHERE}/shop_test")
    with project(tests=f"{NOWHERE}/shop_test").run_tests() as app:
        with pytest.raises(Refused, match="'QAPLA_DB_MAIN_URL'"):
            app.dbs["main"].drop()


def test_test_database_under_another_name(tmp_path: Path) -> None:
    """A test database that another endpoint uses under another name is refused too."""

    class Two(SmallApplication):
        settings_package = "tests.empty_settings"

        def settings_for(self, endpoint: str) -> Any:
            found = super().settings_for(endpoint)
            found.settings["db:audit:url"] = f"{NOWHERE}/shop_test"
            return found

    urls = {"db:main:url": f"{NOWHERE}/shop_test", "db:audit:url": f"{NOWHERE}/audit_test"}
    with Two(("main", "audit")) as app:
        app.run_tests(urls)
        with pytest.raises(Refused, match="'wsgi' uses as 'audit'"):
            app.dbs["main"].drop()


def test_test_database_of_its_own(project: Callable[..., Any], tmp_path: Path) -> None:
    """A test database that nobody else uses is dropped, whatever the others' drivers."""
    file = tmp_path / "shop_test.db"
    app = project(
        tests=f"sqlite:///{file}",
        default=f"sqlite:///{tmp_path / 'shop.db'}",
        wsgi="mysql+mysqldb://no-such-host.invalid/shop",
        celery=f"{NOWHERE}/shop_test",
    )
    with app.run_tests():
        database = app.dbs["main"]
        database.create()
        assert database.drop()
        assert not file.exists()
        database.check_droppable()


def test_host_that_cannot_tell() -> None:
    """A host that cannot tell what other endpoints use drops only with confirmation."""

    class Host(DatabaseMixin):
        endpoint = "tests"

        def __init__(self) -> None:
            self.settings = {"db:main:url": f"{NOWHERE}/shop_test"}
            self.paths = Paths()

    host = Host()
    host.add_database_app([Database("main")])
    with pytest.raises(Refused, match=r"no settings_for\(\)"):
        host.dbs["main"].drop()
    host.dbs["main"].check_droppable(confirm="main")
    host.dbs["main"].close()


def test_unknown_endpoint_is_refused_before_anything() -> None:
    """An application that is asked for a wrong endpoint stays as it was."""
    app = SmallApplication()
    with pytest.raises(InvalidArgument):
        app.prepare("production", {"db:main:url": "sqlite://"})
    assert "created" == app.phase
