"""From settings modules to the settings of one database.

Settings modules are those of morfdict: each has ``make_settings(settings, paths)``.
They are run in this order, later ones win: ``default``, ``local``, the module of
the endpoint (``wsgi``, ``tests``, ``shell``, ``command``, ``celery``),
``local_<endpoint>``; then come the values passed to ``run_*()``.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import sqlalchemy as sa
from morfdict import Paths, StringDict

from qapla_db.backends import Backend, safe_url
from qapla_db.backends.address import is_secret
from qapla_db.backends.base import Access
from qapla_db.backends.urls import complete_url
from qapla_db.errors import (
    ConfigurationError,
    InvalidArgument,
    SettingInvalid,
    SettingMissing,
    SettingsModuleMissing,
)

__all__ = [
    "ENDPOINTS",
    "MOVED",
    "DatabaseSettings",
    "LoadedSettings",
    "Settings",
    "database_settings",
    "load_settings",
    "moved_key",
]

ENDPOINTS = ("wsgi", "tests", "shell", "command", "celery")
"""What an application can be prepared for."""

MOVED = "QAPLA_TEST_MOVED"
"""The environment variable by which a run of tests says which of its databases have other names,
because another run has those of the settings."""

_REFERENCE = re.compile(r"%%|%\((?P<key>[^)]*)\)(?P<format>[-#0 +]*\d*(?:\.\d+)?[a-zA-Z])")
_DOTTED = re.compile(
    r"db\.(?P<name>[^.]+)\."
    r"(?:(?P<setting>url|default_url|environment|options|session)"
    r"|(?P<mapping>options|session)\.(?P<item>.+))"
)


class Settings(StringDict):  # type: ignore[misc]
    """morfdict's StringDict, in which a value works as it is written.

    ``%(key)s`` takes another setting's value and ``%%`` stands for one ``%``;
    any other ``%`` is left alone (a URL may hold ``%40``). What stands under
    ``PASSWORD`` is not looked into.
    """

    def __getitem__(self, key: str) -> Any:
        value = self._get_from_self_or_parent(key)
        method = self._morf.get(key)
        if method is not None:
            return method(self, value)
        as_written = type(value) is not str or key == "PASSWORD"
        return value if as_written else self._interpolate(key, value)

    def _interpolate(self, key: str, value: str) -> str:
        hidden = "://" in value or key.lower().endswith("url") or is_secret(key)

        def replace(match: re.Match[str]) -> str:
            if match["key"] is None:
                return "%"
            culprit, what = key, f"%({match['key']}){match['format']}"
            remedy = repr(match["key"])
            try:
                return str(f"%{match['format']}" % self[match["key"]])
            except SettingInvalid as error:
                if not hidden:
                    raise  # it names the setting deeper down that is at fault
                culprit, kind = error.key, type(error).__name__
            except (KeyError, TypeError, ValueError, RecursionError) as error:
                kind = type(error).__name__
            if hidden:  # it may be a part of a password
                what, remedy = "%(...)", "what it refers to"
            # outside the handler: a chained error could show a value
            raise SettingInvalid(
                f"{what!r} in {culprit!r} cannot be filled in ({kind}); set {remedy}, or write "
                "%% for a plain %",
                key=culprit,
            )

        return _REFERENCE.sub(replace, value)

    def put(self, values: Mapping[str, Any]) -> frozenset[str]:
        """Set values that may come from an ``.ini`` file, with dots in their keys.

        :returns: the keys that were set.
        """
        whole, items = from_ini(values)
        for key, value in whole.items():
            self[key] = value
        for key, named in items.items():
            self[key] = {**_mapping(self, key), **named}
        return frozenset({*whole, *items})

    def __repr__(self) -> str:
        return f"<Settings: {', '.join(sorted(map(str, self)))}>"


@dataclass(frozen=True)
class LoadedSettings:
    """What the settings modules of one endpoint say."""

    settings: Settings
    paths: Paths
    endpoint: str
    passed: frozenset[str] = frozenset()


@dataclass(frozen=True)
class DatabaseSettings:
    """Everything that is set about one database. No representation shows a password."""

    name: str
    url: sa.URL
    backend: Backend = field(compare=False)
    default_url: sa.URL | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    session: Mapping[str, Any] = field(default_factory=dict)
    environment: str = "development"
    source: str = ""

    @property
    def address(self) -> str:
        """The URL without its password, for people."""
        return safe_url(self.url)

    @property
    def connect_args(self) -> Mapping[str, Any]:
        """The user's arguments of the driver's ``connect()``."""
        found: Mapping[str, Any] = self.options.get("connect_args", {})
        return found

    @property
    def access(self) -> Access:
        """What a backend needs of these settings to administer the database."""
        return Access(self.connect_args, self.name, self.source)

    @property
    def identity(self) -> tuple[str, str]:
        """Server and database, equal for two spellings of one database."""
        return self.backend.identity(self.url)

    def is_same_database(self, other: DatabaseSettings) -> bool:
        """Tell whether two names lead to one database on one server.

        Names of servers are looked up only where those of the databases are equal.
        """
        if self is other:
            return True
        ours, theirs = self.backend, other.backend
        if ours.is_server and ours.name_of(self.url) != theirs.name_of(other.url):
            return False
        return self.identity == other.identity

    def __repr__(self) -> str:
        return f"<DatabaseSettings {self.name!r}: {self.address}, {self.environment}>"


def load_settings(
    package: str, endpoint: str, passed: Mapping[str, Any] | None = None
) -> LoadedSettings:
    """Run the settings modules of an endpoint.

    :param package: import path of the package that holds the modules.
    :param endpoint: one of :data:`ENDPOINTS`.
    :param passed: values that win over the modules; keys of an ``.ini`` file
        may have dots (``db.main.url``).
    :raises SettingsModuleMissing: ``default`` is missing, or ``tests`` for tests.
    :raises InvalidArgument: there is no such endpoint.

    A module that exists and fails shows its own error.
    """
    if endpoint not in ENDPOINTS:
        raise InvalidArgument(
            f"there is no endpoint {endpoint!r}; the endpoints are {', '.join(ENDPOINTS)}"
        )
    settings, paths = Settings(), Paths()
    required = {"default", "tests"} if endpoint == "tests" else {"default"}
    for name in ("default", "local", endpoint, f"local_{endpoint}"):
        module = _find_module(package, name)
        if module is not None:
            _set_root(paths, package)
            _make_settings(module)(settings, paths)
        elif name in required:
            raise SettingsModuleMissing(
                f"the settings module {package}.{name} cannot be found; create "
                f"{package.replace('.', '/')}/{name}.py with make_settings(settings, paths), "
                "or name another package in the application's settings_package"
            )
    return LoadedSettings(settings, paths, endpoint, settings.put(passed or {}))


def _find_module(package: str, name: str) -> ModuleType | None:
    path = f"{package}.{name}"
    try:
        found = importlib.util.find_spec(path)
    except ModuleNotFoundError as error:
        # a missing package is our caller's to say; another missing module is the package's own
        if error.name is None or not f"{path}.".startswith(f"{error.name}."):
            raise
        return None
    return importlib.import_module(path) if found else None


def _set_root(paths: Paths, package: str) -> None:
    if "project_root" not in paths.paths:
        top = importlib.import_module(package.partition(".")[0])
        paths.set("project_root", str(Path(next(iter(top.__path__))).absolute().parent))


def _make_settings(module: ModuleType) -> Any:
    function = getattr(module, "make_settings", None)
    if not callable(function):
        raise ConfigurationError(
            f"the settings module {module.__name__} has no function "
            "make_settings(settings, paths); add it"
        )
    return function


def from_ini(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Turn ``db.main.url`` into ``db:main:url``; other keys stay as they are.

    Options and session keywords are read as JSON where they are JSON (``5``,
    ``true``, ``{"pool_size": 5}``), else as text.

    :returns: (whole settings, single items: ``db.main.options.pool_size = 5``
        is one of ``db:main:options``, whose other items stay).
    """
    whole: dict[str, Any] = {}
    items: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        match = _DOTTED.fullmatch(key)
        if match is None:
            whole[key] = value
            continue
        setting = match["setting"] or match["mapping"]
        target = f"db:{match['name']}:{setting}"
        if setting in ("options", "session"):
            value = _from_json(value)
        if match["item"] is None:
            whole[target] = value
        else:
            items.setdefault(target, {})[match["item"]] = value
    return whole, items


