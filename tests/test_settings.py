"""From settings modules, the environment and .ini files to the settings of one database."""

from __future__ import annotations

import itertools
import socket
import subprocess
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from qapla_db import QaplaError
from qapla_db.dropping import refuse_unless_test_database
from qapla_db.errors import (
    ConfigurationError,
    DriverMissing,
    InvalidArgument,
    Refused,
    SettingInvalid,
    SettingMissing,
    SettingsModuleMissing,
)
from qapla_db.settings import (
    ENDPOINTS,
    DatabaseSettings,
    Settings,
    database_settings,
    load_settings,
)

ROOT = Path(__file__).parents[1]
SECRET = "s3cr3t"

Package = Callable[..., str]

_numbers = itertools.count(1)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Package]:
    """Write a settings package: ``package(default="settings['a'] = 1", ...)`` -> import path."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def write(*, init: str = "", **bodies: str) -> str:
        name = f"settings_of_test_{next(_numbers)}"
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(init)
        for module, body in bodies.items():
            text = "def make_settings(settings, paths):\n" + textwrap.indent(body, "    ")
            (tmp_path / name / f"{module}.py").write_text(text)
        return name

    yield write
    for module in set(sys.modules) - before:
        if module.startswith("settings_of_test_"):
            del sys.modules[module]


def read(value: object, **more: Any) -> DatabaseSettings:
    """Read the settings of ``main`` from a URL and other values."""
    settings = Settings()
    settings["db:main:url"] = value
    for key, other in more.pop("settings", {}).items():
        settings[key] = other
    return database_settings(settings, "main", environ={}, **more)


def everything_shown(error: BaseException) -> str:
    """What a person or a log can see of an error: text, repr, traceback, chained errors."""
    return "\n".join([str(error), repr(error), *traceback.format_exception(error)])


# --- modules


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_modules_in_their_order(package: Package, endpoint: str) -> None:
    """Every module sees what the ones before it set, and what is passed wins over all."""
    modules = ["default", "local", endpoint, f"local_{endpoint}"]
    add = "settings['seen'] = [*settings.get('seen', []), __name__.partition('.')[2]]\n"
    own = "settings['one'] = settings['two'] = __name__"
    name = package(**dict.fromkeys([*modules, "other"], add + own))
    loaded = load_settings(name, endpoint, {"two": "passed"})
    assert modules == loaded.settings["seen"]
    assert f"{name}.local_{endpoint}" == loaded.settings["one"]
    assert "passed" == loaded.settings["two"]


def test_local_never_overrides_tests(package: Package) -> None:
    """A developer's local.py cannot point the tests at another database."""
    name = package(
        default="settings['db:main:url'] = 'sqlite:///default.db'",
        local="settings['db:main:url'] = 'sqlite:///precious.db'",
        tests="settings['db:main:url'] = 'sqlite:///app_test.db'",
    )
    assert "sqlite:///app_test.db" == load_settings(name, "tests").settings["db:main:url"]
    assert "sqlite:///precious.db" == load_settings(name, "wsgi").settings["db:main:url"]


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_default_alone(package: Package, endpoint: str) -> None:
    """Only default is required, and for tests also tests; the error names what to create."""
    name = package(default="settings['a'] = 1")
    if endpoint != "tests":
        assert 1 == load_settings(name, endpoint).settings["a"]
        return
    with pytest.raises(SettingsModuleMissing) as caught:
        load_settings(name, endpoint)
    assert f"{name}.tests" in str(caught.value)
    assert f"create {name}/tests.py" in str(caught.value)


def test_without_default(package: Package) -> None:
    """Without a default module the error names it, and where else it could be."""
    with pytest.raises(SettingsModuleMissing, match=r"\.default cannot be found.*settings_package"):
        load_settings(package(wsgi="pass"), "wsgi")


def test_without_package() -> None:
    """Without the package the error is the same, not an ImportError from inside."""
    with pytest.raises(SettingsModuleMissing, match=r"no_such_package\.sub\.default"):
        load_settings("no_such_package.sub", "wsgi")


