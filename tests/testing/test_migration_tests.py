"""Tests of migrations, in projects of their own, each run by a pytest of its own."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent, indent

import pytest
import sqlalchemy as sa

from tests.testing.forked import run_project
from tests.testing.projects import databases_on

KINDS = ["postgresql", "sqlite", "mariadb"]
CHECKS = {
    "single_head",
    "from_nothing",
    "models_match",
    "up_down_up",
    "offline_sql",
    "rehearsal",
}

REVISION = """\
import sqlalchemy as sa
from alembic import context, op
revision, down_revision = {id!r}, {after!r}

def upgrade():
{up}

def downgrade():
{down}
"""

SHIPS = """
import sqlalchemy as sa
from qapla_db import Database, DatabaseApplication

NAMES = {names!r}

def models_of(name):
    model = sa.MetaData()
    columns = [sa.Column("class", sa.String(30))] if name == "models" else []
    sa.Table(
        "ship", model, sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(30), nullable=False),
        sa.Column("made", sa.DateTime(), server_default=sa.text("CURRENT_TIMESTAMP")), *columns,
    )
    return model

class ShipApplication(DatabaseApplication):
    def append_app_plugins(self):
        self.add_database_app([Database(name, "migrations_" + name) for name in NAMES])
"""

CONFTEST = """
from qapla_db.testing import migration_tests
from ships import ShipApplication
pytest_collect_file = migration_tests(ShipApplication)
"""

CREATE = """
op.create_table(
    "ship", sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String(30), nullable=False),
    sa.Column("made", sa.DateTime(), server_default=sa.text("CURRENT_TIMESTAMP")),
)
"""
INSERT = "op.execute(\"INSERT INTO ship (id, name) VALUES (1000, '100% Rotarran: a; b')\")"
OTHER = INSERT.replace("100%", "99%")
DELETE = 'op.execute("DELETE FROM ship WHERE id = 1000")'
READ = """
for number in op.get_bind().execute(sa.text("SELECT id FROM ship")).scalars():
    pass
"""
ALTER = """
with op.batch_alter_table("ship") as batch:
    batch.alter_column("name", existing_type=sa.String(30), type_=sa.String(40))
