"""From nothing to migrations: init, revision, upgrade; and initdb, in one step."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Cli, Files

WAIT = 60

APPLICATION = """
    from qapla_db import Database, DatabaseApplication

    class Shop(DatabaseApplication):
        settings_package = "{package}settings"

        def append_app_plugins(self):
            self.add_database_app([Database(name, "migrations_" + name) for name in {names!r}])

    app = Shop()
"""

MODELS = """
    from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

    class {base}(DeclarativeBase):
        pass

    class Item({base}):
        __tablename__ = "{table}"
        id: Mapped[int] = mapped_column(primary_key=True)
"""


def settings(*names: str, paths: bool = True) -> str:
    lines = ["def make_settings(settings, paths):"]
    for name in names:
        lines.append(f"    settings['db:{name}:url'] = 'sqlite:///{name}.sqlite3'")
        if paths:
            path = f"migrations/{name}"
            lines.append(f"    paths.set('migrations_{name}', {path!r}, 'project_root')")
    return "\n".join(lines) + "\n"


def models(base: str = "Base", table: str = "item") -> str:
    return MODELS.format(base=base, table=table)


def tables(path: Path) -> set[str]:
    with sqlite3.connect(path) as connection:
        found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        names = {name for (name,) in found}
    connection.close()
    return {name for name in names if not name.startswith(("alembic", "qapla"))}


def newcomer(files: Files, *names: str, paths: bool = True) -> None:
    files.write(
        {
            "shop/__init__.py": "",
            "shop/app.py": APPLICATION.format(package="shop.", names=names),
            "shop/settings/__init__.py": "",
            "shop/settings/default.py": settings(*names, paths=paths),
            "pyproject.toml": '[tool.qapla_db]\napp = "shop.app:app"\n',
        }
    )


def test_newcomer(files: Files) -> None:
    """With a settings package, an application and models: init, revision, upgrade, as told."""
    newcomer(files, "main", paths=False)
    files.write({"shop/models.py": models()})

    def run(*arguments: str) -> str:
        command = [sys.executable, "-W", "error", "-m", *arguments]
        done = subprocess.run(command, cwd=files.root, capture_output=True, text=True, timeout=WAIT)
        assert 0 == done.returncode, done.stderr
        return done.stdout

    lines = run("qapla_db", "init").splitlines()
    written = ["migrations/main/env.py", "migrations/main/script.py.mako", "alembic.ini"]
    assert [f"wrote {name}" for name in written] == lines[:3]
    assert "to be added by you:" == lines[3]
    where, _, line = lines[4].strip().partition(": ")
    file = files.root / where
    file.write_text(f"{file.read_text()}    {line}\n")
    assert "main: wrote migrations/main/versions/" in run("qapla_db", "revision", "-m", "items")
    assert "items" in run("qapla_db", "upgrade", "--create")
    assert {"item"} == tables(files.root / "main.sqlite3")
    assert "main: nothing to do" in run("alembic.config", "upgrade", "head")


def test_nothing_is_overwritten(files: Files) -> None:
    """What is there stays as it is, an alembic.ini of others gets a section more."""
    newcomer(files, "main", "audit")
    ini = "[alembic]\nscript_location = elsewhere\n\n[loggers]\nkeys = root\n"
    files.write(
        {
            "shop/models.py": models(),
            "shop/audit.py": models("AuditBase"),
            "alembic.ini": ini,
            "migrations/main/env.py": "# mine",
        }
    )
    cli = files.cli
    assert ["migrations/main/script.py.mako", "alembic.ini"] == [
        line.removeprefix("wrote ") for line in cli("init", "main").stdout.splitlines()
    ]
    assert "# mine" == (files.root / "migrations/main/env.py").read_text()
    text = (files.root / "alembic.ini").read_text()
    assert text.startswith(ini)
    assert "[main]\npath_separator = os\n" in text
    assert "nothing to write" in cli("init", "main").stdout
    assert text == (files.root / "alembic.ini").read_text()


def test_two_databases(files: Files) -> None:
    """Without names init is for all databases; each gets the base that its name tells."""
    newcomer(files, "main", "audit")
    files.write({"shop/models.py": models() + models("AuditModel", "event")})
    cli = files.cli
    cli("init")
    ini = (files.root / "alembic.ini").read_text()
    assert "[alembic]\nscript_location = %(here)s/migrations/main" in ini
    assert "[audit]\nscript_location = %(here)s/migrations/audit" in ini
    assert "app, Base, " in (files.root / "migrations/main/env.py").read_text()
    assert "app, AuditModel, " in (files.root / "migrations/audit/env.py").read_text()
    cli("revision", "--all", "-m", "start")
    cli("upgrade", "--all", "--create")
    assert {"event"} == tables(files.root / "audit.sqlite3")


@pytest.mark.parametrize(
    "given, said",
    [
        ([], "could be those of shop.models:Base, shop.models:Other; say which: --models main="),
        (["--models", "shop.models:Base"], "of which database? Write --models main="),
        (["--models", "mian=shop.models:Base"], "no database is named 'mian'"),
        (["--models", "main=shop.models"], "is not of the form module:attribute"),
        (["--models", "main=shop.models:Item"], "is no declarative base"),
        (["--models", "main=shop.nope:Base"], "cannot be found"),
        (["--models", "main=shop.models:nope"], "cannot be found"),
    ],
)
def test_models_that_cannot_be_told(files: Files, given: list[str], said: str) -> None:
    """Several bases are told and none is guessed; a wrong one is refused; nothing is written."""
    newcomer(files, "main", "audit")
    files.write({"shop/models.py": models() + models("Other", "other")})
    code = 2 if given and "Item" not in given[1] and "nope" not in given[1] else 3
    assert said in files.cli.error("init", *given, code=code)
    assert not (files.root / "migrations").exists()
    named = ["--models", "main=shop.models:Base", "--models", "audit=shop.models:Other"]
    files.cli("init", *named)


def test_no_models(files: Files) -> None:
    """Without any declarative base init says what to write."""
    newcomer(files, "main")
    assert "write one (class Base(DeclarativeBase)" in files.cli.error("init")


def test_models_in_many_modules(files: Files) -> None:
    """Every module with models of the base is imported by env.py."""
    newcomer(files, "main")
    files.write(
        {
            "shop/base.py": """
                from sqlalchemy.orm import DeclarativeBase

                class Base(DeclarativeBase):
                    pass
            """,
            "shop/models/__init__.py": "from shop.models import item",
            "shop/models/item.py": """
                from sqlalchemy.orm import Mapped, mapped_column
                from shop.base import Base

                class Item(Base):
                    __tablename__ = "item"
                    id: Mapped[int] = mapped_column(primary_key=True)
            """,
        }
    )
    cli = files.cli
    cli("init")
    assert "import shop.models.item" in (files.root / "migrations/main/env.py").read_text()
    cli("revision")
    cli("upgrade", "--create")
    assert {"item"} == tables(files.root / "main.sqlite3")


def test_models_that_the_application_does_not_import(files: Files) -> None:
    """Models beside a base that the application imports are found too."""
    newcomer(files, "main")
    application = APPLICATION.format(package="shop.", names=["main"])
    files.write(
        {
            "shop/app.py": f"    from shop.base import Base\n{application}",
            "shop/base.py": """
                from sqlalchemy.orm import DeclarativeBase

                class Base(DeclarativeBase):
                    pass
            """,
            "shop/models.py": """
                from sqlalchemy.orm import Mapped, mapped_column
                from shop.base import Base

                class Item(Base):
                    __tablename__ = "item"
                    id: Mapped[int] = mapped_column(primary_key=True)
            """,
        }
    )
    files.cli("init")
    assert "import shop.models" in (files.root / "migrations/main/env.py").read_text()


def test_metadata_of_another_make(files: Files) -> None:
    """--models takes a MetaData too, as AlembicEnv does."""
    newcomer(files, "main")
    files.write(
        {
            "shop/schema.py": """
                import sqlalchemy as sa

                metadata = sa.MetaData()
                sa.Table("item", metadata, sa.Column("id", sa.Integer, primary_key=True))
            """
        }
    )
    files.cli("init", "--models", "shop.schema:metadata")
    files.cli("revision")
    files.cli("upgrade", "--create")
    assert {"item"} == tables(files.root / "main.sqlite3")


def test_models_that_cannot_be_imported(files: Files) -> None:
    """What models lack is told, and not that there are none."""
    newcomer(files, "main")
    files.write({"shop/models.py": "import nope_nope"})
    assert "No module named 'nope_nope'" in files.cli.error("init")


@pytest.mark.parametrize("name", ["Shop", "make"])
def test_application_that_is_made(files: Files, name: str) -> None:
    """An application that -A makes of a class or a function is made in env.py too."""
    newcomer(files, "main")
    application = APPLICATION.format(package="shop.", names=["main"])
    files.write(
        {
            "shop/app.py": application.replace(
                "app = Shop()", "def make():\n        return Shop()"
            ),
            "shop/models.py": models(),
        }
    )
    cli = files.cli
    cli("init", "-A", f"shop.app:{name}")
    assert f"AlembicEnv({name}(), Base, " in (files.root / "migrations/main/env.py").read_text()
    cli("revision", "-A", f"shop.app:{name}")


def test_read_only_directory(files: Files) -> None:
    """A place that cannot be written to is named."""
    newcomer(files, "main")
    files.write({"shop/models.py": models(), "migrations": "a file, where a directory belongs"})
    line = files.cli.error("init")
    assert str(files.root / "migrations") in line
    assert "use another directory" in line


def test_percent_in_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A percent sign in the path of the project does not break alembic.ini."""
    root = tmp_path / "50% off"
    root.mkdir()
    files = Files(root)
    newcomer(files, "main")
    files.write({"shop/models.py": models()})
    for arguments in (["qapla_db", "init"], ["alembic.config", "upgrade", "head"]):
        command = [sys.executable, "-W", "error", "-m", *arguments]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=WAIT)
        assert 0 == done.returncode, done.stderr


