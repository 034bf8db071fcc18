"""Databases for a host, ours or one of another make."""

from __future__ import annotations

from collections.abc import Iterable

from qapla_db.application.base import Application
from qapla_db.application.plugins import close_all
from qapla_db.database import Database
from qapla_db.errors import Misuse, NotPrepared
from qapla_db.registry import Databases

__all__ = ["DatabaseApplication", "DatabaseMixin"]


class DatabaseMixin:
    """Databases for a host that has ``settings`` and ``paths`` (and ``config`` for the web).

    A host of another make calls :meth:`add_database_app` when its settings are
    there, and :meth:`close_databases` at its end.
    """

    @property
    def dbs(self) -> Databases:
        """The registered databases, by name."""
        found: Databases | None = self.__dict__.get("_dbs")
        if found is None:
            getattr(self, "settings", None)  # ours says so itself before preparation
            raise NotPrepared(
                f"{type(self).__name__} has no databases; prepare it, and register them in its "
                "append_app_plugins() with add_database_app([Database(...)])"
            )
        return found

    def add_database_app(self, databases: Iterable[Database]) -> None:
        """Register databases; call it in ``append_app_plugins()``.

        :param databases: e.g. ``[Database("main", "migrations_main")]``.
        :raises InvalidArgument: a name is taken or is not a Python name.
        """
        registered: Databases = self.__dict__.setdefault("_dbs", Databases())
        given: list[object] = list(databases) if isinstance(databases, Iterable) else [None]
        for database in given:
            if not isinstance(database, Database):
                raise Misuse(
                    f"add_database_app() takes a list of Database, not {database!r}; "
                    "write add_database_app([Database('main')])"
                )
            registered.add(database)
            try:
                self._prepare_database(database)
            except BaseException:
                registered.remove(database)
                raise

    def _prepare_database(self, database: Database) -> None:
        database.prepare_app(self)  # type: ignore[arg-type]

    def add_database_web(self) -> None:
        """Give every registered database to the request; call it in ``append_web_plugins()``."""
        from qapla_db.web.pyramid import add_databases

        config = self.config  # type: ignore[attr-defined]
        add_databases(config, self.dbs)

    def close_databases(self) -> None:
        """Close every registered database, the last one first, even if one fails.

        For a host of another make, whose own end calls it; :meth:`Application.close`
        closes the databases among the other plugins. Afterwards databases can be
        registered anew. Without any it does nothing.

        :raises BaseException: the first error of a database, after all are closed.
        """
        error = close_all(self.__dict__.pop("_dbs", Databases()).values())
        if error is not None:
            raise error


class DatabaseApplication(DatabaseMixin, Application):
    """An application with databases: the base class of most applications."""

    def _prepare_database(self, database: Database) -> None:
        self.add_plugin(database)

    def _close_plugins(self) -> BaseException | None:
        self.__dict__.pop("_dbs", None)
        return super()._close_plugins()