"""
HANGAR = "op.create_table('hangar', sa.Column('id', sa.Integer, primary_key=True))"

SECOND = {
    "good": (INSERT, DELETE),
    "bad": ("op.execute('INSERT INTO nowhere VALUES (1)')", "pass"),
    "slip": ("nonsense()", "pass"),
    "models": (INSERT, DELETE),
    "left": (f"{HANGAR}\nop.drop_table('hangar')", HANGAR),
    "stuck": (INSERT, "op.execute('DELETE FROM nowhere')"),
    "oneway": (INSERT, "raise NotImplementedError('the names are gone')"),
    "apart": (
        f"{INSERT.replace('100%', '99%')} if context.is_offline_mode() else {INSERT}",
        DELETE,
    ),
    "reads": (READ, "op.execute('SELECT 1')"),
    "rows": ("op.execute('DELETE FROM ship')", INSERT),
    "doubles": ("op.execute('INSERT INTO ship (id, name) SELECT id, name FROM ship')", "pass"),
    "middle": (INSERT, "raise NotImplementedError('the names are gone')"),
    "batch": (ALTER, ALTER.replace("30", "31").replace("40", "30").replace("31", "40")),
    "heads": (INSERT, DELETE),
}
"""Name of a database -> what its second revision does and undoes."""

Project = Callable[..., pytest.Pytester]


@pytest.fixture
def project(pytester: pytest.Pytester, request: pytest.FixtureRequest) -> Project:
    """Make an application with databases that do not exist; their names say what is wrong."""

    def make(kind: str, *names: str) -> pytest.Pytester:
        write(pytester, "ships.py", SHIPS.format(names=names))
        write(pytester, "conftest.py", CONFTEST)
        write(pytester, "settings/__init__.py", "")
        lines = []
        for name in names:
            lines.append(f"paths.set('migrations_{name}', 'migrations/{name}', 'project_root')")
            url = url_of(request, pytester, kind, name)
            lines.append(f"settings['db:{name}:url'] = {url!r}")
            env = (
                "from qapla_db.env import AlembicEnv\nfrom ships import models_of\n"
                f"AlembicEnv(None, models_of({name!r}), {name!r}).run()\n"
            )
            write(pytester, f"migrations/{name}/env.py", env)
            revision(pytester, name, "a1", None, CREATE, "op.drop_table('ship')")
            revision(pytester, name, "a2", "a1", *SECOND.get(name, (INSERT, DELETE)))
        text = "def make_settings(settings, paths):\n" + indent("\n".join(lines), "    ")
        write(pytester, "settings/default.py", "def make_settings(settings, paths): pass\n")
        write(pytester, "settings/tests.py", text)
        return pytester

    return make


def url_of(request: pytest.FixtureRequest, pytester: pytest.Pytester, kind: str, name: str) -> str:
    database = f"migrations_test_{os.getpid()}_{name}"
    if kind == "sqlite":
        return f"sqlite:///{pytester.path}/{database}.sqlite3"
    server: sa.URL = request.getfixturevalue(f"{kind}_url")
    return server.set(database=database).render_as_string(hide_password=False)


def write(project: pytest.Pytester, name: str, text: str) -> None:
    path = project.path / name
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(text)


def revision(
    project: pytest.Pytester, name: str, id: str, after: str | None, up: str, down: str
) -> None:
    bodies = {"up": indent(dedent(up), "    "), "down": indent(dedent(down), "    ")}
    text = REVISION.format(id=id, after=after, **bodies)
    write(project, f"migrations/{name}/versions/{id}_.py", text)


def run(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return run_project(
        project,
        *("-v", "-rs", "-W", "error", "--strict-markers", "--strict-config"),
        *("-p", "no:cacheprovider"),
        *arguments,
    )


def outcomes(result: pytest.RunResult, word: str) -> dict[str, set[str]]:
    """Return the tests with an outcome, by database."""
    found: dict[str, set[str]] = {}
    for line in result.outlines:
        match = re.search(r"conftest\.py::migrations::(\w+)::(\w+)", line)
        if match and re.search(rf"\b{word}\b", line) and "::" in line:
            found.setdefault(match[1], set()).add(match[2])
    return found


def message(result: pytest.RunResult, name: str, check: str) -> str:
    """Return what a failed test says."""
    text = result.stdout.str()
    found = re.search(rf"_ migrations of {name}: {check} _+\n(.*?)\n[_=]{{3}}", text, re.DOTALL)
    assert found, text
    return found[1]


def full_and_short(result: pytest.RunResult, name: str) -> dict[str, list[str]]:
    """Return the failed tests of a database that say why, and those that name each of them."""
    found: dict[str, list[str]] = {}
    for check in outcomes(result, "FAILED")[name]:
        text = message(result, name, check)
        match = re.search(rf"^{name}: the same error as (\w+), which failed first$", text, re.M)
        found.setdefault(match[1] if match else check, []).append(check)
    return {first: sorted(set(others) - {first}) for first, others in found.items()}


def scratch_databases(kind: str, request: pytest.FixtureRequest) -> list[str]:
    """Return the scratch databases of these tests that a server has."""
    names = databases_on(request.getfixturevalue(f"{kind}_url"))
    return [name for name in names if name.startswith(f"migrations_test_{os.getpid()}_traces_")]


def test_each_check(project: Project) -> None:
    """Each test fails for its own reason and for no other, and says what to do."""
    made = project("sqlite", *SECOND, "strays")
    real = made.path / f"migrations_test_{os.getpid()}_good.sqlite3"
    stray = f"""context.is_offline_mode() and op.execute("ATTACH '{real}' AS good")"""
    revision(made, "strays", "a2", "a1", stray, "op.execute('SELECT 1')")
    revision(made, "middle", "a3", "a2", HANGAR, "op.execute('SELECT 1')")
    revision(made, "heads", "b2", "a1", HANGAR, "op.drop_table('hangar')")
    result = run(made)
    others = CHECKS - {"single_head"}
    failed = outcomes(result, "FAILED")
    assert {
        "bad": others,
        "slip": others,
        "models": {"models_match"},
        "left": {"up_down_up", "rehearsal"},
        "stuck": {"up_down_up", "rehearsal"},
        "apart": {"offline_sql"},
        "reads": {"offline_sql"},
        "rows": {"rehearsal"},
        "doubles": {"rehearsal"},
        "strays": {"offline_sql"},
        "middle": {"up_down_up", "rehearsal"},
        "batch": {"models_match"},
        "heads": {"single_head"},
    } == failed
    skipped = {"oneway": {"up_down_up"}, "batch": {"offline_sql"}}
    assert skipped == outcomes(result, "SKIPPED")
    assert CHECKS == outcomes(result, "PASSED")["good"]

    def file_of(name: str) -> Path:
        return made.path / "migrations" / name / "versions" / "a2_.py"

    says = [
        ("bad", "from_nothing", "a1 -> a2"),
        ("slip", "from_nothing", "a2_.py, line 6: NameError: name 'nonsense' is not defined"),
        ("models", "models_match", "add column ship.class"),
        ("models", "models_match", "qapla-db revision models -m"),
        ("left", "up_down_up", "a2: when it is undone, table hangar is left over"),
        ("stuck", "up_down_up", "a2: fails when it is undone: "),
        ("apart", "offline_sql", "ship: online (id=1000, name=100% Rotarran: a; b"),
        ("reads", "offline_sql", "a2_.py, line 7): it reads rows"),
        ("strays", "offline_sql", "connects to the database 'good'"),
        ("middle", "up_down_up", "a3: when it is undone, table hangar is left over"),
        ("heads", "single_head", "there are 2 heads: a2, b2\nMerge them: qapla-db merge heads"),
        ("rows", "rehearsal", "lost rows: 100 of 100 rows of ship (by a2)"),
        ("rows", "rehearsal", "such as '# qapla: loses rows of TABLE, REASON'"),
        ("doubles", "rehearsal", "failed upgrade: UNIQUE constraint failed: ship.id"),
        ("doubles", "rehearsal", f"Correct upgrade() of a2 ({file_of('doubles')}). What runs on"),
        ("stuck", "rehearsal", f"Correct downgrade() of a2 ({file_of('stuck')}), or raise"),
        ("left", "rehearsal", "Let downgrade() of the revisions undo all of upgrade()"),
    ]
    for name, check, text in says:
        assert text in message(result, name, check)
    assert "there is no way back from a2: the names are gone" in result.stdout.str()
    assert "During handling" not in result.stdout.str()
    assert "Traceback" not in result.stdout.str()


BROKEN = ["bad", "slip", "torn", "lost"]
"""Databases with an error that every test of theirs ends with, or all but the first."""


def broken(project: Project) -> pytest.Pytester:
    made = project("sqlite", *BROKEN, "good")
    revision(made, "torn", "a2", "a1", "x = = 1", "pass")
    revision(made, "lost", "a3", "a7", "pass", "pass")
    return made


def test_one_error(project: Project) -> None:
    """An error that stops several tests is told by the first; the others name it in a line."""
    result = run(broken(project))
    others = sorted(CHECKS - {"single_head"})
    reached = {"from_nothing": sorted({*others} - {"from_nothing"})}
    assert [reached] * 2 == [full_and_short(result, name) for name in BROKEN[:2]]
    assert [{"single_head": others}] * 2 == [full_and_short(result, name) for name in BROKEN[2:]]
    assert CHECKS == outcomes(result, "PASSED")["good"]


@pytest.mark.parametrize("check", sorted(CHECKS - {"single_head"}))
def test_one_error_and_one_check(project: Project, check: str) -> None:
    """A test that is run alone tells the error itself."""
    result = run(broken(project), "-k", check)
    assert [{check: []}] * 4 == [full_and_short(result, name) for name in BROKEN]
    assert "a2_.py, line 6): no such table: nowhere" in message(result, "bad", check)
    assert "a2_.py, line 6: NameError: name 'nonsense' is not" in message(result, "slip", check)
    result.assert_outcomes(passed=1, failed=4, deselected=25)


@pytest.mark.parametrize("seed", ["1", "2"])
def test_one_error_in_any_order(project: Project, seed: str) -> None:
    """Whichever test comes first, one tells the error."""
    result = run(broken(project), "--randomly-seed", seed)
    for name in BROKEN:
        (first,) = full_and_short(result, name)
        assert f"{name}: " in message(result, name, first)


TYPES = {
    "postgresql": (
        """
        op.execute("CREATE TYPE class AS ENUM ('bird', 'cruiser')")
        op.execute("CREATE SEQUENCE hulls")
        op.execute("CREATE SCHEMA yard")
        op.execute("CREATE VIEW named AS SELECT name FROM ship")
        """,
        'op.execute("DROP VIEW named")',
        ["type class is left over", "sequence hulls is left over", "schema yard is left over"],
    ),
    "mariadb": (
        """
        op.execute("CREATE SEQUENCE hulls")
        op.execute("CREATE FUNCTION hull() RETURNS INT RETURN 1")
        """,
        'op.execute("SELECT 1")',
        ["sequence hulls is left over", "function hull is left over"],
    ),
    "sqlite": (
        'op.execute("CREATE VIEW IF NOT EXISTS named AS SELECT name FROM ship")',
        'op.execute("SELECT 1")',
        ["view named is left over"],
    ),
}
"""What a revision makes, what it undoes of it, and what is said of the rest."""


SPECIAL = {
    "postgresql": (
        """
        with op.get_context().autocommit_block():
            op.create_index("by_name", "ship", ["name"], postgresql_concurrently=True)
            op.drop_index("by_name", "ship", postgresql_concurrently=True)
        op.execute(
            "CREATE FUNCTION part() RETURNS int LANGUAGE plpgsql "
            "AS $$ BEGIN -- a; b\\n RETURN 7 % 5; END $$"
        )
        """,
        'op.execute("DROP FUNCTION part")',
    ),
    "mariadb": (
        """
        op.execute(
            "CREATE FUNCTION part() RETURNS INT BEGIN DECLARE n INT; SET n = 7 % 5; RETURN n; END"
        )
        """,
        'op.execute("DROP FUNCTION part")',
    ),
    "sqlite": (
        """
        op.execute(
            "CREATE TRIGGER part AFTER DELETE ON ship BEGIN SELECT 7 % 5; SELECT 'a; b'; END"
        )
        """,
        'op.execute("DROP TRIGGER part")',
    ),
}
"""What a client could take for several statements, or for parameters."""


@pytest.mark.parametrize("kind", KINDS)
def test_servers(
    project: Project,
    kind: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On each kind of server good migrations pass, and traces of any kind are found."""
    up, down, left = TYPES[kind]
    made = project(kind, "good", "traces")
    if kind == "sqlite":
        monkeypatch.setenv("TMPDIR", str(tmp_path))
    revision(made, "traces", "a2", "a1", up, down)
    revision(made, "good", "a3", "a2", *SPECIAL[kind])
    result = run(made)
    assert {"traces": {"up_down_up", "rehearsal"}} == outcomes(result, "FAILED")
    assert CHECKS == outcomes(result, "PASSED")["good"]
    for one in left:
        assert f"a2: when it is undone, {one}" in message(result, "traces", "up_down_up")
    if kind == "sqlite":
        assert [] == [*made.path.glob("*.sqlite3"), *tmp_path.glob("qapla_db_shadow_*")]
    else:
        assert [] == scratch_databases(kind, request)


