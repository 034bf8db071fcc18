"""A project with two databases on any kind of server, whose tests a pytest of its own runs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent

import sqlalchemy as sa

from qapla_db.backends import get_backend
from tests.support import plain_engine
from tests.testing.forked import environment, run_pytest

FreshURL = Callable[[str], sa.URL]

_SETTINGS = """
import os

def make_settings(settings, paths):
    for name in ("main", "audit"):
        settings[f"db:{name}:url"] = os.environ[f"PREFIX_{name}"]
        paths.set(f"migrations_{name}", f"migrations/{name}", "project_root")
"""

_MODELS = """
from sqlalchemy import String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from qapla_db import Database, DatabaseApplication, WithDatabase

class Model(DeclarativeBase):
    pass

class Ship(Model):
    __tablename__ = "ship"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(50))

class ShipApplication(DatabaseApplication):
    def append_app_plugins(self):
        databases = [Database("main", "migrations_main"), Database("audit", "migrations_audit")]
        self.add_database_app(databases)

application = ShipApplication()

@WithDatabase(application, "main")
def christen(name, main):
    main.add(Ship(name=name))
    main.commit()

def names(database="main"):
    with application.dbs[database].session() as session:
        return [ship.name for ship in session.query(Ship).order_by(Ship.id)]
"""

_ENV = """
from qapla_db.env import AlembicEnv
from ships import Model, application
AlembicEnv(application, Model, "{}").run()
"""

REVISION = """
import sqlalchemy as sa
from alembic import op

revision, down_revision = "0001", None

def upgrade():
    with open(__file__.rpartition("migrations")[0] + "migrated.log", "a") as log:
        log.write("{database}\\n")
    table = op.create_table(
        "ship",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(50), nullable=False),
    )
    op.bulk_insert(table, [{{"name": "Rotarran"}}, {{"name": "Bortas"}}])

def downgrade():
    op.drop_table("ship")
"""

HEAD = """
import pytest
from qapla_db.testing import BaseApplicationFixture, fixtures_for
from ships import Ship, ShipApplication, application, christen, names

SEED = ["Rotarran", "Bortas"]

class ShipFixture(BaseApplicationFixture):
    APP_CLASS = ShipApplication
"""


@dataclass
class Project:
    """A project in a directory; :meth:`run` runs its tests.

    :ivar urls: its test databases.
    :ivar environment: variables of its processes.
    """

    path: Path
    urls: Mapping[str, sa.URL]
    environment: dict[str, str] = field(default_factory=dict)

    def write(self, name: str, text: str) -> None:
        path = self.path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(dedent(text))

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start its tests in a process from nothing."""
        return subprocess.Popen(
            [sys.executable, "-m", "pytest", *_arguments(arguments)],
            cwd=self.path,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, tests: str = "", *arguments: str, expect: int = 0) -> str:
        """Run its tests and return what pytest printed.

        :param tests: the text of ``test_it.py``, behind the usual head; the last one if empty.
        :param expect: the exit code that it must have.
        """
        if tests:
            self.write("test_it.py", HEAD + dedent(tests))
        file = self.path / "output.txt"
        code = run_pytest(_arguments(arguments), self.path, self._environment, file)
        output = file.read_text()
        assert code == expect, output
        return output

    @property
    def _environment(self) -> dict[str, str]:
        return {**environment(), **self.environment}

    @property
    def migrated(self) -> list[str]:
        """The databases that were migrated, in the order of the runs."""
        log = self.path / "migrated.log"
        return log.read_text().split() if log.exists() else []

    def databases(self) -> list[str]:
        """The databases on the server, or the files, that belong to the test databases."""
        url = self.urls["main"]
        names = [get_backend_name(one) for one in self.urls.values()]
        if url.get_backend_name() == "sqlite":
            found = [path.name.partition(".sqlite3")[0] for path in self.path.glob("*.sqlite3")]
        else:
            found = databases_on(url)
        return sorted(one for one in found if one.startswith(tuple(names)))

    def drop_all(self) -> None:
        """Drop the databases and their templates."""
        url = self.urls["main"]
        backend = get_backend(url)
        assert backend is not None
        if not backend.is_server:
            return
        with backend.administration(backend.complete(url)) as connection:
            for name in self.databases():
                if "_template_" in name and backend.name == "postgresql":
                    connection.exec_driver_sql(f"ALTER DATABASE {name} IS_TEMPLATE false")
                connection.exec_driver_sql(f"DROP DATABASE IF EXISTS {name}")


def _arguments(more: Sequence[str]) -> list[str]:
    ours = ["-W", "error", "--strict-markers", "--strict-config", "-p", "no:cacheprovider", "-q"]
    # without the plugins that are installed by chance, which cost time
    ours += ["-p", "qapla_db.testing.plugin"] + ["-p", "xdist"] * ("-n" in more)
    return [*ours, *more]


def databases_on(server: sa.URL) -> list[str]:
    """Return the names of all databases on a server, of which the URL of one may be given."""
    database, query = {
        "postgresql": ("postgres", "SELECT datname FROM pg_database"),
        "mariadb": ("", "SELECT schema_name FROM information_schema.schemata"),
    }[server.get_backend_name()]
    engine = plain_engine(server.set(database=database), poolclass=sa.NullPool)
    with engine.connect() as connection:
        return list(connection.exec_driver_sql(query).scalars())


def get_backend_name(url: sa.URL) -> str:
    backend = get_backend(url)
    assert backend is not None
    return backend.name_of(url)


def make_project(path: Path, urls: Mapping[str, sa.URL]) -> Project:
    """Write the files of a project with these test databases."""
    project = Project(path, urls)
    project.write("settings/__init__.py", "")
    project.write("settings/default.py", _SETTINGS.replace("PREFIX", "SHIPS"))
    project.write("settings/tests.py", _SETTINGS.replace("PREFIX", "SHIPS_TEST"))
    project.write("ships.py", _MODELS)
    project.write("pytest.ini", "[pytest]\npythonpath = .\n")
    for name in urls:
        project.write(f"migrations/{name}/env.py", _ENV.format(name))
        project.write(f"migrations/{name}/versions/0001_ships.py", REVISION.format(database=name))
        text = urls[name].render_as_string(hide_password=False)
        project.environment[f"SHIPS_TEST_{name}"] = text
        project.environment[f"SHIPS_{name}"] = text.replace("fresh_test", "earnest")
    return project
