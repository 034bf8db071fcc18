"""The request of a Pyramid application gets a session of each named database.

``request.<name>`` is a session of the database ``<name>``: opened when it is
first used, one a request, closed and rolled back whatever happens. The commit
is yours. A streamed body may use the session while it is sent.
"""

from __future__ import annotations

import sys
import traceback
import weakref
from collections.abc import Mapping
from functools import partial
from types import FrameType
from typing import Any

from morfdict import MorfDict
from pyramid.config import PHASE3_CONFIG, Configurator
from pyramid.config.actions import action_method
from pyramid.interfaces import IExecutionPolicy
from pyramid.request import Request
from pyramid.router import default_execution_policy
from pyramid.settings import asbool, aslist

from qapla_db.database import Database
from qapla_db.errors import ConfigurationError, InvalidArgument, SettingMissing
from qapla_db.registry import Databases
from qapla_db.session import Session
from qapla_db.web import retry
from qapla_db.web.bag import make_policy, open_session
from qapla_db.web.host import ConfiguredHost

__all__ = ["HOST", "add_databases", "includeme", "make_configurator", "setup_pshell"]

HOST = "qapla_db"
"""Key of the host in Pyramid's registry: ``request.registry["qapla_db"].dbs``."""

_LATE = PHASE3_CONFIG + 1_000_000  # behind pyramid_retry and every policy of the application

_PROTECTED = frozenset(dir(Request)) | {
    # what a request, the router and the traverser set on the instance
    "context",
    "environ",
    "invoke_subrequest",
    "registry",
    "root",
    "subpath",
    "traversed",
    "view_name",
    "virtual_root",
    "virtual_root_path",
}


def make_configurator(settings: Mapping[str, Any], package: str | None = None) -> Configurator:
    """Make Pyramid's Configurator from the settings of an application.

    The settings become Pyramid's (``request.registry.settings``), without those
    of the databases (``db:...``): what shows Pyramid's settings shows no password.

    :param settings: settings of the application.
    :param package: import path that relative names (``config.scan()``,
        ``config.include(".views")``) start from.
    """
    plain = {
        key: value.to_dict() if isinstance(value, MorfDict) else value
        for key, value in ((key, settings[key]) for key in settings)
        if not str(key).startswith("db:")
    }
    return Configurator(settings=plain, package=package)


def add_databases(config: Configurator, dbs: Databases) -> None:
    """Give the request a session of each database, under the database's name.

    :param config: Pyramid's Configurator.
    :param dbs: the databases, prepared.
    :raises InvalidArgument: a name is taken by the request itself.
    :raises ConfigurationError: ``qapla_db.retry`` is on without pyramid_retry.

    A name that something else adds to the request is a ConfigurationConflictError
    of Pyramid. The setting ``qapla_db.retry`` makes pyramid_retry run a request
    again on a serialization failure or a deadlock.
    """
    for name in dbs:
        _check_name(name)
    registry = config.registry
    with_retry = asbool((config.get_settings() or {}).get(retry.SETTING))
    if with_retry:
        retry.include_retry(config)
    if dbs and HOST not in registry:
        config.action(None, _wrap_policy, args=(registry,), order=_LATE)
    for database in dbs.values():
        action_method(_add_database)(config, database, with_retry, _info=_caller())
        registry[HOST] = database.host


def _add_database(config: Configurator, database: Database, with_retry: bool) -> None:
    def open_marked(request: Any) -> Session:
        retry.mark_errors_of(database)
        return open_session(request, database)

    opens = open_marked if with_retry else partial(open_session, database=database)
    title = f"request.{database.name}: {database.settings.address}"
    shown = config.introspectable("qapla_db databases", database.name, title, "qapla_db database")
    shown["database"] = database
    config.action(("qapla_db.database", database.name), introspectables=(shown,))
    config.add_request_method(opens, database.name, reify=True)


def _wrap_policy(registry: Any) -> None:
    policy = registry.queryUtility(IExecutionPolicy, default=default_execution_policy)
    registry.registerUtility(make_policy(policy), IExecutionPolicy)


def _check_name(name: str) -> None:
    if name in _PROTECTED:
        raise InvalidArgument(
            f"{name!r} cannot be the name of a database of a web application: "
            f"request.{name} is Pyramid's own; choose another name, e.g. '{name}_db'"
        )


def _caller() -> traceback.FrameSummary | None:
    """Find the line of the application that brought us here, for Pyramid's conflict reports."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__", "").partition(".")[0] not in ("qapla_db", "pyramid"):
            return traceback.extract_stack(frame, limit=1)[0]
        frame = frame.f_back
    return None


def includeme(config: Configurator) -> None:
    """``config.include("qapla_db")``: databases from Pyramid's settings.

    For a Pyramid application without an Application class. The settings are::

        qapla_db.databases = main audit
        db.main.url = postgresql://user@host/name
        db.main.options.pool_size = 10
        db.audit.url = sqlite:///audit.sqlite3
        qapla_db.endpoint = wsgi
        qapla_db.retry = true

    ``qapla_db.endpoint`` (default ``wsgi``) is ``tests`` in the settings of tests.
    An environment variable ``QAPLA_DB_<NAME>_URL`` (``QAPLA_TEST_DB_<NAME>_URL``
    under tests) wins over the URL.

    ``request.main`` is a session of ``main``;
    ``request.registry["qapla_db"].dbs["main"]`` is the Database. The engines are
    closed when the registry goes away or the process ends.

    Included in an application that calls ``add_database_web()``, it adds nothing.

    :raises SettingMissing: ``qapla_db.databases`` or a URL is not set.
    """
    registry, settings = config.registry, config.get_settings() or {}
    names = aslist(settings.get("qapla_db.databases") or "")
    if HOST in registry:
        return
    if not names:
        # an Application may still add its databases to this config
        config.action("qapla_db.databases", _require_databases, args=(registry,), order=_LATE)
        return
    for name in names:
        _check_name(name)
    host = ConfiguredHost(names, settings, settings.get("qapla_db.endpoint") or "wsgi")
    add_databases(config, host.dbs)
    weakref.finalize(registry, host.close)


def _require_databases(registry: Any) -> None:
    if HOST not in registry:
        raise SettingMissing(
            "'qapla_db.databases' is not set, so config.include('qapla_db') has no database; "
            "name them in Pyramid's settings, e.g. in the .ini file: qapla_db.databases = main "
            "and db.main.url = postgresql://USER@HOST/NAME",
            key="qapla_db.databases",
        )


def setup_pshell(env: dict[str, Any]) -> None:
    """Put the sessions of the request into ``pshell``, and the databases as ``dbs``.

    In the .ini file::

        [pshell]
        setup = qapla_db.web.pyramid:setup_pshell

    A name that the shell has already (``app``, or one of the section) stays what it is.

    :raises ConfigurationError: the application has no databases.
    """
    host = env["registry"].get(HOST)
    if host is None:
        raise ConfigurationError(
            "this Pyramid application has no databases of qapla_db; call add_database_web() in "
            "append_web_plugins(), or config.include('qapla_db')"
        )
    env.setdefault("dbs", host.dbs)
    for name in host.dbs:
        if name not in env:
            env[name] = getattr(env["request"], name)
