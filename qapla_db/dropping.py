"""Which databases may be dropped: none that could hold somebody's data."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from qapla_db.errors import ConfigurationError, Refused, SettingMissing
from qapla_db.record import refuse_recorded
from qapla_db.record_table import PRODUCTION, plain
from qapla_db.settings import DatabaseSettings, database_settings

__all__ = ["check_droppable", "refuse_unless_test_database"]

_NAMES_A_DATABASE = frozenset({"dbname", "database", "db"})
_ELSEWHERE = _NAMES_A_DATABASE | {
    *("host", "hostaddr", "port", "unix_socket"),
    *("service", "servicefile", "read_default_file", "read_default_group"),
}
"""Arguments of a driver's ``connect()`` that win over the URL, or add to it."""


def check_droppable(settings: DatabaseSettings, host: Any, *, confirm: str | None = None) -> None:
    """Raise where a database could be somebody's data.

    :param settings: of the database, prepared.
    :param host: the application, whose other endpoints may use the same.
    :param confirm: the database's name, from a caller who means it.
    :raises Refused: it is of the environment ``production`` under any of its names or by
        its own record, is not confirmed and not a test database of an application that is
        prepared for tests, or ``connect_args`` lead elsewhere than its URL.
    :raises RecordMismatch: it is recorded under another name or environment.
    """
    _refuse_production(settings, host)
    _refuse_unless_meant(settings, host, confirm)
    _refuse_elsewhere(settings)
    shared = [one for one in _registered(host) if settings.is_same_database(one)]
    of_tests = getattr(host, "endpoint", None) == "tests"
    refuse_recorded(settings, [settings, *shared], of_tests=of_tests)


def _registered(host: Any) -> list[DatabaseSettings]:
    return [one.settings for one in host.dbs.values()]


def _refuse_production(settings: DatabaseSettings, host: Any) -> None:
    name, address = settings.name, settings.address
    if plain(settings.environment) == PRODUCTION:
        raise Refused(
            f"the database {name!r} at {address} is of the environment 'production' "
            f"('db:{name}:environment') and is never dropped from here"
        )
    if settings.backend.is_volatile(settings.url):
        return
    for other in _registered(host):
        if plain(other.environment) == PRODUCTION and _may_be_one(settings, other):
            raise Refused(
                f"the database {name!r} at {address} is also {other.name!r}, or cannot be told "
                f"from it, which is of the environment 'production' "
                f"('db:{other.name}:environment'), and is never dropped from here"
            )


def _refuse_elsewhere(settings: DatabaseSettings) -> None:
    found = sorted(_ELSEWHERE & set(settings.connect_args))
    if found:
        name = settings.name
        raise Refused(
            f"the database {name!r} at {settings.address} is not dropped: {', '.join(found)} in "
            f"'connect_args' of 'db:{name}:options' may lead to another one than its URL. Name "
            f"server and database in {settings.source!r} alone"
        )


def _refuse_unless_meant(settings: DatabaseSettings, host: Any, confirm: str | None) -> None:
    name, address = settings.name, settings.address
    if confirm == name:
        return
    if confirm is not None:
        raise Refused(
            f"the database {name!r} was not dropped: the confirmation {confirm!r} is not its name"
        )
    endpoint = getattr(host, "endpoint", None)
    if endpoint != "tests":
        raise Refused(
            f"the database {name!r} at {address} is not dropped: the application is prepared for "
            f"{endpoint!r}, not for tests. Who means it passes confirm={name!r}"
        )
    refuse_unless_test_database(settings, list(_others(name, host)))


def _others(name: str, host: Any) -> Iterator[tuple[str, DatabaseSettings]]:
    """Yield (endpoint, settings) of every database that is used in earnest."""
    if not hasattr(host, "settings_for"):
        raise Refused(
            f"the database {name!r} is not dropped: its host has no settings_for(), so what other "
            f"endpoints use cannot be told. Who means it passes confirm={name!r}"
        )
    for endpoint in ("wsgi", "command", "celery"):
        loaded = host.settings_for(endpoint)
        for other in host.dbs:
            try:
                yield endpoint, database_settings(loaded.settings, other, endpoint=endpoint)
            except SettingMissing:
                continue  # an endpoint without this database cannot lose it
            except ConfigurationError as error:
                raise Refused(
                    f"the database {name!r} is not dropped: what {endpoint!r} uses cannot be "
                    f"told, so it might be the same ({error})"
                ) from error


def refuse_unless_test_database(
    tests: DatabaseSettings, others: Iterable[tuple[str, DatabaseSettings]]
) -> None:
    """Refuse to touch a database that may not be a test database.

    :param tests: what the tests are set to use.
    :param others: pairs of an endpoint and a database that it would use.
    :raises Refused: the name has no part ``test`` between ``_``, ``-`` or its
        ends, or another endpoint would use the same server and database, or one
        that cannot be told from it.
    """
    if tests.backend.is_volatile(tests.url):
        return
    name = tests.backend.name_of(tests.url)
    advice = f"Give {tests.source!r} a database of its own in settings/tests.py"
    for endpoint, other in others:
        if _may_be_one(tests, other):
            raise Refused(
                f"the tests of the database {tests.name!r} would drop {tests.address}, which is "
                f"the database that {endpoint!r} uses as {other.name!r} ({other.source!r}), or "
                f"cannot be told from it. {advice}, named e.g. {name}_test"
            )
    if _NAMES_A_DATABASE & set(tests.connect_args):
        raise Refused(
            f"the tests of the database {tests.name!r} would drop {tests.address}, but "
            f"'connect_args' in 'db:{tests.name}:options' names a database too; name it in "
            f"{tests.source!r} alone"
        )
    if "test" not in re.split(r"[_-]", name.lower()):
        raise Refused(
            f"the tests of the database {tests.name!r} would drop {tests.address}, whose name "
            f"{name!r} has no part 'test' between '_', '-' or its ends. {advice}, "
            f"named e.g. {name}_test"
        )


def _may_be_one(one: DatabaseSettings, other: DatabaseSettings) -> bool:
    """Tell whether two databases are one, or cannot be proved to be two.

    Names differ when they do so without their case too: some servers ignore it.
    """
    (server, name), (other_server, other_name) = one.identity, other.identity
    if server == other_server and name.casefold() == other_name.casefold():
        return True
    if _final_name(one) != _final_name(other):
        return False
    both = (one, other)
    if not all(found.backend.is_plain(found.url, found.connect_args) for found in both):
        return True
    if not all(where.startswith(("/", "localhost:")) for where in (server, other_server)):
        return False
    # a server of this machine may listen on a socket and, under any number, on a port
    are_sockets = server.startswith("/") and other_server.startswith("/")
    return not (are_sockets or all(found.backend.is_by_tcp(found.url) for found in both))


def _final_name(settings: DatabaseSettings) -> str:
    args = settings.connect_args
    given = args.get("dbname") or args.get("database") or args.get("db")
    return str(given or settings.backend.name_of(settings.url)).casefold()