def test_xdist(project: Project) -> None:
    """Workers run them too, whichever tests a worker gets; each tells an error once."""
    result = run(project("sqlite", "good", "left", "bad"), "-n", "2")
    result.assert_outcomes(passed=11, failed=7)
    others = CHECKS - {"single_head"}
    assert {"left": {"up_down_up", "rehearsal"}, "bad": others} == outcomes(result, "FAILED")
    assert len(full_and_short(result, "bad")) in (1, 2)


def test_selection(project: Project) -> None:
    """They are selected by node id, word and marker, and not run with a test file beside them."""
    made = project("sqlite", "good")
    write(made, "test_other.py", "def test_other(): pass\n")
    write(made, "sub/conftest.py", CONFTEST)
    node = "conftest.py::migrations::good::single_head"
    run(made, node, f"sub/{node}").assert_outcomes(passed=2)
    by_name = ["-k", "good and from_nothing", "-m", "qapla_db_migrations"]
    run(made, *by_name).assert_outcomes(passed=2, deselected=11)
    run(made, "test_other.py").assert_outcomes(passed=1)


def test_no_server(project: Project) -> None:
    """Without a server the tests are collected; those that need it say so, in short."""
    made = project("sqlite", "good")
    url = "postgresql://nobody:secret@127.0.0.1:1/gone_test"
    text = (made.path / "settings" / "tests.py").read_text()
    write(made, "settings/tests.py", f"{text}\n    settings['db:good:url'] = {url!r}\n")
    result = run(made, "-k", "single_head or from_nothing")
    result.assert_outcomes(passed=1, failed=1, deselected=4)
    assert "127.0.0.1:1" in message(result, "good", "from_nothing")
    assert "secret" not in result.stdout.str()
    assert "Traceback" not in result.stdout.str()


