"""The pytest plugin, found through the entry point ``pytest11``.

Nothing happens in a run that does not use it: not even SQLAlchemy is imported.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from qapla_db.testing.run import TestRun

SHOWN = 10
"""Tests in the summary, unless another number is asked for."""

_PROPERTY = "qapla_db_queries"

_STRICT = "qapla_db_strict"

_MARKS = (
    "real_commit: the test commits for real, and the databases are restored after it (qapla_db)",
    "database(name, ...): the test may use these databases and no others (qapla_db)",
    "qapla_db_migrations: tests of migrations, on scratch databases",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--db-queries``, ``--db-rebuild`` and the option ``qapla_db_strict``."""
    group = parser.getgroup("qapla_db")
    group.addoption(
        "--db-queries",
        nargs="?",
        const=SHOWN,
        type=_count,
        metavar="N",
        help="show the N tests that sent the most statements to databases (default: 10)",
    )
    group.addoption(
        "--db-rebuild",
        action="store_true",
        help="migrate the test databases from nothing, and make their templates anew",
    )
    parser.addini(
        _STRICT,
        "a test may use no database but those of its mark 'database' and that of its dbsession",
        type="bool",
        default=False,
    )


def _count(text: str) -> int:
    count = int(text) if text.isdecimal() else 0
    if count < 1:
        raise argparse.ArgumentTypeError(f"a number of tests, 1 or more, and not {text!r}")
    return count


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks, and count statements where it is asked for."""
    for mark in _MARKS:
        config.addinivalue_line("markers", mark)
    count = config.getoption("--db-queries")
    if count is not None:
        config.pluginmanager.register(_Summary(count), _PROPERTY)


class _Summary:
    """Counts the statements of each test, and shows the greatest counts.

    A test's count travels in its report, so that of a worker of pytest-xdist arrives too.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._counts: dict[str, int] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        from qapla_db.testing.queries import recorded

        with recorded() as queries:
            try:
                return (yield)
            finally:
                item.user_properties.append((_PROPERTY, len(queries)))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            self._counts[report.nodeid] = int(dict(report.user_properties).get(_PROPERTY, 0))  # type: ignore[call-overload]

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        most = sorted(self._counts.items(), key=lambda one: -one[1])[: self._count]
        terminalreporter.section("most statements to databases")
        for nodeid, count in most:
            if count:
                terminalreporter.write_line(f"{count:6} {nodeid}")


@pytest.fixture(scope="session")
def qapla_db_run(pytestconfig: pytest.Config) -> Iterator[TestRun]:
    """The applications that this run has prepared."""
    from qapla_db.testing.run import TestRun

    run = TestRun(
        rebuild=pytestconfig.getoption("--db-rebuild"), strict=pytestconfig.getini(_STRICT)
    )
    yield run
    run.close()
