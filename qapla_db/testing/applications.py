"""Which application is tested."""

from __future__ import annotations

from typing import Any

from qapla_db.application import DatabaseApplication, instances_of
from qapla_db.errors import AlreadyPrepared, ConfigurationError, Misuse

__all__ = ["application_of", "is_only", "web_client"]


def application_of(app_class: object, asked_by: str) -> DatabaseApplication:
    """Return the one application of a class that is to be tested.

    It is the one that the imported modules made; where there is none, a new one.

    :param asked_by: what was given the class, for messages.
    :raises Misuse: it is no class of applications, or there are several.
    :raises AlreadyPrepared: one is prepared for something else than tests.
    """
    if not (isinstance(app_class, type) and issubclass(app_class, DatabaseApplication)):
        raise Misuse(
            f"{asked_by} needs APP_CLASS, a subclass of DatabaseApplication such as "
            f"RotarranApplication, and not {app_class!r}"
        )
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
