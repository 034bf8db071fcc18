"""The settings of the reference application."""

from __future__ import annotations

from pathlib import Path

import pytest
from morfdict import Paths

from qapla_db.settings import Settings, database_settings
from settings import default, tests


@pytest.mark.parametrize("name", ["main", "audit"])
def test_tests_do_not_build_on_local(tmp_path: Path, name: str) -> None:
    """Whatever a developer's ``local.py`` sets, the tests have databases of their own."""
    settings, paths = Settings(), Paths()
    paths.set("project_root", str(tmp_path))
    default.make_settings(settings, paths)
    settings[f"db:{name}:url"] = "postgresql://me@localhost/rotarran"
    tests.make_settings(settings, paths)
    url = database_settings(settings, name, endpoint="tests", environ={}).url
    assert str(tmp_path / "var-tests" / "postgresql") == url.database
    assert f"rotarran_{name}_test" == url.query["database"]
