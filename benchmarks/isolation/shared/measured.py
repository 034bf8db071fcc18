"""A plugin of pytest that writes down how long each test took, all in all, and how it ended."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

_seconds: list[float] = []
_failed: set[str] = set()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol() -> Iterator[object]:
    began = time.perf_counter()
    try:
        return (yield)
    finally:
        _seconds.append(time.perf_counter() - began)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.failed:
        _failed.add(report.nodeid.rpartition("::")[2])


def pytest_sessionfinish() -> None:
    found = {"seconds": _seconds, "failed": sorted(_failed)}
    Path(os.environ["MEASURED"]).write_text(json.dumps(found))
