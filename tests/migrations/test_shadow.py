"""Shadow databases: beside the real one, never it, and gone at the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import sqlalchemy as sa

from qapla_db import owners
from qapla_db.backends import get_backend
from qapla_db.database import Database
from qapla_db.errors import MigrationError, Refused, ServerError
from qapla_db.migrations import migrate
from qapla_db.migrations.shadow import shadow, shadow_name
from tests.conftest import FreshURL
from tests.migrations.conftest import MakeProject
from tests.migrations.project import WAIT, Project, rows, tables
from tests.support import make_application

CREATE = "op.create_table({!r}, sa.Column('id', sa.Integer, primary_key=True))"

_LEAVE_ONE = """
import os, sys
from {module} import app
from qapla_db.migrations.shadow import shadow

with shadow(app.run_command().dbs["main"], revision=None) as made:
    print(made.url.render_as_string(hide_password=False), flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory for temporary files of this test's own, for subprocesses too."""
    path = tmp_path / "temporary"
    path.mkdir()
    monkeypatch.setenv("TMPDIR", str(path))
    monkeypatch.setattr("tempfile.tempdir", None)
    return path


@pytest.fixture
def shadowed(project: Project, temporary: Path) -> Project:
    """A project with two revisions, on each kind of engine in turn."""
    project.revision("a1", CREATE.format("airport"))
    project.revision("a2", CREATE.format("runway"), after="a1")
    return project


def exists(url: sa.URL) -> bool:
    backend = get_backend(url)
    assert backend is not None
    return backend.exists(backend.complete(url), None)


def test_at_head(shadowed: Project, each_url: sa.URL) -> None:
    """A shadow has every revision, the real database has none of them, and then it is gone."""
    with shadow(shadowed.database()) as made:
        assert ["airport", "alembic_version", "runway"] == tables(made.url)
        assert sa.inspect(made.engine).has_table("runway")
        assert "_shadow_" in made.address
        assert exists(made.url)
    assert not exists(made.url)
    assert [] == tables(each_url)


def test_at_a_revision(shadowed: Project) -> None:
    """A shadow stops at the revision that was asked for, and None leaves it empty."""
    lines: list[str] = []
    with shadow(shadowed.database(), revision="a1", report=lines.append) as made:
        assert ["airport", "alembic_version"] == tables(made.url)
    assert ["main: base -> a1 a1"] == lines
    with shadow(shadowed.database(), revision=None) as made:
        assert [] == tables(made.url)


def test_without_the_real_one(shadowed: Project, each_url: sa.URL) -> None:
    """The real database need not be there, and is not made."""
    database = shadowed.database()
    database.drop(confirm="main")
    with shadow(database) as made:
        assert ["airport", "alembic_version", "runway"] == tables(made.url)
    assert not exists(each_url)


def test_two_at_once(shadowed: Project) -> None:
    """Two shadows of one database are two databases."""
    with shadow(shadowed.database()) as one, shadow(shadowed.database(), revision=None) as two:
        assert one.url != two.url
        assert ["airport", "alembic_version", "runway"] == tables(one.url)
        assert [] == tables(two.url)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_gone_after_an_error(shadowed: Project, error: type[BaseException]) -> None:
    """An error or Ctrl-C leaves no shadow, though a connection to it is open."""
    made: list[sa.URL] = []

    def use() -> None:
        with shadow(shadowed.database()) as one, one.engine.connect() as connection:
            made.append(one.url)
            connection.execute(sa.text("SELECT * FROM airport")).all()
            raise error

    with pytest.raises(error):
        use()
    assert not exists(made[0])


def test_gone_after_a_failed_revision(shadowed: Project, each_url: sa.URL) -> None:
    """A revision that fails is named, and its shadow is gone."""
    shadowed.revision("a3", "op.execute('SELECT nonsense FROM nowhere')", after="a2")
    before = databases(each_url)
    with pytest.raises(MigrationError, match="a2 -> a3"), shadow(shadowed.database()):
        pass
    assert before == databases(each_url)


def databases(url: sa.URL) -> list[str]:
    """Return what is on a server; for SQLite what is among the temporary files."""
    if url.get_backend_name() == "sqlite":
        return sorted(os.listdir(os.environ["TMPDIR"]))
    catalog = {"postgresql": "SELECT datname FROM pg_database"}
    query = catalog.get(
        url.get_backend_name(), "SELECT schema_name FROM information_schema.schemata"
    )
    name = (url.database or "").casefold()
    return sorted(found for (found,) in rows(url, query) if found.casefold().startswith(name))


def test_killed(shadowed: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a killed process leaves is swept by the next shadow; what a living one has stays."""
    # another run of the tests sweeps the usual directory
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    code = _LEAVE_ONE.format(module=shadowed.module)
    victims = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=shadowed.root,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    try:
        urls = []
        for victim in victims:
            assert victim.stdout is not None
            urls.append(sa.make_url(victim.stdout.readline().strip()))
        victims[0].send_signal(signal.SIGKILL)
        victims[0].wait(WAIT)
        assert exists(urls[0]), "it had no time to tidy up"
        with shadow(shadowed.database(), revision=None):
            assert [False, True] == [exists(url) for url in urls]
        victims[1].communicate("\n", timeout=WAIT)
        assert not exists(urls[1])
    finally:
        for victim in victims:
            victim.kill()
            victim.communicate(timeout=WAIT)


def test_letters_by_chance(make_project: MakeProject, temporary: Path, fresh_url: FreshURL) -> None:
    """The directory that a dead process has left is swept, whatever letters its name ends with."""
    code = "from qapla_db.owners import new_token; print(new_token())"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=WAIT
    )
    left = temporary / f"qapla_db_shadow_{done.stdout.strip()}_a_b__c_d"
    left.mkdir()
    with shadow(make_project({"main": fresh_url("sqlite")}).database(), revision=None):
        assert not left.exists()


def test_strangers_names_stay(make_project: MakeProject, server_database_url: sa.URL) -> None:
    """A database whose name only looks like a shadow's is nobody's to drop."""
    url = server_database_url
    backend = get_backend(url)
    assert backend is not None
    one = backend.complete(url).set(database=f"{url.database}_shadow_of_2025")
    other_host = "0" * 8 + owners.new_token()[8:]
    two = one.set(database=shadow_name(backend, str(url.database), other_host))
    database = make_project({"main": url}).database()
    try:
        for url in (one, two):
            backend.create(url, None)
        with shadow(database, revision=None):
            assert exists(one)
            assert exists(two)
    finally:
        for url in (one, two):
            backend.drop(url, None)


def test_long_names(make_project: MakeProject, fresh_url: FreshURL) -> None:
    """A name as long as the server allows is cut, so that the shadow's token stays whole."""
    for kind in ("postgresql", "mariadb"):
        url = fresh_url(kind)
        backend = get_backend(url)
        assert backend is not None
        long = ("zażółć_" + str(url.database)).ljust(80, "x")
        name = shadow_name(backend, long, owners.new_token())
        backend.check_name(url.set(database=name))
        assert name.startswith("zażółć_")
        project = make_project(
            {"main": url.set(database=str(url.database).ljust(63, "x"))}, directory=kind
        )
        with shadow(project.database(), revision=None) as made:
            assert exists(made.url)


def test_production(shadowed: Project, each_url: sa.URL) -> None:
    """Beside production nothing is made, unless it is asked for."""
    shadowed.set(environment="Production")
    before = databases(each_url)
    with pytest.raises(Refused, match=r"'db:main:environment'.*allow_production=True"):
        with shadow(shadowed.database()):
            pass
    assert before == databases(each_url)
    with shadow(shadowed.database(), allow_production=True) as made:
        assert exists(made.url)


def test_recorded_production(shadowed: Project, each_url: sa.URL) -> None:
    """Beside what is production by its own record nothing is made either."""
    production = {"db:main:environment": "production"}
    migrate(shadowed.application().run_command(production).dbs["main"])
    before = databases(each_url)
    database = shadowed.database()
    with pytest.raises(Refused, match=r"its own record.*allow_production=True"):
        with shadow(database):
            pass
    assert before == databases(each_url)
    with shadow(database, allow_production=True) as made:
        assert exists(made.url)


def test_options_that_lead_elsewhere(make_project: MakeProject, fresh_url: FreshURL) -> None:
    """An option that leads every connection to the real database is found before anything runs."""
    for kind, argument in (("postgresql", "dbname"), ("mariadb", "database")):
        url = fresh_url(kind)
        backend = get_backend(url)
        assert backend is not None
        backend.create(backend.complete(url), None)
        project = make_project({"main": url}, directory=kind)
        project.revision("a1", CREATE.format("airport"))
        project.set(options={"connect_args": {argument: url.database}})
        with pytest.raises(Refused, match=r"'db:main:options'"), shadow(project.database()):
            pass
        assert [] == tables(url)
        assert [url.database] == databases(url)


def test_schemas_of_mariadb(make_project: MakeProject, fresh_url: FreshURL) -> None:
    """On a server where a schema is a database, models in one would be changed in earnest."""
    url = fresh_url("mariadb")
    project = make_project({"main": url})
    project.write_env(
        "main",
        "Model = sa.MetaData()\nsa.Table('t', Model, sa.Column('c', sa.Text), schema='other')",
    )
    with pytest.raises(Refused, match="schemas other, which are other databases"):
        with shadow(project.database()):
            pass


def test_schemas_of_postgresql(make_project: MakeProject, postgresql_database_url: sa.URL) -> None:
    """Schemas of PostgreSQL are within the shadow."""
    project = make_project({"main": postgresql_database_url})
    project.revision("a1", "op.execute('CREATE SCHEMA more; CREATE TABLE more.t (id integer)')")
    with shadow(project.database()) as made:
        assert ["t"] == sa.inspect(made.engine).get_table_names(schema="more")


def test_memory(temporary: Path, tmp_path: Path) -> None:
    """The shadow of a database in memory is a file, and the database stays as it is."""
    database = make_application({"main": "sqlite://"}).dbs["main"]
    with shadow(database, revision=None) as made:
        assert str(made.url.database).startswith(str(temporary))
        assert made.url.get_backend_name() == "sqlite"
    assert [] == os.listdir(temporary)


def test_embedded(make_project: MakeProject, postgresql_directory: Path) -> None:
    """A database of a server of our own has its shadow on the same server."""
    url = sa.URL.create(
        "embedded", database=str(postgresql_directory), query={"database": "shadowed_test"}
    )
    project = make_project({"main": url})
    project.revision("a1", CREATE.format("airport"))
    with shadow(project.database()) as made:
        assert sa.inspect(made.engine).has_table("airport")
        assert exists(made.url)
        assert "database=shadowed_test_shadow_" in made.address
    assert not exists(made.url)


def test_no_right_to_create(make_project: MakeProject, postgresql_database_url: sa.URL) -> None:
    """Where the user may create no databases it is said what to grant, without a password."""
    url = postgresql_database_url
    role = f"poor_{os.getpid()}"
    rows(url, f"CREATE ROLE {role} LOGIN PASSWORD 'hush'")
    try:
        project = make_project({"main": url.set(username=role, password="hush")})
        with pytest.raises(ServerError, match=r"permission denied.*CREATEDB") as raised:
            with shadow(project.database()):
                pass
        assert "hush" not in str(raised.value)
    finally:
        rows(url, f"DROP ROLE {role}")


def test_server_down() -> None:
    """A server that does not run is named, with the setting to check."""
    url = "postgresql://nobody:hush@127.0.0.1:1/nowhere"
    database: Database = make_application({"main": url}).dbs["main"]
    with pytest.raises(ServerError, match="db:main:url") as raised, shadow(database, revision=None):
        pass
    assert "hush" not in str(raised.value)


def test_rows_stay(shadowed: Project, each_url: sa.URL) -> None:
    """A migrated database keeps its rows while a shadow comes and goes."""
    database = shadowed.database()
    migrate(database)
    rows(each_url, "INSERT INTO airport (id) VALUES (7)")
    with shadow(database) as made:
        assert [] == rows(made.url, "SELECT id FROM airport")
    assert [(7,)] == rows(each_url, "SELECT id FROM airport")


@pytest.mark.parametrize("token", ["", "x", "0" * 8 + "_1_1_1", "not_a_token_at_all"])
def test_in_doubt(token: str) -> None:
    """A token of another machine, and what is none, belongs to somebody alive."""
    assert not owners.is_abandoned(token)


def test_tokens() -> None:
    """Tokens differ; one of a process that is gone, or whose number another has, is abandoned."""
    mine, other = owners.new_token(), owners.new_token()
    assert mine != other
    assert not owners.is_abandoned(mine)
    host, pid, start, number = mine.split("_")
    if sys.platform == "linux":
        assert owners.is_abandoned(f"{host}_{pid}_{start}1_{number}")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait(WAIT)
    digits, left = "", ended.pid
    while left:
        left, digit = divmod(left, 36)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + digits
    assert owners.is_abandoned(f"{host}_{digits}_1_{number}")
    assert not owners.is_abandoned(f"{'0' * 8}_{digits}_1_{number}"), "of another machine"
