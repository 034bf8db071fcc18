"""A small project with migrations, as a user has one: application, settings, alembic.ini."""

from __future__ import annotations

import contextlib
import importlib
import io
import itertools
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from textwrap import dedent, indent
from typing import Any

import sqlalchemy as sa
from alembic.config import CommandLine, Config

from qapla_db import Database, DatabaseApplication
from qapla_db.backends import get_backend
from qapla_db.record import RECORD_TABLE
from tests.support import plain_engine

WAIT = 60.0
"""Seconds that a command may take."""

NO_MODELS = "Model = sa.MetaData()"

SEVERAL_BASES = """
from sqlalchemy.orm import DeclarativeBase, mapped_column

class Base(DeclarativeBase):
    pass

class One(Base):
    __tablename__ = "one"
    id = mapped_column(sa.Integer, primary_key=True)

more = sa.MetaData()
sa.Table("two", more, sa.Column("id", sa.Integer))
Model = [Base, more]
"""

_APPLICATION = """\
from qapla_db import Database, DatabaseApplication


class SmallApplication(DatabaseApplication):
    settings_package = {settings!r}

    def append_app_plugins(self):
        self.add_database_app([Database(name, "migrations_" + name) for name in {names!r}])


app = SmallApplication()
"""

_SETTINGS = """\
def make_settings(settings, paths):
{lines}
"""

_ENV = """\
import sqlalchemy as sa
from qapla_db.env import AlembicEnv
from {module} import app

{models}

AlembicEnv(app, Model, {name!r}{options}).run()
"""

_REVISION = '''\
"""{doc}"""
import sqlalchemy as sa
from alembic import op

revision = {id!r}
down_revision = {after!r}
branch_labels = depends_on = None


def upgrade():
{up}


def downgrade():
{down}
'''

_TEMPLATE = '''\
"""${message}"""
import sqlalchemy as sa
from alembic import op
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = depends_on = None


def upgrade():
    ${upgrades if upgrades else "pass"}


def downgrade():
    ${downgrades if downgrades else "pass"}
'''

_numbers = itertools.count(1)


