"""The commands that make databases and take them away, on each kind of engine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from qapla_db.backends import get_backend
from tests.cli.conftest import Cli, CliOf
from tests.conftest import FreshURL
from tests.migrations.conftest import MakeProject
from tests.migrations.project import Project, rows, tables

WAIT = 30

CREATE = "op.create_table({!r}, sa.Column('id', sa.Integer, primary_key=True))"
DROP = "op.drop_table({!r})"


def two_steps(project: Project, name: str = "main") -> None:
    project.revision(
        "a1", CREATE.format("airport"), DROP.format("airport"), doc="airports", name=name
    )
    project.revision(
        "a2", CREATE.format("runway"), DROP.format("runway"), after="a1", doc="runways", name=name
    )


def is_there(url: sa.URL) -> bool:
    backend = get_backend(url)
    assert backend is not None
    return backend.exists(backend.complete(url), None)


def test_create(make_project: MakeProject, cli_of: CliOf, missing: sa.URL) -> None:
    """create makes an empty database, and leaves one alone that is there."""
    cli = cli_of(make_project({"main": missing}))
    assert "main: created" in cli("create").stdout
    assert is_there(missing)
    rows(missing, "CREATE TABLE kept (id INTEGER)")
    assert "" == cli("create").stdout
    assert ["kept"] == tables(missing)


def test_ensure(make_project: MakeProject, cli_of: CliOf, missing: sa.URL) -> None:
    """ensure makes a missing database and migrates it; again it has nothing to do."""
    project = make_project({"main": missing})
    two_steps(project)
    cli = cli_of(project)
    lines = cli("ensure").stdout.splitlines()
    assert lines[0].startswith("main: created")
    assert ["main: base -> a1 airports", "main: a1 -> a2 runways"] == lines[1:]
    assert {"airport", "runway"} <= set(tables(missing))
    assert "main: nothing to do, at a2\n" == cli("ensure").stdout


def test_ensure_two(make_project: MakeProject, cli_of: CliOf, fresh_url: FreshURL) -> None:
    """ensure --all is for every registered database."""
    urls = {name: fresh_url("sqlite") for name in ("main", "audit")}
    project = make_project(urls)
    for name in urls:
        two_steps(project, name)
    assert "audit: a1 -> a2 runways" in cli_of(project)("ensure", "--all").stdout
    assert all("runway" in tables(url) for url in urls.values())


def test_ensure_waits_in_vain(make_project: MakeProject, cli_of: CliOf) -> None:
    """ensure --wait waits for a server, and says which one did not start."""
    cli = cli_of(make_project({"main": "postgresql://nobody:hush@127.0.0.1:1/shop"}))
    result = cli("ensure", "--wait", "0.2", code=3)
    assert "main: waiting for the server of postgresql+psycopg://nobody:***@127.0.0.1:1/shop" in (
        result.stdout
    )
    assert "'main'" in result.stderr
    assert "hush" not in result.output


def test_drop_names_the_database(cli: Cli, each_url: sa.URL) -> None:
    """A script that drops has to name the database; nothing else is enough."""
    rows(each_url, "CREATE TABLE precious (id INTEGER)")
    for arguments in ([], ["--yes", "mian"]):
        assert "a script that means it says --yes main" in cli.error("drop", "main", *arguments)
    assert ["precious"] == tables(each_url)
    assert "main: dropped" in cli("drop", "--yes", "main").stdout
    assert not is_there(each_url)
    assert "is not there" in cli("drop", "--yes", "main").stdout


def test_drop_all_or_none(make_project: MakeProject, cli_of: CliOf, fresh_url: FreshURL) -> None:
    """Of several databases none is dropped before each is confirmed, and each --yes is for one."""
    urls = {name: fresh_url("sqlite") for name in ("main", "audit")}
    cli = cli_of(make_project(urls))
    for url in urls.values():
        rows(url, "CREATE TABLE precious (id INTEGER)")
    cli("drop", "--all", "--yes", "main", code=3)
    message = cli.error("drop", "main", "--yes", "main", "--yes", "audit")
    assert "no database was dropped: --yes audit is for none of those" in message
    assert [["precious"]] * 2 == [tables(url) for url in urls.values()]
    assert 2 == cli("drop", "--all", "--yes", "main", "--yes", "audit").stdout.count(": dropped")
    assert not any(is_there(url) for url in urls.values())


def test_drop_of_two_names(make_project: MakeProject, cli_of: CliOf, missing: sa.URL) -> None:
    """drop says which other names are on the database that goes."""
    cli = cli_of(make_project({"main": missing, "audit": missing}))
    cli("create", "main")
    assert "audit is on the same database" in cli("drop", "main", "--yes", "main").stdout
    assert not is_there(missing)


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right there")
def test_drop_through_a_link(
    make_project: MakeProject, cli_of: CliOf, fresh_url: FreshURL, tmp_path: Path
) -> None:
    """A link leads to the database: drop deletes what is there, and the next one comes there."""
    url = fresh_url("sqlite")
    link, there = Path(str(url.database)), tmp_path / "elsewhere.sqlite3"
    link.symlink_to(there)
    cli = cli_of(make_project({"main": url}))
    cli("create")
    rows(url, "CREATE TABLE precious (id INTEGER)")
    assert there.is_file()
    assert "main: dropped" in cli("drop", "--yes", "main").stdout
    assert [] == list(tmp_path.glob("elsewhere.sqlite3*"))
    assert "main: created" in cli("create").stdout
    assert there.is_file()
    assert [] == tables(url)


def test_drop_production(make_project: MakeProject, cli_of: CliOf, each_url: sa.URL) -> None:
    """A database of the environment production is not dropped, whoever is named."""
    project = make_project({"main": each_url})
    settings = project.root / project.settings / "default.py"
    settings.write_text(f"{settings.read_text()}    settings['db:main:environment'] = 'production'")
    assert "production" in cli_of(project).error("drop", "--yes", "main")
    assert is_there(each_url)


def test_recreate(make_project: MakeProject, cli_of: CliOf, fresh_url: FreshURL) -> None:
    """recreate makes the database of the tests anew, and touches no other."""
    main, test = fresh_url("sqlite"), fresh_url("sqlite")
    project = make_project({"main": main}, {"main": test})
    two_steps(project)
    cli = cli_of(project)
    assert "made sqlite" in cli("recreate").stdout
    assert "runway" in tables(test)
    assert not Path(str(main.database)).exists()


def test_recreate_refuses(make_project: MakeProject, cli_of: CliOf, fresh_url: FreshURL) -> None:
    """recreate refuses a database that another endpoint uses too."""
    url = fresh_url("sqlite")
    project = make_project({"main": url}, {"main": url})
    two_steps(project)
    rows(url, "CREATE TABLE precious (id INTEGER)")
    assert "is the database that 'wsgi' uses" in cli_of(project).error("recreate")
    assert ["precious"] == tables(url)


def test_recreate_that_cannot_create(
    make_project: MakeProject, cli_of: CliOf, fresh_url: FreshURL, tmp_path: Path
) -> None:
    """recreate says why its database cannot be made, and not that another command makes it."""
    (tmp_path / "file").touch()
    test = sa.URL.create("sqlite", database=str(tmp_path / "file/ships_test.sqlite3"))
    project = make_project({"main": fresh_url("sqlite")}, {"main": test})
    two_steps(project)
    message = cli_of(project).error("recreate")
    assert "cannot be created at" in message
    assert "qapla-db ensure" not in message


def test_tests_in_advice(make_project: MakeProject, cli_of: CliOf, fresh_url: FreshURL) -> None:
    """What is advised for a database of the tests is not done to the one that is no test's."""
    project = make_project({"main": fresh_url("sqlite")}, {"main": fresh_url("sqlite")})
    two_steps(project)
    cli = cli_of(project)
    assert "'qapla-db ensure main --tests'" in cli.error("upgrade", "--tests")
    cli("create", "--tests")
    assert "run: qapla-db upgrade main --tests" in cli("status", "--tests", code=1).stdout
    assert "Run: qapla-db upgrade main --tests" in cli("check", "--tests", code=1).stdout


