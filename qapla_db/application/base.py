"""The host: its phases, its settings, its plugins."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from qapla_db.application.place import refuse_settings_of_another_project
from qapla_db.application.plugins import HOOKS, Plugin, call_hook, close_all
from qapla_db.errors import AlreadyPrepared, Closed, Misuse, NotPrepared
from qapla_db.settings import LoadedSettings, from_ini, load_settings

__all__ = ["Application", "instances_of"]

log = logging.getLogger("qapla_db")

Phase = Literal["created", "preparing", "prepared", "closed"]
A = TypeVar("A", bound="Application")
WSGIApplication = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class Application:
    """An application with phases: created, preparing, prepared, closed.

    Subclasses say what belongs to them in :meth:`append_app_plugins` and
    :meth:`append_web_plugins`, and where their settings are in
    ``settings_package``.
    """

    settings_package: str = "settings"
    """Import path of the package with the settings modules."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._phase: Phase = "created"
        self._loaded: LoadedSettings | None = None
        self._passed: dict[str, Any] = {}
        self._endpoint: str | None = None
        self._plugins: list[Plugin] = []
        self._config: Any = None
        self._wsgi: WSGIApplication | None = None
        _applications.add(self)

    def __repr__(self) -> str:
        what = f"{self._phase} for {self._endpoint!r}" if self._endpoint else self._phase
        return f"<{type(self).__name__}: {what}>"

    # --- what a subclass says

    def append_app_plugins(self) -> None:
        """Register the plugins of the application; called while it is prepared."""

    def append_web_plugins(self) -> None:
        """Add what the web application needs to ``self.config``; called when it is made."""

    def add_plugin(self, plugin: Plugin) -> None:
        """Register a plugin and prepare it.

        :raises Misuse: called outside :meth:`append_app_plugins`, or the object
            has none of the hooks.
        """
        if self._phase != "preparing":
            raise Misuse(
                f"add_plugin() of {type(self).__name__} was called in the phase "
                f"{self._phase!r}; call it in append_app_plugins()"
            )
        has_hook = any(callable(getattr(plugin, hook, None)) for hook in HOOKS)
        if isinstance(plugin, type) or not has_hook:
            raise Misuse(
                f"{plugin!r} is not a plugin; pass an instance with at least one of the hooks "
                f"{', '.join(HOOKS)}, e.g. Database('main')"
            )
        call_hook(plugin, "prepare_app", self)
        self._plugins.append(plugin)

    # --- lifecycle

    @property
    def phase(self) -> Phase:
        """Where the application is in its life."""
        return self._phase

    @property
    def endpoint(self) -> str | None:
        """What the application is prepared for; None before."""
        return self._endpoint

    def prepare(self, endpoint: str, settings: Mapping[str, Any] | None = None) -> None:
        """Load the settings of an endpoint and prepare the plugins; connects nowhere.

        Again for the same endpoint, with the same values or none, it does nothing.

        :param endpoint: ``wsgi``, ``tests``, ``shell``, ``command`` or ``celery``.
        :param settings: values that win over the settings modules.
        :raises AlreadyPrepared: the application is prepared for another endpoint,
            or with other values.
        :raises Closed: the application was closed.
        """
        with self._lock:
            self._check_phase(endpoint)
            if self._phase == "prepared":
                self._check_values(settings or {})
                return
            loaded = self._load_settings(endpoint, settings)
            self._loaded, self._endpoint, self._phase = loaded, endpoint, "preparing"
            self._passed = dict(settings or {})
            try:
                self.append_app_plugins()
            except BaseException:
                self._close_plugins()
                self._loaded, self._endpoint, self._phase = None, None, "created"
                raise
            self._phase = "prepared"

    def _check_phase(self, endpoint: str) -> None:
        name = type(self).__name__
        if self._phase == "closed":
            raise Closed(f"{name} was closed and is not prepared again; make a new one")
        if self._phase == "preparing":
            raise AlreadyPrepared(
                f"{name} is being prepared for {self._endpoint!r}; nothing that "
                "append_app_plugins() calls or imports may prepare it"
            )
        if self._endpoint is not None and self._endpoint != endpoint:
            raise AlreadyPrepared(
                f"{name} is prepared for {self._endpoint!r} and cannot be prepared for "
                f"{endpoint!r} too; use another process or another {name}()"
            )

    def _check_values(self, settings: Mapping[str, Any]) -> None:
        different = _different_keys(self._passed, settings) if settings else []
        if different:
            name = type(self).__name__
            raise AlreadyPrepared(
                f"{name} is prepared for {self._endpoint!r} with other values than are passed "
                f"now; they differ in {', '.join(map(repr, different))}. Pass the same values or "
                f"none, or use another {name}()"
            )

    def run_wsgi(self, settings: Mapping[str, Any] | None = None) -> WSGIApplication:
        """Prepare for a web server and return the WSGI application."""
        self.prepare("wsgi", settings)
        return self.make_wsgi_app()

    def run_tests(self, settings: Mapping[str, Any] | None = None) -> Self:
        """Prepare for tests."""
        self.prepare("tests", settings)
        return self

    def run_shell(self, settings: Mapping[str, Any] | None = None) -> Self:
        """Prepare for an interactive shell."""
        self.prepare("shell", settings)
        return self

    def run_command(self, settings: Mapping[str, Any] | None = None) -> Self:
        """Prepare for a command, such as a migration."""
        self.prepare("command", settings)
        return self

    def run_celery(self, settings: Mapping[str, Any] | None = None) -> Self:
        """Prepare for a task worker."""
        self.prepare("celery", settings)
        return self

    def __call__(
        self, global_config: Mapping[str, Any] | None, /, **settings: Any
    ) -> WSGIApplication:
        """Return the WSGI application: the entry point for PasteDeploy.

        ``pserve``, ``prequest`` and the others get an application prepared for
        ``wsgi``; ``pshell`` gets one prepared for ``shell``.
        """
        script = (global_config or {}).get("__script__", "")
        self.prepare("shell" if script == "pshell" else "wsgi", settings)
        return self.make_wsgi_app()

    def make_wsgi_app(self) -> WSGIApplication:
        """Return the Pyramid application, made once, of a prepared application.

        Relative names in ``config.scan()`` and ``config.include(".views")`` start
        from the package of the application's class.

        :raises Misuse: called while it is made, e.g. by a module that
            ``config.scan()`` imports.
        """
        with self._lock:
            self._require_loaded()
            if self._config is not None:
                raise Misuse(
                    f"the web application of {type(self).__name__} was asked for while it is "
                    "made; nothing that append_web_plugins() calls, imports or scans may call "
                    "run_wsgi() or make_wsgi_app(): leave such a module out of config.scan()"
                )
            if self._wsgi is None:
                from qapla_db.web.pyramid import make_configurator

                self._config = make_configurator(self.settings, type(self).__module__)
                try:
                    self.append_web_plugins()
                    self._wsgi = self._config.make_wsgi_app()
                finally:
                    self._config = None
            return self._wsgi

    def close(self) -> None:
        """Close every plugin, the last registered first, even if one fails.

        :raises BaseException: the first error of a plugin, after all are closed.
        """
        with self._lock:
            if self._phase != "closed":
                self._phase = "closed"
                self._wsgi = None
                error = self._close_plugins()
                if error is not None:
                    raise error

    def _close_plugins(self) -> BaseException | None:
        plugins, self._plugins = self._plugins, []
        return close_all(plugins)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        type_: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # --- what preparation brings

    @property
    def settings(self) -> Any:
        """The settings; they exist once the application is being prepared."""
        return self._require_loaded().settings

    @property
    def paths(self) -> Any:
        """The paths; they exist once the application is being prepared."""
        return self._require_loaded().paths

    @property
    def passed_settings(self) -> frozenset[str]:
        """Keys of the settings that were passed to ``run_*()``."""
        return self._require_loaded().passed

    @property
    def config(self) -> Any:
        """Pyramid's Configurator, for :meth:`append_web_plugins`."""
        if self._config is None:
            raise NotPrepared(
                f"the config of {type(self).__name__} exists while the web application is made; "
                "use it in append_web_plugins()"
            )
        return self._config

    def settings_for(self, endpoint: str) -> LoadedSettings:
        """Return what the settings modules say for an endpoint, without preparing it."""
        return self._load_settings(endpoint)

    def _load_settings(
        self, endpoint: str, settings: Mapping[str, Any] | None = None
    ) -> LoadedSettings:
        refuse_settings_of_another_project(self.settings_package, type(self).__module__)
        return load_settings(self.settings_package, endpoint, settings)

    def _require_loaded(self) -> LoadedSettings:
        if self._phase == "closed":
            raise Closed(f"{type(self).__name__} was closed; make a new one")
        if self._loaded is None:
            raise NotPrepared(
                f"{type(self).__name__} is not prepared; call run_wsgi(), run_celery(), "
                "run_command(), run_shell() or run_tests() first"
            )
        return self._loaded

    def _after_fork(self) -> None:
        # the lock may have been held by a thread that this process does not have
        self._lock = threading.RLock()
        for plugin in self._plugins:
            try:
                call_hook(plugin, "after_fork")
            except Exception:
                log.exception("after_fork() of %r failed", plugin)


def instances_of(cls: type[A]) -> list[A]:
    """Return the living applications of exactly this class, in no order."""
    return [one for one in _applications if type(one) is cls]


def _different_keys(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    missing = object()
    first, second = _spelt_alike(one), _spelt_alike(other)
    return sorted(
        key for key in {*first, *second} if first.get(key, missing) != second.get(key, missing)
    )


def _spelt_alike(values: Mapping[str, Any]) -> dict[str, Any]:
    whole, items = from_ini(values)
    single = {f"{key}:{item}": value for key in items for item, value in items[key].items()}
    return {**whole, **single}


_applications: weakref.WeakSet[Application] = weakref.WeakSet()


def _after_fork() -> None:
    for application in list(_applications):
        application._after_fork()


try:
    from os import register_at_fork
except ImportError:  # no fork on this system
    pass
else:
    register_at_fork(after_in_child=_after_fork)
