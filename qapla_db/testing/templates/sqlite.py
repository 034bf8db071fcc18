"""Templates of SQLite: files beside the database, in a hidden directory."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import IO

from qapla_db.database import Database
from qapla_db.testing.templates.base import BUILD_WAIT, Templates

if sys.platform != "win32":
    import fcntl

__all__ = ["SQLiteTemplates"]


class SQLiteTemplates(Templates):
    """Files with a description beside each, which is written last."""

    def __init__(self, database: Database, base: str) -> None:
        super().__init__(database, base)
        self._stack = ExitStack()
        ending = self._file.name.removeprefix(self.name)
        self._directory = self._file.parent / f".{base}{ending}_template"

    @property
    def _file(self) -> Path:
        # with the engine the URL is complete; a link leads to where the file is
        url = self.settings.backend.server_url(self.settings.url)
        database = (url.database or "").removeprefix("file:").partition("?")[0]
        return Path(database).resolve()

    def version(self) -> str:
        return sqlite3.sqlite_version

    def claim(self, name: str) -> bool:
        file = self._locked(f"{name}.lock", wait=0)
        if file is not None:
            self._stack.callback(file.close)
        return file is not None

    @contextmanager
    def building(self) -> Iterator[None]:
        file = self._locked("build.lock", wait=BUILD_WAIT)
        if file is None:
            raise self.still_building()
        with file:
            yield

    def _locked(self, name: str, wait: float) -> IO[str] | None:
        """Open a file that only one process has open; None when another one has it."""
        if not self._directory.is_dir():
            self._directory.mkdir(parents=True, exist_ok=True)
            (self._directory / ".gitignore").write_text("*\n")
        file = (self._directory / name).open("a")
        if sys.platform == "win32":
            return file
        deadline = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return file
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    file.close()
                    return None
            time.sleep(0.01)

    def find(self, digest: str) -> Mapping[str, str] | None:
        try:
            found = json.loads(self._description(digest).read_text())
        except (OSError, ValueError):
            return None
        files: Mapping[str, str] = found["files"]
        return files if found["of_content"] == digest else None

    def keep(self, digest: str, files: Mapping[str, str]) -> bool:
        for path in self._directory.iterdir():
            if path.suffix in (".json", ".sqlite3", ".new"):
                path.unlink(missing_ok=True)
        copy = self._template(digest)
        unfinished = copy.with_suffix(".new")
        with (
            closing(sqlite3.connect(self._file)) as source,
            closing(sqlite3.connect(unfinished)) as target,
        ):
            source.backup(target)
        unfinished.replace(copy)
        said = json.dumps({"of_content": digest, "files": dict(files)})
        unfinished.write_text(said)
        unfinished.replace(self._description(digest))
        return True

    def clone(self, digest: str) -> bool:
        self.database.dispose()
        template = self._template(digest)
        if self.find(digest) is None or not template.is_file():
            return False
        settings = self.settings
        settings.backend.drop(settings.url, None, settings.access)
        with suppress(FileNotFoundError):
            shutil.copyfile(template, self._file)
        return self._file.is_file()

    def _template(self, digest: str) -> Path:
        return self._directory / f"{digest[:12]}.sqlite3"

    def _description(self, digest: str) -> Path:
        return self._template(digest).with_suffix(".json")

    def close(self) -> None:
        if self._process == os.getpid():
            self._stack.close()
