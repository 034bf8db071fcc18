"""Which application is tested."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qapla_db.application import DatabaseApplication, instances_of
from qapla_db.database import Database
from qapla_db.errors import AlreadyPrepared, ConfigurationError, Misuse, UnknownDatabase
from qapla_db.registry import Databases

if TYPE_CHECKING:
    from qapla_db.testing.migrations.rehearsal import Rehearse

__all__ = [
    "application_of",
    "check_class",
    "database_of",
    "is_only",
    "rehearsing",
    "web_client",
]


def check_class(
    app_class: object, asked_by: str, argument: str = "app_class"
) -> type[DatabaseApplication]:
    """Return a class of applications.

    :param asked_by: what was given the class, for messages.
    :param argument: how it is called there.
    :raises Misuse: it is something else.
    """
    if not (isinstance(app_class, type) and issubclass(app_class, DatabaseApplication)):
        raise Misuse(
            f"{asked_by} needs {argument}, a subclass of DatabaseApplication such as "
            f"RotarranApplication, and not {app_class!r}"
        )
    return app_class


def application_of(
    app_class: object, asked_by: str, argument: str = "app_class"
) -> DatabaseApplication:
    """Return the one application of a class that is to be tested.

    It is the one that the imported modules made; where there is none, a new one.

    :param asked_by: what was given the class, for messages.
    :param argument: how it is called there.
    :raises Misuse: it is no class of applications, or there are several.
    :raises AlreadyPrepared: one is prepared for something else than tests.
    """
    app_class = check_class(app_class, asked_by, argument)
    living = [one for one in instances_of(app_class) if one.phase != "closed"]
    for one in living:
        if one.endpoint not in (None, "tests"):
            raise AlreadyPrepared(
                f"this process has {one!r}, so tasks and views could reach what is no test "
                "database; import nothing in the tests that prepares it (such as a module "
                "that calls run_wsgi())"
            )
    if len(living) > 1:
        raise Misuse(
            f"there are {len(living)} objects of {app_class.__name__} and only one can be tested "
            f"by {asked_by}; say which in make_application"
        )
    return living[0] if living else app_class()


def database_of(dbs: Databases, key: str, asked_by: str) -> Database:
    """Return the database of ``dbsession``.

    :param asked_by: what names it, for messages.
    :raises Misuse: there is none of that name.
    """
    try:
        return dbs[key]
    except UnknownDatabase as error:
        names = " and ".join(map(repr, dbs)) or "none"
        raise Misuse(
            f"{asked_by} names the database {key!r}, and the application has no such one; "
            f"it has {names}"
        ) from error


def rehearsing(application: DatabaseApplication) -> Rehearse:
    """Return what rehearses upgrades of an application."""
    # few tests rehearse, and none waits for what only these need
    from qapla_db.testing.migrations.rehearsal import rehearse_with

    return rehearse_with(application)


def web_client(application: DatabaseApplication) -> Any:
    """Return a ``webtest.TestApp`` of an application, with cookies of its own.

    :raises ConfigurationError: WebTest is not installed.
    """
    try:
        from webtest import TestApp
    except ImportError as error:
        raise ConfigurationError(
            "the fixture testapp needs WebTest; install it with: pip install WebTest"
        ) from error
    return TestApp(application.make_wsgi_app())


def is_only(application: DatabaseApplication) -> bool:
    """Tell whether no test can use another application, too."""
    others = [one for one in instances_of(DatabaseApplication) if one is not application]
    return not others and not _leaves(DatabaseApplication) - {type(application)}


def _leaves(cls: type[DatabaseApplication]) -> set[type[DatabaseApplication]]:
    below = cls.__subclasses__()
    return {leaf for one in below for leaf in _leaves(one)} if below else {cls}