class Project:
    """A directory with an application, its settings, its alembic.ini and its migrations.

    :param root: an existing directory.
    :param urls: database's name -> URL; of the endpoints other than tests.
    :param tests: the same for tests.
    """

    def __init__(
        self,
        root: Path,
        urls: Mapping[str, sa.URL | str],
        tests: Mapping[str, sa.URL | str] | None = None,
    ) -> None:
        number = next(_numbers)
        self.root = root
        self.names = list(urls)
        self._applications: list[DatabaseApplication] = []
        self.module = f"project_{number}"
        self.settings = f"project_settings_{number}"
        names = self.names
        text = _APPLICATION.format(settings=self.settings, names=names)
        (root / f"{self.module}.py").write_text(text)
        package = root / self.settings
        package.mkdir()
        (package / "__init__.py").write_text("")
        lines = [
            f"paths.set('migrations_{name}', 'migrations/{name}', 'project_root')" for name in names
        ]
        self._defaults = lines + _url_lines(urls)
        self._write_settings("default", self._defaults)
        self._write_settings("tests", _url_lines(tests or {}))
        self.write_ini()
        for name in names:
            (self.directory(name) / "versions").mkdir(parents=True)
            (self.directory(name) / "script.py.mako").write_text(_TEMPLATE)
            self.write_env(name)

    def _write_settings(self, name: str, lines: Iterable[str]) -> None:
        text = _SETTINGS.format(lines=indent("\n".join(lines) or "pass", "    "))
        (self.root / self.settings / f"{name}.py").write_text(text)

    def set(self, **values: Any) -> None:
        """Set more of the database ``main`` for all endpoints, as ``db:main:<key>``."""
        self._defaults += [f"settings['db:main:{key}'] = {values[key]!r}" for key in values]
        self._write_settings("default", self._defaults)

    def write_ini(self, **options: str) -> None:
        """Write alembic.ini: ``[alembic]`` is the first database."""
        lines = ["[DEFAULT]", "path_separator = os", "prepend_sys_path = ."]
        lines += [f"{key} = {value}" for key, value in options.items()]
        for name in self.names:
            section = "alembic" if name == self.names[0] else name
            lines += ["", f"[{section}]", f"script_location = migrations/{name}"]
        (self.root / "alembic.ini").write_text("\n".join(lines) + "\n")

    def directory(self, name: str) -> Path:
        return self.root / "migrations" / name

    def versions(self, name: str = "main") -> list[str]:
        """Return the names of the revision files."""
        return sorted(path.name for path in (self.directory(name) / "versions").glob("*.py"))

    def write_env(self, name: str, models: str = NO_MODELS, **options: Any) -> None:
        """Write the ``env.py`` of a database."""
        more = "".join(f", {key}={value!r}" for key, value in options.items())
        text = _ENV.format(
            module=self.module, models=dedent(models).strip(), name=name, options=more
        )
        (self.directory(name) / "env.py").write_text(text)

    def revision(
        self,
        id: str,
        up: str,
        down: str = "pass",
        *,
        after: str | None = None,
        name: str = "main",
        doc: str = "",
    ) -> str:
        """Write a revision and return its id."""
        text = _REVISION.format(id=id, after=after, up=_body(up), down=_body(down), doc=doc or id)
        (self.directory(name) / "versions" / f"{id}_.py").write_text(text)
        return id

    # --- in this process; the project must be on sys.path

    def application(self) -> DatabaseApplication:
        """Return a new application, not prepared: another instance than ``env.py`` imports."""
        found: DatabaseApplication = importlib.import_module(self.module).SmallApplication()
        self._applications.append(found)
        return found

    def close(self) -> None:
        """Close the applications."""
        imported = sys.modules.get(self.module)
        for application in [*self._applications, *([imported.app] if imported else [])]:
            application.close()

    def database(self, name: str = "main") -> Database:
        """Return a database of a new application that is prepared for commands."""
        return self.application().run_command().dbs[name]

    def run(self, *arguments: str) -> str:
        """Run an alembic command in this process; its output. Errors are raised."""
        line, stdout = CommandLine(), io.StringIO()
        options = line.parser.parse_args(["--raiseerr", *arguments])
        config = Config(
            self.root / "alembic.ini", ini_section=options.name, cmd_opts=options, stdout=stdout
        )
        with contextlib.chdir(self.root):
            line.run_cmd(config, options)
        return stdout.getvalue()

    # --- in processes of their own

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-W", "error", "-m", "alembic.config", *arguments]

    def alembic(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run the command alembic in the project's directory."""
        return subprocess.run(
            self.command(*arguments),
            cwd=self.root,
            env={**os.environ, **environ},
            capture_output=True,
            text=True,
            timeout=WAIT,
        )


class Expression:
    """An expression in the text of ``env.py``, as an option of AlembicEnv."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def rows(url: sa.URL, query: str) -> list[tuple[Any, ...]]:
    """Ask a database on a connection of its own, past everything of ours."""
    backend = get_backend(url)
    assert backend is not None
    engine = plain_engine(backend.complete(url), poolclass=sa.NullPool)
    with engine.begin() as connection:
        result = connection.execute(sa.text(query))
        return [tuple(row) for row in result] if result.returns_rows else []


def tables(url: sa.URL) -> list[str]:
    """Return the names of a database's tables, without the record."""
    backend = get_backend(url)
    assert backend is not None
    engine = plain_engine(backend.complete(url), poolclass=sa.NullPool)
    return sorted({*sa.inspect(engine).get_table_names()} - {RECORD_TABLE})


def _url_lines(urls: Mapping[str, sa.URL | str]) -> list[str]:
    return [
        f"settings['db:{name}:url'] = {sa.make_url(url).render_as_string(hide_password=False)!r}"
        for name, url in urls.items()
    ]


def _body(text: str) -> str:
    return indent(dedent(text).strip(), "    ")