@pytest.mark.parametrize(
    "statement", ["import no_such_module_of_anybody", "from {package} import lokal", "1 / 0"]
)
@pytest.mark.parametrize("module", ["default", "local", "wsgi", "local_wsgi"])
def test_failing_module_shows_its_own_error(
    package: Package, tmp_path: Path, module: str, statement: str
) -> None:
    """A module that is there and fails is never taken for one that is missing."""
    name = package(default="pass", **({} if module == "default" else {module: "pass"}))
    (tmp_path / name / f"{module}.py").write_text(statement.format(package=name))
    with pytest.raises((ImportError, ZeroDivisionError)) as caught:
        load_settings(name, "wsgi")
    assert any(f"{module}.py" in line for line in traceback.format_exception(caught.value))


def test_failing_package_shows_its_own_error(package: Package) -> None:
    """A settings package whose __init__ fails shows that failure."""
    with pytest.raises(ModuleNotFoundError, match="no_such_module_of_anybody"):
        load_settings(package(init="import no_such_module_of_anybody", default="pass"), "wsgi")


def test_module_without_make_settings(package: Package, tmp_path: Path) -> None:
    """A module without make_settings is named."""
    name = package(default="pass")
    (tmp_path / name / "local.py").write_text("x = 1")
    with pytest.raises(ConfigurationError, match=rf"{name}\.local has no function"):
        load_settings(name, "wsgi")


def test_unknown_endpoint(package: Package) -> None:
    """An endpoint that does not exist is refused with the ones that do."""
    with pytest.raises(InvalidArgument, match="'web'; the endpoints are wsgi, tests"):
        load_settings(package(default="pass"), "web")


def test_project_root(package: Package, tmp_path: Path) -> None:
    """Settings modules find the directory of the project in paths, and may set it."""
    name = package(default="settings['migrations'] = paths.get('project_root')")
    assert str(tmp_path) == load_settings(name, "wsgi").settings["migrations"]
    other = package(default="paths.set('project_root', '/elsewhere')", wsgi="pass")
    assert "/elsewhere" == load_settings(other, "wsgi").paths.get("project_root")


# --- the environment


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_environment_overrides_the_modules(endpoint: str) -> None:
    """QAPLA_DB_<NAME>_URL wins over the modules, for tests only QAPLA_TEST_DB_<NAME>_URL does."""
    environ = {
        "QAPLA_DB_MAIN_URL": "sqlite:///from_environment.db",
        "QAPLA_TEST_DB_MAIN_URL": "sqlite:///test_from_environment.db",
        "QAPLA_DB_OTHER_URL": "sqlite:///other.db",
    }
    modules = {"db:main:url": "sqlite:///from_modules.db"}
    found = database_settings(modules, "main", endpoint=endpoint, environ=environ)
    expected = "test_from_environment.db" if endpoint == "tests" else "from_environment.db"
    assert expected == found.url.database
    assert found.source in environ
    del environ[found.source]
    found = database_settings(modules, "main", endpoint=endpoint, environ=environ)
    assert ("from_modules.db", "db:main:url") == (found.url.database, found.source)


def test_passed_url_wins_over_the_environment() -> None:
    """What is passed to run_*() stands above the environment too."""
    found = database_settings(
        {"db:main:url": "sqlite:///passed.db"},
        "main",
        passed=frozenset({"db:main:url"}),
        environ={"QAPLA_DB_MAIN_URL": "sqlite:///from_environment.db"},
    )
    assert "passed.db" == found.url.database


def test_environment_url_works_as_written() -> None:
    """A URL of the environment is not interpolated, and its mistakes name the variable."""
    environ = {"QAPLA_DB_MAIN_URL": "postgresql://u:%40%25%28x%29s%%@h/d"}
    assert "@%(x)s%%" == database_settings({}, "main", environ=environ).url.password
    with pytest.raises(SettingInvalid, match="'QAPLA_DB_MAIN_URL'") as caught:
        database_settings({}, "main", environ={"QAPLA_DB_MAIN_URL": f"://{SECRET}"})
    assert "QAPLA_DB_MAIN_URL" == caught.value.key
    assert SECRET not in everything_shown(caught.value)


# --- .ini files


