"""What an application calls on the objects that are registered with it."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Protocol

__all__ = ["HOOKS", "Plugin", "call_hook", "close_all"]

log = logging.getLogger("qapla_db")

HOOKS = ("prepare_app", "after_fork", "close")


class Plugin(Protocol):
    """What can be registered with :meth:`Application.add_plugin`.

    Each hook may be left out: ``prepare_app(app)`` is called while the
    application is prepared, ``after_fork()`` in a forked child, ``close()``
    when the application is closed.
    """


def call_hook(plugin: Plugin, hook: str, *args: object) -> None:
    """Call a hook of a plugin, if it has it."""
    function = getattr(plugin, hook, None)
    if function is not None:
        function(*args)


def close_all(plugins: Iterable[Plugin]) -> BaseException | None:
    """Close plugins, the last one first, even if one fails.

    :returns: the first error; each is in the log.
    """
    first: BaseException | None = None
    for plugin in reversed(list(plugins)):
        try:
            call_hook(plugin, "close")
        except BaseException as error:
            log.exception("%r could not be closed", plugin)
            first = first or error
    return first