# --- the dialogue on a terminal


def spawn(cli: Cli, *arguments: str) -> Any:
    pexpect = pytest.importorskip("pexpect")
    command = ["-m", "qapla_db", *arguments]
    return pexpect.spawn(
        sys.executable, command, cwd=str(cli.root), encoding="utf-8", timeout=WAIT, echo=True
    )


def ended(child: Any) -> int:
    child.wait()
    child.close()
    return int(child.exitstatus)


@pytest.fixture
def precious(make_project: MakeProject, cli_of: CliOf, postgresql_database_url: sa.URL) -> Cli:
    """A project whose database has 1,234 rows that nobody wants to lose."""
    rows(postgresql_database_url, "CREATE SCHEMA old")
    rows(postgresql_database_url, 'CREATE TABLE old."Odd name" (id INTEGER)')
    rows(postgresql_database_url, "CREATE TABLE ship AS SELECT generate_series(1, 1234) AS id")
    return cli_of(make_project({"main": postgresql_database_url}))


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_drop_dialogue(precious: Cli, postgresql_database_url: sa.URL) -> None:
    """On a terminal drop shows host, database and row counts, and takes its name for a yes."""
    child = spawn(precious, "drop")
    child.expect("The database 'main' at postgresql")
    child.expect(str(postgresql_database_url.database))
    child.expect(r"ship +1,234")
    child.expect(r"old\.Odd name +0")
    child.expect("type its name, main:")
    child.expect("> ")
    child.sendline("main")
    child.expect("main: dropped")
    assert 0 == ended(child)
    assert not is_there(postgresql_database_url)


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
@pytest.mark.parametrize(
    "answer, code",
    [("yes\n", 3), ("\n", 3), ("\x04", 3), ("\x03", 130)],
    ids=["yes", "nothing", "end", "ctrl-c"],
)
def test_drop_dialogue_no(
    precious: Cli, postgresql_database_url: sa.URL, answer: str, code: int
) -> None:
    """Another answer, the end of the input and Ctrl-C all leave the database."""
    child = spawn(precious, "drop")
    child.expect("> ")
    child.send(answer)
    child.expect("was not dropped" if code == 3 else "\r\n")
    assert code == ended(child)
    assert is_there(postgresql_database_url)


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
@pytest.mark.parametrize(
    ("kind", "lock"),
    [("postgresql", "LOCK TABLE ship"), ("mariadb", "LOCK TABLES ship WRITE"), ("sqlite", "")],
)
def test_drop_dialogue_of_a_locked_table(
    make_project: MakeProject, cli_of: CliOf, fresh_url: FreshURL, kind: str, lock: str
) -> None:
    """Rows of a table that somebody has locked are not waited for, those of others are counted."""
    url = fresh_url(kind)
    cli = cli_of(make_project({"main": url}))
    cli("create")
    for table in ("port", "ship"):
        rows(url, f"CREATE TABLE {table} (id INTEGER)")
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        if lock:
            connection.exec_driver_sql(lock)
        child = spawn(cli, "drop")
        child.expect("port +0")
        child.expect("ship +not known" if lock else "ship +0")
        child.expect("> ")
        child.sendline("no")
        assert 3 == ended(child)


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_rename_dialogue(make_project: MakeProject, cli_of: CliOf, fresh_url: FreshURL) -> None:
    """On a terminal revision asks what was renamed; without one it refuses and names the flags."""
    project = make_project({"main": fresh_url("sqlite")})
    project.revision(
        "a1",
        "op.create_table('ship', sa.Column('id', sa.Integer, primary_key=True), "
        "sa.Column('name', sa.String(40), nullable=False))",
    )
    project.write_env(
        "main",
        """
        Model = sa.MetaData()
        sa.Table("ship", Model, sa.Column("id", sa.Integer, primary_key=True),
                 sa.Column("title", sa.String(40), nullable=False))
        """,
    )
    cli = cli_of(project)
    assert "--rename ship.name:title" in cli.error("revision", "-m", "titles")
    child = spawn(cli, "revision", "-m", "titles")
    child.expect_exact("Was ship.name renamed to ship.title? [y/N] ")
    child.sendline("y")
    child.expect("main: wrote .*_titles.py")
    assert 0 == ended(child)
    (path,) = (project.directory("main") / "versions").glob("*_titles.py")
    assert "new_column_name='title'" in path.read_text().replace('"', "'")