def test_ini_keys_with_dots(package: Package) -> None:
    """What an .ini file says with dots is what a module says with colons."""
    name = package(default="settings['db:main:options'] = {'echo': True, 'pool_size': 1}")
    passed = {
        "db.main.url": "sqlite:///x.db",
        "db.main.default_url": "sqlite:///y.db",
        "db.main.environment": "staging",
        "db.main.options.pool_size": "7",
        "db.main.options.connect_args": '{"timeout": 3}',
        "db.main.session": '{"expire_on_commit": false}',
        "pyramid.includes": "pyramid_retry",
    }
    loaded = load_settings(name, "wsgi", passed)
    found = database_settings(loaded.settings, "main", passed=loaded.passed, environ={})
    assert "x.db" == found.url.database
    assert found.default_url is not None
    assert "y.db" == found.default_url.database
    assert "staging" == found.environment
    assert {"echo": True, "pool_size": 7, "connect_args": {"timeout": 3}} == found.options
    assert {"expire_on_commit": False} == found.session
    assert "pyramid_retry" == loaded.settings["pyramid.includes"]
    assert {"db:main:url", "db:main:options"} <= loaded.passed


def test_ini_text_where_a_mapping_belongs(package: Package) -> None:
    """Options that are no mapping are refused by name."""
    loaded = load_settings(package(default="pass"), "wsgi", {"db.main.options": "pool_size=5"})
    loaded.settings["db:main:url"] = "sqlite://"
    with pytest.raises(SettingInvalid, match="'db:main:options' must be a mapping") as caught:
        database_settings(loaded.settings, "main", environ={})
    assert "db:main:options" == caught.value.key


# --- values


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("p%40ss", "p@ss"),
        ("p%%40ss", "p@ss"),
        ("100%25", "100%"),
        ("%(pw)s", "from @nother"),
        ("%%(pw)s", "%(pw)s"),
        ("a%20%(pw)s", "a from @nother"),
        ("%", "%"),
        ("%(pw", "%(pw"),
    ],
)
def test_percent_in_a_url(written: str, meant: str) -> None:
    """A URL works as it is written, and %(other)s still takes another setting's value."""
    found = read(f"postgresql://u:{written}@h/d", settings={"pw": "from%%20%%40nother"})
    assert meant == found.url.password


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"a": f"{SECRET}%(missing)s"}, "missing"),
        ({"a": f"{SECRET}%(b)s", "b": f"{SECRET}%(missing)s"}, "missing"),
        ({"a": f"{SECRET}%(b)d", "b": SECRET}, "b"),
        ({"a": f"{SECRET}%(a)s"}, "a"),
    ],
)
def test_interpolation_that_fails(settings: dict[str, str], named: str) -> None:
    """It names the key that cannot be filled in, and shows no value of any setting."""
    found = Settings(settings)
    with pytest.raises(
        SettingInvalid, match=rf"%\({named}\).*set '{named}', or write %%"
    ) as caught:
        found["a"]
    assert SECRET not in everything_shown(caught.value)


@pytest.mark.parametrize(
    "secret", ["x%(s3cr3t)s!", "%%(s3cr3t)s", "a%%b", "100%", "%40", "%(", "%(x)"]
)
def test_password_of_a_mapping(secret: str) -> None:
    """The PASSWORD of a mapping is the password, whatever percent signs are in it."""
    found = read({"ENGINE": "postgresql", "HOST": "%(where)s", "PASSWORD": secret}, settings=WHERE)
    assert secret == found.url.password
    assert "db.example" == found.url.host


WHERE = {"where": "db.example", "pw": "x%(s3cr3t)s!", "db:other:url": "postgresql://%(s3cr3t)s@h"}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("db:main:url", "postgresql://u:%(s3cr3t)s@h/d"),
        ("db:main:url", "postgresql://u:%(pw)s@h/d"),
        ("db:main:url", "%(db:other:url)s"),
        ("db:main:url", {"ENGINE": "postgresql", "HOST": "%(db:other:url)s"}),
        ("db:main:default_url", "%(s3cr3t)s"),
        ("db:main:options", {"connect_args": {"password": "x%(s3cr3t)s"}}),
        ("db:main:session", {"info": "postgresql://u:%(s3cr3t)s@h/d"}),
    ],
)
def test_part_of_a_password_that_looks_like_a_reference(key: str, value: object) -> None:
    """An error names the database and the whole key, and nothing that may be of a password."""
    with pytest.raises(SettingInvalid, match=f"'{key}' of the database 'main'") as caught:
        read("sqlite://", settings={**WHERE, key: value})
    assert "write %% for a plain %" in str(caught.value)
    assert key == caught.value.key
    assert SECRET not in everything_shown(caught.value)


