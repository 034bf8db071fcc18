"""Databases in a host of another make: settings and paths, and nothing of ours."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from morfdict import Paths

from qapla_db import Database, DatabaseMixin
from qapla_db.errors import Closed, NotPrepared
from qapla_db.migrations import current, migrate
from tests.support import SmallApplication

ENV = """
import sqlalchemy as sa
from qapla_db.env import AlembicEnv

AlembicEnv(None, sa.MetaData(), "main").run()  # migrate() hands the host over
"""

REVISION = """
from alembic import op
import sqlalchemy as sa

revision, down_revision = "a1", None


def upgrade():
    op.create_table("ship", sa.Column("id", sa.Integer, primary_key=True))
"""


class OtherHost(DatabaseMixin):
    """A host that loads its settings when it is made, and has neither endpoint nor prepare()."""

    def __init__(self, root: Path) -> None:
        self.settings = {
            "db:main:url": f"sqlite:///{root / 'main.sqlite3'}",
            "db:audit:url": f"sqlite:///{root / 'audit.sqlite3'}",
        }
        self.paths = Paths()
        self.paths.set("migrations_main", str(root / "migrations"))


class Stubborn(Database):
    """A database whose close fails."""

    def close(self) -> None:
        super().close()
        raise RuntimeError(f"{self.name} does not close")


@pytest.fixture
def host(tmp_path: Path) -> OtherHost:
    """A host with the migrations of main."""
    versions = tmp_path / "migrations" / "versions"
    versions.mkdir(parents=True)
    (versions.parent / "env.py").write_text(ENV)
    (versions / "a1_.py").write_text(REVISION)
    return OtherHost(tmp_path)


def test_the_whole_life(host: OtherHost) -> None:
    """A host prepares its databases, migrates one, uses it and closes them; nothing is left out."""
    with pytest.raises(NotPrepared, match="OtherHost has no databases"):
        host.dbs  # noqa: B018
    host.add_database_app([Database("main", "migrations_main"), Database("audit")])
    main = host.dbs["main"]
    host.dbs["audit"].create()
    migrate(main)
    assert ("a1",) == current(main)
    with main.session() as session, host.dbs["audit"].session() as other:
        session.execute(sa.text("INSERT INTO ship (id) VALUES (7)"))
        session.commit()
        assert 7 == session.scalar(sa.text("SELECT id FROM ship"))
        assert 1 == other.scalar(sa.text("SELECT 1"))
    pools = [database.engine.pool for database in host.dbs.values()]
    assert [(0, 1), (0, 1)] == [(pool.checkedout(), pool.checkedin()) for pool in pools]  # type: ignore[attr-defined]
    host.close_databases()
    assert [(0, 0), (0, 0)] == [(pool.checkedout(), pool.checkedin()) for pool in pools]  # type: ignore[attr-defined]
    with pytest.raises(Closed):
        main.session()


def test_close_even_if_one_fails(host: OtherHost, caplog: pytest.LogCaptureFixture) -> None:
    """Every database is closed, the last one first; the first error is raised, all are logged."""
    databases = [Stubborn("main"), Stubborn("audit")]
    host.add_database_app(databases)
    for database in databases:
        database.create()
        database.ping()
    with pytest.raises(RuntimeError, match="audit does not close"):
        host.close_databases()
    for database in databases:
        with pytest.raises(Closed):
            database.settings  # noqa: B018
    assert 2 == sum("could not be closed" in record.message for record in caplog.records)


def test_close_without_databases_and_again(host: OtherHost) -> None:
    """Closing what has no databases does nothing, and a closed host can register them anew."""
    host.close_databases()
    for _ in range(2):
        host.add_database_app([Database("main")])
        host.dbs["main"].create()
        assert host.dbs["main"].ping() > 0
        host.close_databases()
        host.close_databases()
        with pytest.raises(NotPrepared):
            host.dbs  # noqa: B018


def test_close_databases_of_an_application() -> None:
    """An application of ours whose databases were closed by hand closes all the same."""
    app = SmallApplication().run_command({"db:main:url": "sqlite://"})
    main = app.dbs["main"]
    app.close_databases()
    with pytest.raises(Closed):
        main.ping()
    app.close()
    assert "closed" == app.phase
