"""What a run asserts at its end: a test that leaks a connection or a transaction is noticed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

import tests.conftest
from tests.conftest import FreshURL
from tests.support import make_application

ROOT = Path(tests.conftest.__file__).parent.parent


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """Runs of pytest with the fixtures of these tests, in processes of their own."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makeconftest("from tests.conftest import mariadb_url, nothing_checked_out")
    return pytester


HOLD = """
import pytest
import sqlalchemy as sa
from tests.support import make_application

held = []

def hold(pool):
    app = make_application(
        {{"main": "sqlite:///held.sqlite3"}},
        settings={{"db:main:options": {{"poolclass": pool}}}},
    )
    held.append(app.dbs["main"].engine.connect())
    return app

@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize(
    "pool", [sa.QueuePool, sa.NullPool, sa.StaticPool, sa.SingletonThreadPool]
)
def test_hold(pool, closed):
    app = hold(pool)
    if closed:
        app.close()
    if {garbage}:
        cycle = [held.pop()]
        cycle.append(cycle)
"""


def test_connections_that_are_held(run: pytest.Pytester) -> None:
    """A run fails that ends with connections in use, whatever the pool, closed or not."""
    run.makepyfile(HOLD.format(garbage=False))
    result = run.runpytest_subprocess("-q")
    result.assert_outcomes(passed=8, errors=1)
    result.stdout.fnmatch_lines(
        ["*the run left connections checked out*", "*Right contains 8 more items*"]
    )


def test_connections_that_nobody_holds(run: pytest.Pytester) -> None:
    """What was dropped, if only for the garbage collector, fails no run."""
    run.makepyfile(HOLD.format(garbage=True))
    run.runpytest_subprocess("-q").assert_outcomes(passed=8)


TRANSACTION = """
import os
import sqlalchemy as sa

held = []

def test_hold(mariadb_url):
    name = f"leak_test_{{os.getpid()}}"
    fairy = sa.create_engine(mariadb_url).raw_connection()
    held.append(fairy.driver_connection)
    fairy.detach()
    with held[0].cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {{name}}")
        cursor.execute(f"USE {{name}}")
        cursor.execute("CREATE TABLE item (id INT PRIMARY KEY)")
        cursor.execute("INSERT INTO item VALUES (1)")
    if not {leaks}:
        held[0].commit()
"""


@pytest.fixture
def left_behind(mariadb_url: sa.URL) -> Iterator[None]:
    """Drops the databases that the runs of a test have made."""
    yield
    engine = sa.create_engine(mariadb_url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        for name in connection.scalars(sa.text("SHOW DATABASES LIKE 'leak_test_%'")).all():
            connection.exec_driver_sql(f"DROP DATABASE {name}")


@pytest.mark.usefixtures("left_behind")
def test_a_transaction_in_mariadb(
    run: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    mariadb_url: sa.URL,
    fresh_url: FreshURL,
) -> None:
    """A run fails that ends in a transaction of its own, and not because of another's."""
    monkeypatch.setenv("QAPLA_TEST_MARIADB_URL", mariadb_url.render_as_string(hide_password=False))
    with make_application({"main": fresh_url("mariadb")}) as app:
        app.dbs["main"].create()
        with app.dbs["main"].session() as session:
            session.execute(sa.text("CREATE TABLE item (id INT PRIMARY KEY)"))
            session.execute(sa.text("INSERT INTO item VALUES (1)"))
            run.makepyfile(TRANSACTION.format(leaks=False))
            run.runpytest_subprocess("-q").assert_outcomes(passed=1)
            run.makepyfile(TRANSACTION.format(leaks=True))
            result = run.runpytest_subprocess("-q")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*the run left transactions open in MariaDB*"])