def test_that_cannot_be_prepared(project: Project) -> None:
    """An application that cannot be prepared is an error in a line, before anything is run."""
    made = project("sqlite", "good")
    write(made, "broken/__init__.py", "")
    write(made, "broken/default.py", "def make_settings(settings, paths):\n    nonsense()\n")
    write(made, "one/conftest.py", f"{CONFTEST[:-1].replace(')', ', databases=[`gone`])')}")
    write(
        made,
        "two/conftest.py",
        f"{CONFTEST}\nclass Other(ShipApplication):\n    settings_package = 'broken'\n"
        "pytest_collect_file = migration_tests(Other)\n",
    )
    write(
        made,
        "three/conftest.py",
        f"{CONFTEST}\nclass Serving(ShipApplication): pass\n"
        "pytest_collect_file = migration_tests(Serving)\n"
        "serving = Serving()\nserving.run_command({'db:good:url': 'sqlite:///x'})\n",
    )
    one = made.path / "one" / "conftest.py"
    one.write_text(one.read_text().replace("`", "'"))
    result = run(made)
    result.assert_outcomes(errors=3)
    result.stdout.fnmatch_lines_random(
        [
            "migration_tests(databases=...) names 'gone'; with migrations there are: good",
            "*cannot be prepared for tests: NameError: name 'nonsense' is not defined (*line 2)",
            "*cannot be prepared for tests: *prepared for 'command'*",
        ]
    )
    assert "Traceback" not in result.stdout.str()