def test_part_of_a_url_that_cannot_be_filled_in() -> None:
    """What no password is in is named as it stands, with the database and the whole key."""
    message = r"'db:main:url' of the database 'main'.*'%\(nope\)s' in 'HOST'.*set 'nope'"
    with pytest.raises(SettingInvalid, match=message):
        read({"ENGINE": "postgresql", "HOST": "%(nope)s"})


def test_settings_show_no_values() -> None:
    """Settings printed or logged as a whole show their keys alone."""
    settings = Settings({"db:main:url": f"sqlite:///{SECRET}", "nested": {"x": SECRET}})
    shown = f"{settings} {settings!r} {settings['nested']!r}"
    assert SECRET not in shown
    assert "db:main:url" in shown


# --- URLs

SAME_URL: list[Any] = [
    "postgresql://app:p%40ss@db.example:5433/shop",
    sa.URL.create("postgresql", "app", "p@ss", "db.example", 5433, "shop"),
    {
        "ENGINE": "postgresql",
        "HOST": "db.example",
        "USER": "app",
        "PASSWORD": "p@ss",
        "PORT": 5433,
        "DB_NAME": "shop",
    },
    {
        "ENGINE": "postgresql",
        "HOST": "db.example",
        "USER": "%(user)s",
        "PASSWORD": "p@ss",
        "PORT": "5433",
        "DB_NAME": "shop",
    },
    "postgresql://db.example:5433/shop?user=app&password=p%40ss",
    "postgresql://db.example:5433?user=app&password=p%40ss&dbname=shop",
]


@pytest.mark.parametrize("value", SAME_URL)
def test_forms_of_a_url(value: object) -> None:
    """A string, a sqlalchemy.URL and a mapping that mean one database give one URL."""
    expected = sa.URL.create("postgresql+psycopg", "app", "p@ss", "db.example", 5433, "shop")
    assert expected == read(value, settings={"user": "app"}).url


@pytest.mark.parametrize(
    ("written", "driver"),
    [
        ("postgresql://h/d", "postgresql+psycopg"),
        ("mysql://h/d", "mysql+pymysql"),
        ("mariadb://h/d", "mariadb+pymysql"),
        ("sqlite://", "sqlite+pysqlite"),
        ("postgresql+pg8000://h/d", "postgresql+pg8000"),
    ],
)
def test_driver(written: str, driver: str) -> None:
    """A URL without a driver gets ours, one with a driver keeps it."""
    assert driver == read(written).url.drivername


BAD_URLS: list[tuple[object, str]] = [
    (f"postgresql//u:{SECRET}@h/d", "cannot be read as a URL"),
    (f"postgresql://u:{SECRET}@h:port/d", "cannot be read as a URL"),
    (f"postgresql://u:x@{SECRET}@h/d", "@ of its own"),
    (f"postgresql://u:x@{SECRET}/y@h/d", "@ of its own"),
    (f"postgres://u:{SECRET}@h/d", "unknown kind of database 'postgres'.*postgresql"),
    (f"postgresql+nosuch://u:{SECRET}@h/d", "unknown driver 'postgresql.nosuch'"),
    (f"postgresql+asyncpg://u:{SECRET}@h/d", "asyncio driver"),
    (f"sqlite+aiosqlite:///x?password={SECRET}", "asyncio driver"),
    ({"ENGINE": f"postgresql://u:{SECRET}@h/d"}, "has no name of a dialect"),
    ({"PASSWORD": SECRET, "HOST": "h"}, "has no ENGINE"),
    ({"ENGINE": "postgresql", "PASSWORD": SECRET, "NAME": "d"}, "unknown keys NAME"),
    ({"ENGINE": "postgresql", "PASSWORD": SECRET, "PORT": SECRET}, "PORT .* not a whole number"),
    ({"ENGINE": "postgresql", "PASSWORD": SECRET, "HOST": 7}, "a part that is not text"),
    (f"embedded://u:{SECRET}@h/d", "embedded:///DIRECTORY"),
    (f"embedded://?password={SECRET}", "embedded:///DIRECTORY"),
    (42, "is a int"),
    ([SECRET], "is a list"),
]