# --- initdb

CONFIG = """
    DB_CONFIG = {"SQL": {"ENGINE": "sqlite", "DB_NAME": "stars.sqlite3", "MODELS": "stars:Base"}}
"""


def stars(files: Files) -> Cli:
    files.write({"settings.py": CONFIG, "stars.py": models(table="star")})
    return files.cli


def test_initdb(files: Files) -> None:
    """With nothing but settings.py and models initdb makes files, first revision and schema."""
    cli = stars(files)
    lines = cli("initdb", "--settings_path", ".").stdout.splitlines()
    assert lines[0] == "wrote migrations/main/env.py"
    assert lines[-1].startswith("main: base -> ")
    assert {"star"} == tables(files.root / "stars.sqlite3")
    assert "main: nothing to do" in cli("initdb").stdout


def test_db_plugins_flow(files: Files) -> None:
    """initdb, a change of the models, make_migrations and migrate, with --settings_path."""
    cli = Cli(files.root.parent)
    stars(files)
    config = CONFIG.replace("stars.sqlite3", str(files.root / "stars.sqlite3"))
    files.write({"settings.py": config})
    path = ["--settings_path", str(files.root)]
    cli("initdb", *path)
    more = models(table="star") + '        name: Mapped[str] = mapped_column(default="")\n'
    files.write({"stars.py": more})
    command = [sys.executable, "-m", "qapla_db"]
    for name in ("make_migrations", "migrate"):
        done = subprocess.run(
            [*command, name, *path], cwd=files.root.parent, capture_output=True, timeout=WAIT
        )
        assert 0 == done.returncode, done.stderr
    with sqlite3.connect(files.root / "stars.sqlite3") as connection:
        assert [] == connection.execute("SELECT name FROM star").fetchall()
    connection.close()


