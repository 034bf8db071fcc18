"""Where databases stand, whether they are up or down."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy import event

from qapla_db import Database
from qapla_db.backends import safe_url
from qapla_db.errors import MigrationError
from qapla_db.migrations import assert_migrated, downgrade, migrate, status_of
from tests.conftest import FreshURL
from tests.migrations.conftest import MakeProject
from tests.migrations.project import Project, rows, tables
from tests.migrations.test_lock import held
from tests.support import make_application

CREATE = "op.create_table({!r}, sa.Column('id', sa.Integer, primary_key=True))"
DROP = "op.drop_table({!r})"
ONE_TABLE = """
Model = sa.MetaData()
sa.Table("airport", Model, sa.Column("id", sa.Integer, primary_key=True))
"""


def three_steps(project: Project) -> None:
    for number, table in enumerate(("airport", "runway", "gate"), 1):
        after = f"a{number - 1}" if number > 1 else None
        project.revision(f"a{number}", CREATE.format(table), DROP.format(table), after=after)


def remove(project: Project, revision: str) -> None:
    """Make the code older than the database."""
    (project.directory("main") / "versions" / f"{revision}_.py").unlink()


@pytest.fixture(params=["postgresql", "mariadb"])
def silent(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a server that accepts connections and says nothing, for 30 seconds at most."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        limit = threading.Timer(30, server.close)
        limit.start()
        yield f"{request.param}://nobody:hush@127.0.0.1:{server.getsockname()[1]}/shop"
        limit.cancel()


# --- status


def test_from_nothing_to_head(project: Project, each_url: sa.URL) -> None:
    """Before, halfway and at head: what it is at, what an upgrade would apply, ready or not."""
    three_steps(project)
    database = project.database()
    empty = status_of(database)
    assert ((), ("a3",), ("a1", "a2", "a3"), False) == (
        empty.current,
        empty.heads,
        empty.pending,
        empty.ready,
    )
    assert (True, True, None, None) == (empty.reachable, empty.exists, empty.problem, empty.drift)
    assert [] == tables(each_url), "looking creates nothing"
    migrate(database, "a2")
    halfway = status_of(database)
    assert (("a2",), ("a3",), False) == (halfway.current, halfway.pending, halfway.ready)
    migrate(database)
    done = status_of(database)
    assert (("a3",), (), True) == (done.current, done.pending, done.ready)
    assert safe_url(database.settings.url) == done.address
    kind = {"postgresql": "PostgreSQL ", "mariadb": "MariaDB ", "sqlite": "SQLite "}
    assert done.server is not None
    assert done.server.startswith(kind[each_url.get_backend_name()])
    assert done.server[-1].isdigit()


def test_silent_server(make_project: MakeProject, silent: str) -> None:
    """A server that accepts a connection and says nothing is known as such within seconds."""
    project = make_project({"main": silent})
    three_steps(project)
    began = time.monotonic()
    found = status_of(project.database(), drift=True)
    assert time.monotonic() - began < 10
    assert (None, False, False) == (found.exists, found.reachable, found.ready)
    assert "does not answer" in str(found.problem)


def test_as_json(project: Project) -> None:
    """The status can be printed as JSON and says the same there."""
    three_steps(project)
    database = project.database()
    migrate(database, "a1")
    found = json.loads(json.dumps(status_of(database).as_json()))
    assert "main" == found["name"]
    assert (["a1"], ["a2", "a3"], False) == (found["current"], found["pending"], found["ready"])


def test_drift(project: Project) -> None:
    """Where the models differ from the database is said in words, when it is asked for."""
    project.write_env("main", ONE_TABLE)
    project.revision("a1", CREATE.format("airport"))
    database = project.database()
    assert None is status_of(database, drift=True).drift, "behind, it differs anyway"
    migrate(database)
    assert () == status_of(database, drift=True).drift
    assert None is status_of(database).drift
    project.write_env(
        "main",
        """
        Model = sa.MetaData()
        sa.Table("airport", Model, sa.Column("id", sa.Integer, primary_key=True),
                 sa.Column("code", sa.String(4), index=True))
        sa.Table("runway", Model, sa.Column("id", sa.Integer, primary_key=True))
        """,
    )
    found = status_of(database, drift=True)
    assert found.drift is not None
    changes = [
        "add column airport.code",
        "add index ix_airport_code on airport",
        "add table runway",
    ]
    assert changes == sorted(found.drift)
    assert found.ready, "differing is not being behind"


def test_changed_column(project: Project) -> None:
    """A column that has changed is named with what it was and what it becomes."""
    project.write_env(
        "main",
        "Model = sa.MetaData()\n"
        "sa.Table('airport', Model, sa.Column('code', sa.String(8), nullable=False))",
    )
    project.revision("a1", "op.create_table('airport', sa.Column('code', sa.String(4)))")
    database = project.database()
    migrate(database)
    found = status_of(database, drift=True).drift
    assert found is not None
    assert 2 == len(found)
    nullable, kind = sorted(found)
    assert "modify nullable of airport.code: True becomes False" == nullable
    assert kind.startswith("modify type of airport.code: VARCHAR(")
    assert kind.endswith("becomes String(length=8)")


def test_who_migrates(make_project: MakeProject, server_database_url: sa.URL) -> None:
    """Who migrates at this moment is named."""
    project = make_project({"main": server_database_url})
    three_steps(project)
    database = project.database()
    assert None is status_of(database).migrating
    with held(server_database_url):
        found = status_of(database)
    assert found.migrating is not None
    assert "connection" in found.migrating or "server process" in found.migrating
    assert found.reachable


def test_while_sqlite_is_migrated(make_project: MakeProject, fresh_url: FreshURL) -> None:
    """SQLite answers while it is migrated, though it does not tell who does it."""
    url = fresh_url("sqlite")
    project = make_project({"main": url})
    three_steps(project)
    database = project.database()
    migrate(database, "a1")
    with held(url):
        found = status_of(database)
    assert (("a1",), True) == (found.current, found.reachable)


def test_newer_code_was_here(project: Project) -> None:
    """A database that newer code has migrated further is ready for this code."""
    three_steps(project)
    database = project.database()
    migrate(database)
    remove(project, "a3")
    found = status_of(database)
    assert (("a3",), ("a3",), (), True) == (
        found.current,
        found.unknown,
        found.pending,
        found.ready,
    )
    assert_migrated(database.host)


def test_unknown_revision_without_a_record(project: Project, each_url: sa.URL) -> None:
    """Where nothing tells what an unknown revision builds upon, it is a problem."""
    three_steps(project)
    database = project.database()
    migrate(database)
    rows(each_url, "DROP TABLE qapla_db_record")
    remove(project, "a3")
    found = status_of(database)
    assert (None, False) == (found.pending, found.ready)
    assert found.problem is not None
    assert "'main' is at a3, which " in found.problem
    with pytest.raises(MigrationError, match="'main' is at a3, which"):
        assert_migrated(database.host)


def test_two_heads(project: Project) -> None:
    """Two heads are two heads, and both are pending."""
    three_steps(project)
    project.revision("b3", CREATE.format("tower"), after="a2")
    database = project.database()
    migrate(database, "a3")
    found = status_of(database)
    assert (("a3", "b3"), ("b3",)) == (found.heads, found.pending)


def test_recorded_as_another(project: Project) -> None:
    """A copy of production says so, and is not ready: it is not the database that is meant."""
    three_steps(project)
    settings = {"db:main:environment": "production"}
    migrate(project.application().run_command(settings).dbs["main"])
    found = status_of(project.database())
    assert found.problem is not None
    assert "recorded as main@production" in found.problem
    assert ((), False) == (found.pending, found.ready)


def test_middle_revision_deleted(make_project: MakeProject, fresh_url: FreshURL) -> None:
    """A revision that others build upon and whose file is gone is a problem in the status."""
    project = make_project({"main": fresh_url("sqlite")})
    three_steps(project)
    migrate(project.database())
    remove(project, "a2")
    found = status_of(project.database(), drift=True)
    assert (True, False) == (found.reachable, found.ready)
    assert found.problem is not None
    assert "a2" in found.problem


@pytest.mark.parametrize(
    "text, problem",
    [("def upgrade(:\n", "SyntaxError"), ("import no_such_module\n", "no_such_module")],
    ids=["syntax", "import"],
)
def test_broken_revision(
    make_project: MakeProject, fresh_url: FreshURL, text: str, problem: str
) -> None:
    """A file that Python cannot run is a problem in the status."""
    project = make_project({"main": fresh_url("sqlite")})
    three_steps(project)
    database = project.database()
    migrate(database)
    (project.directory("main") / "versions" / "a2_.py").write_text(text)
    found = status_of(database)
    assert (True, False) == (found.reachable, found.ready)
    assert found.problem is not None
    assert problem in found.problem


def test_version_table_of_the_user(make_project: MakeProject, fresh_url: FreshURL) -> None:
    """A version table that env.py names is the one that is asked."""
    project = make_project({"main": fresh_url("sqlite")})
    three_steps(project)
    project.write_env("main", version_table="versions")
    database = project.database()
    migrate(database)
    assert status_of(database).ready
    assert_migrated(database.host)


@pytest.mark.parametrize("kind", ["postgresql", "mariadb", "sqlite"])
def test_missing_database(make_project: MakeProject, fresh_url: FreshURL, kind: str) -> None:
    """A database that does not exist is reported, with its heads, and not created."""
    project = make_project({"main": fresh_url(kind)})
    three_steps(project)
    database = project.database()
    found = status_of(database, drift=True)
    assert (False, False, False) == (found.exists, found.reachable, found.ready)
    assert ("a3",) == found.heads
    assert found.problem is not None
    assert "'main'" in found.problem
    with pytest.raises(MigrationError, match=r"'main' at .* cannot be asked"):
        assert_migrated(database.host)
    assert not database.exists()


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_server_that_is_down(make_project: MakeProject, kind: str) -> None:
    """A server that is down is a status like another one, without the password."""
    url = sa.make_url(f"{kind}://ann:s3cr3t@127.0.0.1:9/no_such_test")
    project = make_project({"main": url})
    three_steps(project)
    database = project.database()
    found = status_of(database)
    assert (None, False, False) == (found.exists, found.reachable, found.ready)
    assert found.problem is not None
    assert "s3cr3t" not in json.dumps(found.as_json())
    with pytest.raises(MigrationError, match="cannot be asked") as caught:
        assert_migrated(database.host)
    assert "s3cr3t" not in str(caught.value)


def test_no_directory(make_project: MakeProject, fresh_url: FreshURL) -> None:
    """A migrations directory that is not there is a problem of a database that answers."""
    project = make_project({"main": fresh_url("sqlite")})
    database = project.database()
    database.create()
    (project.directory("main") / "env.py").unlink()
    found = status_of(database)
    assert found.reachable
    assert found.problem is not None
    assert "has no env.py" in found.problem
    assert not found.ready


# --- at the start


def test_start(project: Project, each_url: sa.URL) -> None:
    """A process does not start on a database that is behind; the error says what to run."""
    three_steps(project)
    database = project.database()
    with pytest.raises(MigrationError, match=r"'main' at .* is at base and lacks a1, a2, a3\. Run"):
        assert_migrated(database.host)
    assert [] == tables(each_url)
    migrate(database, "a2")
    with pytest.raises(MigrationError, match=r"is at a2 and lacks a3\. Run: qapla-db upgrade main"):
        assert_migrated(database.host)
    migrate(database)
    assert_migrated(database.host)
    downgrade(database, "a1")
    with pytest.raises(MigrationError, match="is at a1 and lacks a2, a3"):
        assert_migrated(database.host)


def test_start_with_several(make_project: MakeProject, fresh_url: FreshURL) -> None:
    """Each database that is behind is named, those that are not are not."""
    names = ("main", "audit", "third")
    project = make_project({name: fresh_url("sqlite") for name in names})
    for name in names:
        project.revision(f"{name}1", CREATE.format("airport"), name=name)
    app = project.application().run_command()
    for database in app.dbs.values():
        database.create()
    migrate(app.dbs["audit"])
    with pytest.raises(MigrationError, match="Run: qapla-db upgrade main third") as caught:
        assert_migrated(app)
    assert "'audit'" not in str(caught.value)


@pytest.fixture
def statements() -> Iterator[list[str]]:
    """What is sent to any database meanwhile."""
    sent: list[str] = []

    def note(*arguments: object) -> None:
        sent.append(str(arguments[2]))

    event.listen(sa.Engine, "before_cursor_execute", note)
    yield sent
    event.remove(sa.Engine, "before_cursor_execute", note)


def test_start_is_cheap(project: Project, statements: list[str]) -> None:
    """One question is asked of a database that is migrated."""
    three_steps(project)
    database = project.database()
    migrate(database)
    assert_migrated(database.host)
    statements.clear()
    assert_migrated(database.host)
    asked = [one for one in statements if not one.startswith(("BEGIN", "PRAGMA", "START", "SET"))]
    assert 1 == len(asked), asked
    assert "version_num" in asked[0]


def test_start_without_migrations(fresh_url: FreshURL) -> None:
    """A database that is not migrated by this application is passed over."""
    with make_application({"main": fresh_url("sqlite")}) as app:
        assert_migrated(app)


def test_start_in_threads(make_project: MakeProject, fresh_url: FreshURL) -> None:
    """Several threads may ask at once, as readiness probes do."""
    project = make_project({"main": fresh_url("sqlite")})
    three_steps(project)
    database = project.database()
    migrate(database)
    ready: list[bool] = []

    def ask(one: Database) -> None:
        ready.append(status_of(one).ready)

    threads = [threading.Thread(target=ask, args=(database,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [True] * 4 == ready