@pytest.mark.parametrize(("value", "problem"), BAD_URLS)
def test_url_that_cannot_be_used(value: object, problem: str) -> None:
    """The error names key, database and problem; no part of it shows the password."""
    with pytest.raises(SettingInvalid, match=problem) as caught:
        read(value)
    assert "'db:main:url' of the database 'main'" in str(caught.value) or "PORT" in problem
    assert "db:main:url" == caught.value.key
    assert SECRET not in everything_shown(caught.value)


NAME_LIMITS = [
    ("postgresql://h/{}", "d" * 63, "63 bytes"),
    ("postgresql://h?dbname={}", "d" * 63, "63 bytes"),
    ("postgresql://h/{}", "ü" * 31, "63 bytes"),
    ("embedded:///x?database={}", "d" * 63, "63 bytes"),
    ("mysql://h/{}", "d" * 64, "64 characters"),
    ("mariadb://h/{}", "ü" * 64, "64 characters"),
]


@pytest.mark.parametrize(("url", "longest", "limit"), NAME_LIMITS)
def test_name_that_the_server_would_cut(url: str, longest: str, limit: str) -> None:
    """A name that is longer than the server keeps is refused before anything is connected."""
    found = read(url.format(longest))
    assert longest == found.backend.name_of(found.url)
    long = longest + "_é"
    unit = limit.partition(" ")[2]
    length = len(long.encode()) if unit == "bytes" else len(long)
    with pytest.raises(SettingInvalid, match=rf"{limit} .*has {length} ") as caught:
        read(url.format(long))
    assert "'db:main:url' of the database 'main'" in str(caught.value)
    assert "db:main:url" == caught.value.key
    with pytest.raises(SettingInvalid, match="'db:main:default_url'"):
        read(url.format("d"), settings={"db:main:default_url": url.format(long)})


def test_bad_default_url() -> None:
    """A default_url is checked like a URL, under its own key."""
    with pytest.raises(SettingInvalid, match="'db:main:default_url' of the database 'main'"):
        read("sqlite://", settings={"db:main:default_url": "nosuch://"})


def test_no_url() -> None:
    """Without a URL the error says where to set it, and is empty in no form."""
    with pytest.raises(SettingMissing) as caught:
        database_settings({}, "main", environ={})
    for part in ("'db:main:url'", "'main'", "settings/default.py", "QAPLA_DB_MAIN_URL"):
        assert part in str(caught.value)
    assert "db:main:url" == caught.value.key
    with pytest.raises(SettingMissing, match="QAPLA_TEST_DB_MAIN_URL"):
        database_settings({}, "main", endpoint="tests", environ={})


@pytest.mark.parametrize(
    "value",
    [
        f"postgresql://u:{SECRET}@h/d",
        f"postgresql://u@h/d?password={SECRET}&sslpassword={SECRET}",
        f"mysql://u@h/d?passwd={SECRET}&ssl_key_password={SECRET}",
        {"ENGINE": "mariadb", "USER": "u", "PASSWORD": SECRET, "HOST": "h"},
    ],
)
def test_password_is_never_shown(value: object) -> None:
    """Settings and their address name the server, never the password."""
    found = read(value, settings={"db:main:options": {"connect_args": {"password": SECRET}}})
    shown = f"{found} {found!r} {found.address} {[found]}"
    assert SECRET not in shown
    assert "u" == found.address.partition("://")[2][0]


# --- drivers that are not there