def test_initdb_with_tables(files: Files) -> None:
    """Tables of the models without a version are not touched, and stamp is offered."""
    cli = stars(files)
    with sqlite3.connect(files.root / "stars.sqlite3") as connection:
        connection.execute("CREATE TABLE star (id INTEGER PRIMARY KEY, old TEXT)")
    connection.close()
    result = cli("initdb", code=3)
    assert "has tables of the models (star) and no version" in result.stderr
    assert "qapla-db stamp main" in result.stderr


def test_no_tests_in_settings(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database of a settings.py is not taken for the one of the tests."""
    cli = stars(files)
    for command in ("ensure", "recreate", "initdb", "drop"):
        assert "names no database of the tests" in cli.error(command, "--tests")
    assert {"settings.py", "stars.py"} == {path.name for path in files.root.glob("*.*")}
    monkeypatch.setenv("QAPLA_TEST_DB_MAIN_URL", "sqlite:///stars_test.sqlite3")
    cli("init")
    assert "made sqlite+pysqlite:///stars_test.sqlite3 anew" in cli("recreate").stdout
    assert not (files.root / "stars.sqlite3").exists()


def test_production_in_settings(files: Files) -> None:
    """A settings.py may say that its database is production, which is never dropped."""
    cli = stars(files)
    cli("initdb")
    files.write({"settings.py": CONFIG.replace("}}", ', "ENVIRONMENT": "production"}}')})
    assert "production" in cli.error("drop", "--yes", "main")
    assert {"star"} == tables(files.root / "stars.sqlite3")
    files.write({"settings.py": CONFIG.replace("}}", ', "ENVIRONMENT": 1}}')})
    assert "ENVIRONMENT in DB_CONFIG" in cli.error("status")


def test_plain_alembic_with_settings(files: Files) -> None:
    """The env.py that is written for a settings.py works with the command alembic too."""
    stars(files)("initdb")
    command = [sys.executable, "-W", "error", "-m", "alembic.config", "upgrade", "head"]
    done = subprocess.run(command, cwd=files.root, capture_output=True, text=True, timeout=WAIT)
    assert "main: nothing to do" in done.stdout, done.stderr


def test_no_models_in_settings(files: Files) -> None:
    """A settings.py that names no models is told how to."""
    files.write({"settings.py": CONFIG.replace(', "MODELS": "stars:Base"', "")})
    assert "MODELS" in files.cli.error("initdb")


def test_db_plugins_flow_without_initdb(files: Files) -> None:
    """Without initdb make_migrations and migrate say the next step, which leads on."""
    cli = stars(files)
    for command in ("make_migrations", "migrate"):
        line = cli.error(command, "--settings_path", ".")
        assert "'qapla-db init main' writes it" in line
        assert "'qapla-db initdb main' makes the first revision and the database too" in line
    cli("init", "main", "--settings_path", ".")
    cli("make_migrations", "--settings_path", ".")
    assert "upgrade --create" in cli.error("migrate", "--settings_path", ".")
    cli("migrate", "--create", "--settings_path", ".")
    assert {"star"} == tables(files.root / "stars.sqlite3")
