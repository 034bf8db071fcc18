"""The databases of an application, by name, and what an application must be for us."""

from __future__ import annotations

import keyword
from collections.abc import Iterator, Mapping

from qapla_db.database import Database, Host
from qapla_db.errors import InvalidArgument, UnknownDatabase

__all__ = ["Databases", "Host"]


class Databases(Mapping[str, Database]):
    """The registered databases: a mapping of name to :class:`Database`.

    :raises UnknownDatabase: (a KeyError) for a name that is not registered;
        its message lists the names that are.
    """

    def __init__(self) -> None:
        self._by_name: dict[str, Database] = {}

    def __getitem__(self, name: str) -> Database:
        try:
            return self._by_name[name]
        except (KeyError, TypeError):
            raise UnknownDatabase(name, self._by_name) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __repr__(self) -> str:
        return f"<Databases: {', '.join(self._by_name) or 'none'}>"

    def add(self, database: Database) -> None:
        """Register a database.

        :raises InvalidArgument: the name is taken, or cannot be the name of an
            attribute of the request and of a task's argument.
        """
        name = database.name
        is_name = isinstance(name, str) and name.isidentifier() and not keyword.iskeyword(name)
        if not is_name or name.startswith("_"):
            raise InvalidArgument(
                f"{name!r} cannot be a database's name: it becomes an attribute of the request "
                "and an argument of tasks; use a plain Python name such as 'main'"
            )
        if name in self._by_name:
            raise InvalidArgument(
                f"two databases are named {name!r}; register each under a name of its own"
            )
        self._by_name[name] = database

    def remove(self, database: Database) -> None:
        """Forget a database (its preparation failed)."""
        self._by_name.pop(database.name, None)