@pytest.mark.parametrize(
    ("url", "blocked", "remedy"),
    [
        ("postgresql://h/d", "psycopg", "qapla_db[postgresql]"),
        ("mysql://h/d", "pymysql", "qapla_db[mysql]"),
        ("mariadb://h/d", "pymysql", "qapla_db[mysql]"),
        ("embedded:///x", "psycopg", "qapla_db[embedded]"),
        ("postgresql+psycopg2://h/d", "psycopg2", "psycopg2-binary"),
        ("mysql+mysqldb://h/d", "MySQLdb", "mysqlclient"),
    ],
)
def test_driver_that_is_not_installed(url: str, blocked: str, remedy: str) -> None:
    """Preparing says which driver is missing, for which database, and what to install."""
    program = f"""
        import sys
        from importlib.abc import MetaPathFinder
        class Blocked(MetaPathFinder):
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] == {blocked!r}:
                    raise ModuleNotFoundError(name, name=name)
        sys.meta_path.insert(0, Blocked())
        from qapla_db.errors import DriverMissing
        from tests.support import make_application
        try:
            make_application({{"main": {url!r}}})
        except DriverMissing as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "" == done.stderr
    for part in ("'main'", "'db:main:url'", f"{blocked!r}", f"pip install '{remedy}'"):
        assert part in done.stdout


def test_driver_that_nobody_lists() -> None:
    """A driver we know nothing of, and that is not installed, is named when the engine is built."""
    found = read(f"mysql+cymysql://u:{SECRET}@h/d")
    with pytest.raises(DriverMissing, match=r"'main'.*'mysql\+cymysql'.*Install it") as caught:
        found.backend.create_engine(found.url, {}, label="main", key="db:main:url")
    assert SECRET not in everything_shown(caught.value)


# --- backends of others

OTHER_BACKEND = """
from qapla_db.backends.sqlite import SQLiteBackend
class OtherBackend(SQLiteBackend):
    name = "otherlite"
    def complete(self, url):
        return url.set(drivername="sqlite+pysqlite")
"""


def test_backend_of_an_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package can bring a backend of its own through the entry point group."""
    (tmp_path / "otherlite_backend.py").write_text(OTHER_BACKEND)
    info = tmp_path / "otherlite-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: otherlite\nVersion: 1.0\n")
    point = "[qapla_db.backends]\notherlite = otherlite_backend:OtherBackend\n"
    (info / "entry_points.txt").write_text(point)
    monkeypatch.syspath_prepend(str(tmp_path))
    found = read("otherlite:///x.db")
    assert "OtherBackend" == type(found.backend).__name__
    with pytest.raises(SettingInvalid, match="known: embedded, mariadb, mysql, otherlite"):
        read("nosuch://")


# --- the rule for test databases


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("postgresql://h/shop_test", True),
        ("postgresql://h/test_shop", True),
        ("postgresql://h/shop-TEST-2", True),
        ("postgresql://h/test", True),
        ("postgresql://h/shop", False),
        ("postgresql://h/contest", False),
        ("postgresql://h/latest_shop", False),
        ("postgresql://h/testing", False),
        ("sqlite:///data/shop_test.sqlite3", True),
        ("sqlite:///test/shop.sqlite3", False),
        ("sqlite://", True),
        ("sqlite:///file:x?mode=memory&uri=true", True),
        ("embedded:///data?database=shop_test", True),
        ("embedded:///test?database=shop", False),
    ],
)
def test_name_of_a_test_database(url: str, allowed: bool) -> None:
    """A database whose name has no part 'test' is not dropped by tests, unless it is in memory."""
    tests = read(url, endpoint="tests")
    if allowed:
        refuse_unless_test_database(tests, [])
        return
    with pytest.raises(Refused, match=r"no part 'test'.*'db:main:url'.*named e\.g\. \w+_test"):
        refuse_unless_test_database(tests, [])