def test_options(project: Project) -> None:
    """Tests and databases are left out where the conftest says so; a slip of the pen is told."""
    made = project("sqlite", "good", "left")
    left_out = "databases=['good'], skip=['rehearsal', 'offline_sql']"
    write(
        made, "conftest.py", CONFTEST.replace("(ShipApplication)", f"(ShipApplication, {left_out})")
    )
    run(made).assert_outcomes(passed=4)
    write(
        made, "conftest.py", CONFTEST.replace("(ShipApplication)", "(ShipApplication, skip='up')")
    )
    result = run(made)
    assert 4 == result.ret
    result.stderr.fnmatch_lines(["*InvalidArgument: migration_tests(skip=...) names 'up'*"])


CLASSES = """
import pytest
from qapla_db.errors import RehearsalFailed
from qapla_db.testing import BaseApplicationFixture, fixtures_for
from objects import application as the_one
from ships import ShipApplication

class TestShips(BaseApplicationFixture):
    APP_CLASS = ShipApplication
    DATABASE_KEY = "good"

    def test_it(self, application, dbsession, rehearse):
        assert application is the_one
        dbsession.connection().exec_driver_sql("DELETE FROM ship")
        dbsession.commit()
        report = rehearse("good", rows=20)
        assert report.ok and ("a1",) == report.start and 20 == report.rows
        assert ("a1", "a2") == (*rehearse("good", start="base").start, "a1", "a2")
        with pytest.raises(AssertionError, match="lost rows: 7 of 7 rows of ship .by a2.") as info:
            rehearse("rows", rows=7)
        assert isinstance(info.value, RehearsalFailed)
        assert "qapla-db rehearse rows --from a1 --tests" in str(info.value)
        count = dbsession.connection().exec_driver_sql("SELECT count(*) FROM ship")
        assert 0 == count.scalar()
"""


@pytest.mark.parametrize("kind", ["postgresql", "sqlite"])
def test_beside_others(project: Project, kind: str) -> None:
    """They and the fixtures of tests use the object that the tests' modules make."""
    made = project(kind, "good", "rows")
    write(
        made, "objects.py", "from ships import ShipApplication\napplication = ShipApplication()\n"
    )
    write(made, "test_it.py", CLASSES)
    result = run(made, "-k", "test_it or single_head or rehearsal")
    assert {"rows": {"rehearsal"}} == outcomes(result, "FAILED")
    result.assert_outcomes(passed=4, failed=1, deselected=8)