def _from_json(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def database_settings(
    settings: Mapping[str, Any],
    name: str,
    *,
    endpoint: str | None = None,
    passed: frozenset[str] = frozenset(),
    environ: Mapping[str, str] = os.environ,
) -> DatabaseSettings:
    """Read the settings of one database; nothing is connected.

    :param settings: settings of the application.
    :param name: the database's name.
    :param endpoint: the endpoint that is prepared; tests have an environment variable of their
        own, and each worker of pytest-xdist has a database of its own, named after it.
    :param passed: keys that were passed to ``run_*()``: they win over the environment.
    :param environ: the process's environment.
    :raises SettingMissing: no URL is set.
    :raises SettingInvalid: a value cannot be used.
    """
    variable = f"QAPLA_{'TEST_' if endpoint == 'tests' else ''}DB_{name.upper()}_URL"
    key = f"db:{name}:url"
    from_environment = key not in passed and environ.get(variable)
    source = variable if from_environment else key
    value: Any = from_environment or _read(settings, key)
    if not value:
        raise SettingMissing(
            f"{key!r} is not set for the database {name!r}; set it in settings/default.py "
            f"(settings[{key!r}] = 'postgresql://USER@HOST/NAME'), or in the environment as "
            f"{variable}",
            key=key,
        )
    url, backend = complete_url(value, source, name, endpoint=endpoint)
    if endpoint == "tests":
        if key not in passed:
            url = _of_this_worker(url, backend, environ.get("PYTEST_XDIST_WORKER", ""))
        url = _of_this_run(url, backend, environ.get(MOVED, ""))
    default_key = f"db:{name}:default_url"
    default = _read(settings, default_key)
    return DatabaseSettings(
        name=name,
        url=url,
        backend=backend,
        default_url=(
            complete_url(default, default_key, name, endpoint=endpoint)[0] if default else None
        ),
        options=_options(settings, f"db:{name}:options"),
        session=_mapping(settings, f"db:{name}:session"),
        environment=str(_read(settings, f"db:{name}:environment") or _usual(endpoint)),
        source=source,
    )


def _of_this_worker(url: sa.URL, backend: Backend, worker: str) -> sa.URL:
    name = backend.name_of(url)
    if not worker or backend.is_volatile(url) or worker in re.split("[_-]", name):
        return url
    return backend.renamed(url, f"{name}_{worker}")


def _of_this_run(url: sa.URL, backend: Backend, moved: str) -> sa.URL:
    name = json.loads(moved).get(moved_key(url, backend)) if moved else None
    return backend.renamed(url, name) if name else url


def moved_key(url: sa.URL, backend: Backend) -> str:
    """Return what stands in :data:`MOVED` for a database."""
    return " ".join(backend.identity(url))


def _usual(endpoint: str | None) -> str:
    return "tests" if endpoint == "tests" else "development"


def _read(settings: Mapping[str, Any], key: str) -> Any:
    """Return a setting of a database, filled in; an error names the database and the whole key."""
    try:
        value = settings.get(key)
        to_dict = getattr(value, "to_dict", None)
        return to_dict() if to_dict else value
    except SettingInvalid as error:
        problem = error.message
    name = key.split(":")[1]
    raise SettingInvalid(f"{key!r} of the database {name!r} cannot be read: {problem}", key=key)


def _options(settings: Mapping[str, Any], key: str) -> dict[str, Any]:
    options = _mapping(settings, key)
    args = options.get("connect_args", {})
    if not isinstance(args, Mapping) or not all(isinstance(item, str) for item in args):
        raise SettingInvalid(
            f"'connect_args' in {key!r} must be a mapping of the driver's keyword to value, not "
            f"a {type(args).__name__}",
            key=key,
        )
    return options


def _mapping(settings: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = _read(settings, key)
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(item, str) for item in value):
        raise SettingInvalid(
            f"{key!r} must be a mapping of keyword to value, not a {type(value).__name__}",
            key=key,
        )
    return dict(value)