@pytest.mark.parametrize(
    ("tests", "other", "same"),
    [
        ("postgresql://localhost/a_test", "postgresql://127.0.0.1/a_test", True),
        ("postgresql://localhost/a_test", "postgresql://u:p@[::1]:5432/a_test", True),
        ("postgresql://localhost/a_test", "postgresql:///a_test", True),
        ("postgresql://LOCALHOST/a_test", "postgresql://127.1.2.3/a_test?sslmode=prefer", True),
        ("postgresql://localhost/a_test", "postgresql:///a_test?host=/var/run/postgresql", True),
        ("postgresql:///a_test?host=127.0.0.1:5432", "postgresql+pg8000://localhost/a_test", True),
        ("postgresql://localhost/a_test", "postgresql://localhost/x?dbname=a_test", True),
        ("postgresql://localhost/a_test", "postgresql://localhost:5433/a_test", False),
        ("postgresql://localhost/a_test", "postgresql://localhost/b_test", False),
        ("postgresql://localhost/a_test", "postgresql://192.0.2.7/a_test", False),
        ("postgresql:///a_test?host=/x/y", "postgresql:///a_test?host=/x/../x/y/", True),
        ("postgresql:///a_test?host=/x/y", "embedded:////x/y?database=a_test", True),
        ("postgresql:///a_test?host=/x/y", "postgresql:///a_test?host=/x/z", False),
        ("mysql://localhost/a_test", "mariadb://127.0.0.1:3306/a_test", True),
        ("mysql://localhost/a_test", "mysql:///a_test?unix_socket=/run/mysqld/mysqld.sock", True),
        ("mysql:///a_test?unix_socket=/x", "mysql://h/a_test?unix_socket=/x", True),
        ("mysql:///a_test?unix_socket=/x", "mysql:///a_test?unix_socket=/y", False),
        ("mysql:///a_test?unix_socket=/own/s", "mysql://u@127.0.0.1:33977/a_test", True),
        ("mysql://127.0.0.1:33977/a_test", "mariadb:///A_Test?unix_socket=/own/s", True),
        ("mysql:///a_test?unix_socket=/tmp/mysql.sock", "mysql://[::1]:33977/a_test", True),
        ("mysql+mysqldb://localhost:1/a_test", "mysql+mysqldb://127.0.0.1:2/a_test", True),
        ("mysql://localhost:1/a_test", "mysql://127.0.0.1:2/a_test", False),
        ("mysql:///a_test?unix_socket=/own/s", "mysql://127.0.0.1:33977/b_test", False),
        ("mysql:///a_test?unix_socket=/own/s", "mysql://192.0.2.7/a_test", False),
        ("postgresql:///a_test?host=/own/dir", "postgresql://localhost:5433/a_test", True),
        ("postgresql:///a_test?host=/tmp", "postgresql://{hostname}:5433/a_test", True),
        ("postgresql:///a_test?host=/own/dir", "postgresql:///a_test", True),
        ("postgresql:///a_test?host=/x&port=1", "postgresql:///a_test?host=/x&port=2", False),
        ("postgresql://h/a_test", "postgresql://h/A_Test", True),
        ("postgresql://h/a_test", "postgresql://i/A_Test", False),
        ("mysql://192.0.2.7/Shop_Test", "mysql://192.0.2.7/shop_test", True),
        ("embedded:///d?database=a_test", "embedded:///e?database=a_test", False),
        ("embedded:///d?database=a_test", "embedded:///d?database=A_test", True),
        ("embedded:///d?database=a_test", "postgresql:///a_test?host=/tmp/qapla_db-0-1f", True),
        ("sqlite:///a_test.db", "sqlite:///A_test.db", True),
        ("sqlite:///a_test.db", "postgresql:///a_test", False),
        ("sqlite:///a_test.db", "sqlite:///../{here}/a_test.db", True),
        ("sqlite:///a_test.db", "sqlite:///file:a_test.db?uri=true", True),
        ("sqlite:///a_test.db", "sqlite:///b/a_test.db", False),
        ("embedded:///d?database=a_test", "embedded:///./d?database=a_test&fsync=off", True),
        ("embedded:///d?database=a_test", "embedded:///d?database=b_test", False),
    ],
)
def test_database_that_others_use(
    tests: str, other: str, same: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A test database that another endpoint uses is refused, however its server is spelled."""
    monkeypatch.chdir(tmp_path)
    other = other.format(here=tmp_path.name, hostname=socket.gethostname())
    found = read(tests, endpoint="tests")
    others = [("wsgi", read(other))]
    if not same:
        refuse_unless_test_database(found, others)
        return
    with pytest.raises(Refused, match="is the database that 'wsgi' uses"):
        refuse_unless_test_database(found, others)


def test_own_names_of_this_machine() -> None:
    """The machine's own name and addresses are localhost."""
    localhost = read("postgresql://localhost/a_test")
    assert localhost.identity == read(f"postgresql://{socket.gethostname()}/a_test").identity


def test_errors_have_one_root() -> None:
    """Whoever catches QaplaError catches every mistake in settings; ValueError works as well."""
    with pytest.raises(QaplaError):
        read("nosuch://")
    with pytest.raises(ValueError, match="nosuch"):
        read("nosuch://")


@pytest.mark.parametrize(
    ("tests", "options", "environment"),
    [
        ("postgresql://other.example/crew_test?host=/tmp/pg", {}, {}),
        ("postgresql://other.example/crew_test?hostaddr=127.0.0.1", {}, {}),
        ("postgresql:///crew_test?host=/none,/tmp/pg", {}, {}),
        ("postgresql:///crew_test?service=crew", {}, {}),
        ("postgresql:///crew_test", {}, {"PGHOST": "/tmp/pg"}),
        ("postgresql://other.example/crew_test", {}, {"PGPORT": "6000"}),
        ("postgresql://other.example:1/crew_test", {"host": "/tmp/pg"}, {}),
        ("postgresql://other.example:1/new_test", {"dbname": "crew_test"}, {}),
        ("mysql://other.example/crew_test?read_default_file=my.cnf", {}, {}),
    ],
)
def test_database_that_cannot_be_told_from_another(
    tests: str,
    options: dict[str, str],
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A test database that the driver may find elsewhere than its URL says is refused."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    dialect = tests.partition(":")[0]
    ours = {"db:main:url": tests, "db:main:options": {"connect_args": options}}
    theirs = {"db:main:url": f"{dialect}://localhost:9/crew_test"}
    with pytest.raises(Refused, match="'main'"):
        refuse_unless_test_database(
            database_settings(ours, "main", environ={}),
            [("wsgi", database_settings(theirs, "main", environ={}))],
        )


def test_file_that_only_looks_like_memory() -> None:
    """mode=memory without uri=true opens the file, so the file is protected."""
    settings = {"db:main:url": "sqlite:////var/lib/shop.db?mode=memory"}
    with pytest.raises(Refused, match="'shop'"):
        refuse_unless_test_database(database_settings(settings, "main", environ={}), [])


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:a@s3cr3t?b@db.example/name",
        "postgresql://u:ab@c?s3cr3t=x@h/db",
        "postgresql:///u:s3cr3t@db.example/name",
        "postgresql:///host=h password=s3cr3t",
    ],
)
def test_password_in_a_wrong_place(url: str) -> None:
    """A URL in which a part of the password became something else is refused and not shown."""
    with pytest.raises(SettingInvalid) as caught:
        database_settings({"db:main:url": url}, "main", environ={})
    assert "s3cr3t" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("endpoint", ["wsgi", "command", "celery", "shell"])
@pytest.mark.parametrize("setting", ["url", "default_url"])
def test_the_server_of_the_tests_is_for_tests_alone(endpoint: str, setting: str) -> None:
    """An application that is prepared for earnest does not begin with data that may be lost."""
    given = {"db:main:url": "sqlite://", f"db:main:{setting}": "embedded://tests?database=x_test"}
    with pytest.raises(SettingInvalid, match=f"'db:main:{setting}'.*may be lost.*{endpoint!r}"):
        database_settings(given, "main", endpoint=endpoint, environ={})
    found = database_settings(given, "main", endpoint="tests", environ={})
    assert "tests" in (found.url.host, found.default_url and found.default_url.host)


def test_no_tests_where_other_endpoints_share_the_server_of_the_tests() -> None:
    """settings/default.py is the wrong place for it, which the tests say before they drop."""
    from tests.support import make_application

    url = "embedded://tests?database=x_test"
    with make_application({"main": url}, endpoint="tests") as app:
        app.settings_for = lambda endpoint: load_settings(  # type: ignore[method-assign]
            "tests.empty_settings", endpoint, {"db:main:url": url}
        )
        with pytest.raises(Refused, match="may be lost at any time"):
            app.dbs["main"].check_droppable()
