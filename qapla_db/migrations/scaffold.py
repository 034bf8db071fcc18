"""The files that migrations begin with: alembic.ini, env.py, the template of revisions.

Nothing that exists is overwritten.
"""

from __future__ import annotations

import configparser
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from qapla_db.database import Database
from qapla_db.errors import MigrationError, SettingMissing
from qapla_db.migrations.bases import Symbol, bases_of, modules_of
from qapla_db.migrations.commands import FILE_TEMPLATE

__all__ = ["Application", "Scaffold", "scaffold"]

INI = "alembic.ini"

_ENV = """\
{imports}

AlembicEnv({application}, {model}, "{name}").run()
"""

_TEMPLATE = '''\
"""${message.replace("\\\\", "\\\\\\\\").replace('"""', '\\\\"' * 3)}

Revision: ${up_revision}
Revises: ${down_revision | comma,n}
Created: ${create_date}
"""

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    ${downgrades if downgrades else "pass"}
'''


@dataclass(frozen=True)
class Application:
    """How an ``env.py`` gets the application.

    :ivar lines: what it imports.
    :ivar expression: the application, to Python.
    :ivar module: name of its module, whose package may have the models; None for none.
    """

    lines: tuple[str, ...]
    expression: str
    module: str | None


@dataclass
class Scaffold:
    """What was written, what was there already, and what the user has to add."""

    written: list[Path] = field(default_factory=list)
    kept: list[Path] = field(default_factory=list)
    to_add: list[str] = field(default_factory=list)


def scaffold(
    databases: Sequence[Database],
    application: Application,
    root: Path,
    models: Mapping[str, str] | None = None,
) -> Scaffold:
    """Write what is missing of the migrations of databases.

    :param databases: prepared ones of one application.
    :param application: how ``env.py`` gets it.
    :param root: the project's directory, where ``alembic.ini`` is.
    :param models: name of a database -> ``module:Base``; where a name is missing the
        only declarative base that can be meant is taken.
    :returns: what was done.
    :raises MigrationError: the models of a database cannot be told.
    :raises OSError: a directory cannot be written to.
    """
    done = Scaffold()
    homes = {database.name: _home(database, root, done) for database in databases}
    missing = [one for one in databases if not (homes[one.name] / "env.py").exists()]
    bases = bases_of(missing, application.module, root, models or {})
    for database in databases:
        home = homes[database.name]
        if database.name in bases:
            text = _env(database.name, application, bases[database.name])
            _write(home / "env.py", text, done)
        else:
            done.kept.append(home / "env.py")
        _write(home / "script.py.mako", _TEMPLATE, done)
        (home / "versions").mkdir(exist_ok=True)
    _write_ini(root, homes, done)
    return done


def _home(database: Database, root: Path, done: Scaffold) -> Path:
    """Return the directory of a database's migrations."""
    try:
        return Path(database.migrations_path).absolute()
    except SettingMissing:
        path = f"migrations/{database.name}"
        package = getattr(database.host, "settings_package", "settings").replace(".", "/")
        line = f'paths.set("{database.paths_key}", "{path}", "project_root")'
        done.to_add.append(f"{package}/default.py: {line}")
        return root / path


def _write(path: Path, text: str, done: Scaffold) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        done.kept.append(path)
    else:
        done.written.append(path)


def _env(name: str, application: Application, base: Symbol) -> str:
    imports = {"from qapla_db.env import AlembicEnv", *application.lines, base.line}
    modules = sorted(modules_of(base) - {base.module})
    plain = [f"import {module}  # its models are tables of {name}" for module in modules]
    plain += [line for line in imports if line.startswith("import ")]
    lines = [*plain, *sorted(line for line in imports if not line.startswith("import "))]
    return _ENV.format(
        imports="\n".join(lines),
        application=application.expression,
        model=base.attribute,
        name=name,
    )


# --- alembic.ini


def _write_ini(root: Path, homes: Mapping[str, Path], done: Scaffold) -> None:
    path = root / INI
    is_new = not path.exists()
    here = "" if "%" in str(root) else "%(here)s/"
    common = ["path_separator = os", f"prepend_sys_path = {here[:-1] or '.'}"]
    parser = _parsed(path)
    taken = set(parser.sections())
    sections = []
    for name, home in homes.items():
        location = (
            f"{here}{home.relative_to(root).as_posix()}"
            if home.is_relative_to(root)
            else (str(home).replace("%", "%%"))
        )
        if home in _locations(parser, root):
            continue
        section = name if "alembic" in taken else "alembic"
        if section in taken:
            done.to_add.append(f"{path}: [{section}] script_location = {location}")
            continue
        taken.add(section)
        options = common if not is_new and "path_separator" not in parser.defaults() else []
        sections.append("\n".join([f"[{section}]", *options, f"script_location = {location}"]))
    if not sections:
        done.kept.append(path)
        return
    text = "\n\n".join(sections) + "\n"
    if is_new:
        template = f"file_template = {FILE_TEMPLATE}"
        _write(path, "\n".join(["[DEFAULT]", *common, template, "", text]), done)
        return
    with path.open("a", encoding="utf-8") as file:
        file.write(f"\n{text}")
    done.written.append(path)


def _parsed(path: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(path, encoding="utf-8")
    except (configparser.Error, ValueError) as error:
        raise MigrationError(
            f"{path} cannot be read: {' '.join(str(error).split())}; correct it, or move it away"
        ) from error
    return parser


def _locations(parser: configparser.ConfigParser, root: Path) -> Iterator[Path]:
    for section in parser.sections():
        value = parser[section].get("script_location", "").replace("%(here)s", str(root))
        if value:
            yield Path(os.path.normpath(root / value.replace("%%", "%")))
