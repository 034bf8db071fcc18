"""A deployment from its first to its second version, by the commands alone."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cli.conftest import Files
from tests.cli.test_init import models, newcomer
from tests.conftest import FreshURL
from tests.migrations.project import rows


def test_deployment(files: Files, fresh_url: FreshURL, monkeypatch: pytest.MonkeyPatch) -> None:
    """ensure, drop, upgrade, rows, other models, revision, upgrade: all rows are kept."""
    url = fresh_url("postgresql")
    newcomer(files, "main")
    files.write({"shop/models.py": models()})
    monkeypatch.setenv("QAPLA_DB_MAIN_URL", url.render_as_string(hide_password=False))

    def run(*arguments: str, code: int = 0) -> Any:
        files.forget()  # each command is a process of its own to the project
        return files.cli(*arguments, code=code).output

    run("init")
    run("revision", "-m", "items")
    assert "created" in run("ensure")
    run("drop", "--yes", "main")
    assert "upgrade --create" in run("upgrade", code=3)
    run("upgrade", "--create")
    rows(url, "INSERT INTO item (id) VALUES (7)")

    more = models() + "        name: Mapped[str] = mapped_column(server_default='none')\n"
    files.write({"shop/models.py": more})
    assert "drift" in run("status", code=1)
    assert "wrote migrations/main/versions/" in run("revision", "-m", "names")
    assert "lacks" in run("status", code=1)
    assert "nothing found" in run("rehearse", "--rows", "5")
    run("upgrade")
    assert [(7, "none")] == rows(url, "SELECT id, name FROM item")
    assert "ready" in run("status")
    assert "" == run("check")
