"""What an application is prepared for when its migrations run: commands or tests."""

from __future__ import annotations

from alembic import context
from alembic.config import Config

from qapla_db.errors import AlreadyPrepared, SettingInvalid
from qapla_db.registry import Host

__all__ = ["asked_for_tests", "prepare"]

_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})


def asked_for_tests(config: Config) -> bool | None:
    """Return what ``-x is_test=...`` or the ini file's ``is_test`` says; None when nothing does.

    :raises SettingInvalid: it is neither true nor false.
    """
    arguments = context.get_x_argument(as_dictionary=True)
    source, value = "-x is_test", arguments.get("is_test")
    if value is None:
        source = f"'is_test' in the section [{config.config_ini_section}]"
        value = config.get_main_option("is_test")
    if value is None:
        return None
    word = str(value).strip().lower()
    if word not in _TRUE | _FALSE:
        raise SettingInvalid(f"{source} is {value!r}; write true or false", key="is_test")
    return word in _TRUE


def prepare(host: Host, is_test: bool | None) -> None:
    """Prepare an application for ``tests`` or ``command``, unless it is prepared.

    :raises AlreadyPrepared: it is prepared for something else than was asked for.
    """
    # a host of another make may prepare itself, and tell nobody what for
    endpoint = getattr(host, "endpoint", None)
    if endpoint is None and hasattr(host, "prepare"):
        host.prepare("tests" if is_test else "command")
    elif is_test is not None and is_test != (endpoint == "tests"):
        raise AlreadyPrepared(
            f"is_test={str(is_test).lower()} was asked for, but {type(host).__name__} is prepared "
            f"for {endpoint!r} in this process; leave is_test out to migrate the databases "
            "that it is prepared for, or run alembic in a process of its own"
        )
