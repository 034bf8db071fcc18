"""What every kind of server does with templates."""

from __future__ import annotations

import hashlib
import os
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from qapla_db.database import Database
from qapla_db.errors import ServerError
from qapla_db.settings import DatabaseSettings

__all__ = ["BUILD_WAIT", "NoTemplates", "Templates", "template_ending"]

BUILD_WAIT = 600.0
"""Seconds to wait for another process that migrates the same database."""

_DIGITS = 12


def template_ending(digest: str) -> str:
    """Return what stands behind a database's name in that of a template."""
    return f"_template_{digest[:_DIGITS]}"


class Templates(ABC):
    """The server of a test database, and the copies of the migrated database that it keeps.

    A copy is known by the digest of what it was made from, and there is at most one
    for a database. It is open from its making until :meth:`close`.

    :param database: the test database.
    :param base: its name in the settings, which workers and runs at one time have in common.
    """

    def __init__(self, database: Database, base: str) -> None:
        self.database = database
        self.base = base
        self._process = os.getpid()
        _open.add(self)

    @property
    def settings(self) -> DatabaseSettings:
        """Those of the database, as they are now."""
        return self.database.settings

    @property
    def name(self) -> str:
        """Name of the database on its server."""
        return self.settings.backend.name_of(self.settings.url)

    def template(self, digest: str) -> str:
        """Return the name of a template, another one for each database."""
        # of two long names that are cut, the beginnings may be one
        own = hashlib.sha256(f"{self.base} {digest}".encode()).hexdigest()
        return self.settings.backend.fitting_name(self.base, template_ending(own))

    @property
    def template_prefix(self) -> str:
        """What the names of all templates of this database begin with."""
        return self.template("")[: -len(template_ending("0" * _DIGITS))]

    @abstractmethod
    def version(self) -> str:
        """Return what tells the server's version from another's."""

    @abstractmethod
    def claim(self, name: str) -> bool:
        """Reserve a database for this run until :meth:`close`; False when another run has it."""

    @contextmanager
    @abstractmethod
    def building(self) -> Iterator[None]:
        """Keep other processes from making templates of this database meanwhile."""
        yield

    def still_building(self) -> ServerError:
        """Make the error of who has waited in vain for :meth:`building`."""
        return ServerError(
            f"another process makes the test database {self.database.name!r} at "
            f"{self.settings.address} and has not ended within {BUILD_WAIT:g} s; end it, and run "
            "the tests again"
        )

    @abstractmethod
    def find(self, digest: str) -> Mapping[str, str] | None:
        """Return the files that went into a template, with their digests; None: there is none."""

    @abstractmethod
    def keep(self, digest: str, files: Mapping[str, str]) -> bool:
        """Make the database, which nobody uses now, a template, and drop older ones.

        :returns: False when a copy would not be the same.
        """

    @abstractmethod
    def clone(self, digest: str) -> bool:
        """Make the database anew, as a copy of a template; False when it is gone."""

    def prepare_restore(self) -> None:  # noqa: B027
        """Prepare for :meth:`restore`; nobody has used the database since :meth:`clone`."""

    def restore(self) -> bool:
        """Make the rows what they were; False when that cannot be, and a copy is needed."""
        return False

    def make_droppable(self) -> None:  # noqa: B027
        """End what outlives connections and lets nobody drop the database; that is next."""

    def reconnect(self) -> None:  # noqa: B027
        """Connect again, and reserve the database again, after the connection was ended.

        :raises ServerError: another run has it now.
        """

    def close(self) -> None:  # noqa: B027
        """Release what was reserved."""

    def forget(self) -> None:  # noqa: B027
        """In a forked child: leave the parent's connection alone."""


class NoTemplates(Templates):
    """Of a kind of server that nobody knows how to copy databases on."""

    def version(self) -> str:
        return ""

    def claim(self, name: str) -> bool:
        return True

    @contextmanager
    def building(self) -> Iterator[None]:
        yield

    def find(self, digest: str) -> Mapping[str, str] | None:
        return None

    def keep(self, digest: str, files: Mapping[str, str]) -> bool:
        return False

    def clone(self, digest: str) -> bool:
        return False


_open: weakref.WeakSet[Templates] = weakref.WeakSet()


def _after_fork() -> None:
    for one in list(_open):
        one.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
