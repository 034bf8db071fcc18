"""The room without Celery, as for an application that has no tasks."""

from __future__ import annotations

import subprocess
import sys
import textwrap

BLOCK = """
    import sys

    class Missing:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in ("celery", "kombu", "billiard"):
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    sys.meta_path.insert(0, Missing())
"""
USE = """
    from qapla_db.decorators import INJECTED, WithDatabase
    from tests.support import make_application

    with make_application({"main": "sqlite://"}) as app:

        @WithDatabase(app)
        def one(main=INJECTED):
            from sqlalchemy import text
            return main.scalar(text("SELECT 1"))

        print(one())
"""


def run(*parts: str) -> subprocess.CompletedProcess[str]:
    """Run code in an interpreter of its own."""
    code = "\n".join(map(textwrap.dedent, parts))
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_functions_have_sessions_without_celery() -> None:
    """Where Celery is not installed, decorated functions work."""
    ended = run(BLOCK, USE)
    assert "1\n" == ended.stdout, ended.stderr


def test_celery_is_not_imported_for_nothing() -> None:
    """Where Celery is installed, it is not imported before it is used."""
    ended = run(USE, "import sys; print([name for name in sys.modules if 'celery' in name])")
    assert "1\n['qapla_db.tasks.celery']\n" == ended.stdout, ended.stderr


def test_connecting_without_celery_names_what_is_missing() -> None:
    """connect_celery() fails with Python's own error."""
    ended = run(BLOCK, "from qapla_db.decorators import connect_celery; connect_celery(1, 2)")
    assert ended.stderr.endswith("ModuleNotFoundError: No module named 'celery'\n")
