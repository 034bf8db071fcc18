"""What a migrated test database depends on: a copy of it is used again as long as that is the same.

It is what the migrations directory holds, the modules of the project that the revisions import
and the data beside these, and the files that they open; versions of the server and of the
libraries; how the database is called and what is set about it. What a revision takes from
elsewhere, such as the clock or the environment, cannot be seen.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import sqlalchemy as sa

import qapla_db
from qapla_db.backends.address import is_secret
from qapla_db.database import Database
from qapla_db.testing.content_files import (
    LEFT_OUT,
    FilesRead,
    are_unchanged,
    files_read,
    recorded,
    root_of,
)
from qapla_db.testing.content_modules import modules_imported

__all__ = ["FilesRead", "are_unchanged", "content_of", "files_read", "is_current"]

_read: dict[str, Callable[[], bool]] = {}
"""Of each digest: is what went into it the same now?"""


def content_of(databases: Iterable[Database], *server: str) -> str:
    """Return a digest of all that decides what migrations make of an empty database.

    :param databases: names of one database, in the order in which they are migrated.
    :param server: what tells one server's version from another's.
    """
    databases = list(databases)
    found = hashlib.sha256()
    files: dict[str, bytes] = {}
    directories: dict[Path, list[Path]] = {}

    def add(*parts: str | bytes) -> None:
        for part in parts:
            data = part.encode() if isinstance(part, str) else part
            found.update(b"%d:%s," % (len(data), data))

    add(qapla_db.__version__, sa.__version__, version("alembic"), *server)
    root = root_of(databases)
    for database in databases:
        settings = database.settings
        add(settings.name, settings.environment, settings.url.drivername)
        # the name may stand in the query, and is another one for each worker and run
        query = settings.backend.renamed(settings.url, "").query
        add(_stable(settings.options), _stable(settings.session), _stable(query))
        directory = Path(database.migrations_path).absolute()
        directories[directory] = _files(directory)
        texts = {path: path.read_bytes() for path in directories[directory]}
        for path, text in texts.items():
            add(str(path.relative_to(directory)), text)
        # env.py itself imports the application, which changes all the time and of which
        # migrations use nothing but the address of the database
        revisions = [
            text
            for path, text in texts.items()
            if path.suffix == ".py" and path != directory / "env.py"
        ]
        modules = modules_imported(revisions)
        for name, text in sorted((recorded(path, root), text) for path, text in modules.items()):
            add(name, text)
        files |= {str(path): text for path, text in texts.items()} | modules
    digest = found.hexdigest()
    _read[digest] = lambda: _are_same(directories, files)
    return digest


def is_current(content: str) -> bool:
    """Tell whether what went into a digest of this process is still the same.

    The digest itself may be another one after migrations, which may have made more modules
    known to Python.
    """
    return content in _read and _read[content]()


def _are_same(directories: Mapping[Path, list[Path]], files: Mapping[str, bytes]) -> bool:
    try:
        return all(_files(path) == names for path, names in directories.items()) and all(
            Path(path).read_bytes() == text for path, text in files.items()
        )
    except OSError:
        return False


def _files(directory: Path) -> list[Path]:
    return sorted(
        Path(where, name)
        for where, _, names in os.walk(directory, followlinks=True)
        if not where.endswith("__pycache__")
        for name in names
        if not name.endswith(LEFT_OUT)
    )


def _stable(value: Any) -> str:
    """Return a text of a setting's value that is the same in each process, and no secret."""
    if value is None or isinstance(value, (str, bytes, int, float)):
        return repr(value)
    if isinstance(value, Mapping):
        items = {str(key): item for key, item in value.items() if not is_secret(str(key))}
        return f"{{{', '.join(f'{key!r}: {_stable(items[key])}' for key in sorted(items))}}}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_stable, value))}]"
    if isinstance(value, (set, frozenset)):
        return f"{{{', '.join(sorted(map(_stable, value)))}}}"
    if isinstance(value, ModuleType):
        return value.__name__
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{getattr(named, '__module__', '')}.{named.__qualname__}"
