"""From the value of a setting to the URL of a database."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from qapla_db.backends import Backend, backend_names, get_backend
from qapla_db.backends.embedded_tests import HOST, is_of_tests
from qapla_db.errors import InvalidArgument, SettingInvalid

__all__ = ["complete_url"]

_URL_PARTS = {
    "ENGINE": "drivername",
    "USER": "username",
    "PASSWORD": "password",
    "HOST": "host",
    "PORT": "port",
    "DB_NAME": "database",
}
_URL_FORMS = (
    "write it as dialect://user:password@host:port/name, with special characters of user and "
    "password percent-encoded, as a sqlalchemy.URL, or as a mapping with ENGINE, HOST, USER, "
    "PASSWORD, PORT, DB_NAME"
)


def complete_url(
    value: object, key: str, name: str, *, endpoint: str | None = None
) -> tuple[sa.URL, Backend]:
    """Return the URL that a setting means, with a driver, and its backend.

    :param value: text, a ``sqlalchemy.URL``, or a mapping with ``ENGINE`` and the like.
    :param key: the setting, for messages.
    :param name: the database, for messages.
    :param endpoint: what the application is prepared for, if there is one.
    :raises SettingInvalid: it is no URL, or of no database that we know, or one for tests
        alone at another endpoint; no part of the message or of a chained error shows a
        password.
    """
    url = _parse_url(value, key, name)
    _check_shape(url, key, name)
    if isinstance(value, str):
        _check_text(value, url, key, name)
    backend = get_backend(url)
    if url.drivername == "postgres":
        raise SettingInvalid(
            f"{key!r} of the database {name!r} names the unknown kind of database 'postgres'; "
            "write postgresql://",
            key=key,
        )
    if endpoint not in (None, "tests") and is_of_tests(url):
        raise SettingInvalid(
            f"{key!r} of the database {name!r} names the server of the tests "
            f"(embedded://{HOST}), whose data may be lost at any time, and the application is "
            f"prepared for {endpoint!r}; name it in settings/tests.py alone, and here a server "
            "that keeps its data, such as embedded:///DIRECTORY?database=NAME",
            key=key,
        )
    if backend is None:
        raise SettingInvalid(
            f"{key!r} of the database {name!r} names the unknown kind of database "
            f"{url.drivername!r}; known: {', '.join(backend_names())}",
            key=key,
        )
    try:
        url = backend.complete(url)
        backend.check_name(url)
    except InvalidArgument as error:
        raise SettingInvalid(f"{key!r} of the database {name!r}: {error}", key=key) from None
    # the dialects of drivers that we know are there: importing one takes 50 ms
    if url.drivername.partition("+")[2] not in {backend.default_driver, *backend.driver_modules}:
        _check_dialect(url, key, name)
    return url, backend


def _check_shape(url: sa.URL, key: str, name: str) -> None:
    """Refuse a URL of which a part of the password has become another part."""
    problem = ""
    if not re.fullmatch(r"[\w.+-]+", url.drivername):
        problem = "has no name of a dialect where one belongs"
    elif "@" in (url.host or "") or (url.password and "@" in (url.database or "")):
        problem = "has an @ of its own in the user, the password or the name, where it means %40"
    if problem:
        raise SettingInvalid(f"{key!r} of the database {name!r} {problem}; {_URL_FORMS}", key=key)


def _check_text(text: str, url: sa.URL, key: str, name: str) -> None:
    """Refuse a text in which a part of a password stands behind what it should stand before."""
    behind = text.partition("?")[2] if url.host or "@" in text else ""
    lost = not url.host and url.get_backend_name() in ("postgresql", "mysql", "mariadb")
    if "@" in behind or (lost and re.search(r"@|pass\w*\s*=", url.database or "")):
        raise SettingInvalid(
            f"{key!r} of the database {name!r} has an @ or a password where none belongs; "
            f"{_URL_FORMS}",
            key=key,
        )


def _check_dialect(url: sa.URL, key: str, name: str) -> None:
    advice = "leave the part behind + away to get ours"
    try:
        dialect = url.get_dialect()
    except sa.exc.NoSuchModuleError:
        raise SettingInvalid(
            f"{key!r} of the database {name!r} names the unknown driver {url.drivername!r}; "
            f"{advice}",
            key=key,
        ) from None
    if dialect.is_async:
        raise SettingInvalid(
            f"{key!r} of the database {name!r} names the asyncio driver {url.drivername!r}, "
            f"and sessions here are not asynchronous; {advice}",
            key=key,
        )


def _parse_url(value: object, key: str, name: str) -> sa.URL:
    if isinstance(value, sa.URL):
        return value
    if isinstance(value, Mapping):
        return _url_of_mapping(value, key, name)
    problem = f"is a {type(value).__name__}"
    if isinstance(value, str):
        try:
            return sa.make_url(value)
        except (sa.exc.ArgumentError, ValueError):
            problem = "cannot be read as a URL"
    # outside the handler: the parser's own error may show the URL
    raise SettingInvalid(
        f"{key!r} of the database {name!r} {problem}; {_URL_FORMS}",
        key=key,
    )


def _url_of_mapping(value: Mapping[Any, Any], key: str, name: str) -> sa.URL:
    unknown = sorted(str(part) for part in value if part not in _URL_PARTS)
    if unknown or not value.get("ENGINE"):
        problem = f"has the unknown keys {', '.join(unknown)}" if unknown else "has no ENGINE"
        raise SettingInvalid(
            f"{key!r} of the database {name!r} {problem}; its keys are {', '.join(_URL_PARTS)}",
            key=key,
        )
    parts = {argument: value[part] for part, argument in _URL_PARTS.items() if part in value}
    if parts.get("port") is not None:
        if not str(parts["port"]).isdecimal():
            raise SettingInvalid(
                f"PORT in {key!r} of the database {name!r} is not a whole number", key=key
            )
        parts["port"] = int(parts["port"])
    try:
        return sa.URL.create(**parts)
    except TypeError:
        pass
    raise SettingInvalid(
        f"{key!r} of the database {name!r} has a part that is not text; "
        f"{', '.join(_URL_PARTS)} are text, PORT is a number",
        key=key,
    )
