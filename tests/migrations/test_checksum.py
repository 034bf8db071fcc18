"""When the file of a revision counts as edited."""

from __future__ import annotations

import hashlib
import textwrap
from pathlib import Path

import pytest

from qapla_db.migrations.checksum import checksum_of, is_edited

REVISION = '''\
"""Airports

Revises: base
"""
import sqlalchemy as sa
from alembic import op

revision = 'a1'
down_revision = None


def upgrade():
    op.create_table('airport', sa.Column('id', sa.Integer, primary_key=True))
    if op.get_context().as_sql:
        op.execute(f'SELECT {revision!r}')
        op.execute("SELECT 'x\\d'")


def downgrade():
    """All the way."""
    op.drop_table('airport')
'''


def applied(path: Path, text: str | bytes = REVISION) -> str:
    """Write a file and return its checksum."""
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    found = checksum_of(path)
    assert found is not None
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a1_.py"


@pytest.mark.parametrize(
    "old, new",
    [
        ("    op.drop", "    # qapla: allow drop-table, nobody reads it\n    op.drop"),
        ("\n    op.drop_table('airport')", "\n\n    op.drop_table('airport')  # why not"),
        ("'", '"'),
        (
            "sa.Integer, primary_key=True)",
            "\n        sa.Integer, primary_key=True,\n    )",
        ),
        ("Revises: base", "Revises: nothing"),
        ('    """All the way."""\n', ""),
        ("\n", "\r\n"),
        ("down_revision = None", "down_revision = (None)"),
    ],
    ids=["allow", "comment", "quotes", "lines", "docstring", "none", "line-ends", "parentheses"],
)
def test_same_code(path: Path, old: str, new: str) -> None:
    """Comments, docstrings and formatting are no edit."""
    text = REVISION.replace("\"SELECT 'x\\d'\"", "'y'") if new == '"' else REVISION
    before = applied(path, text)
    assert old in text
    path.write_bytes(text.replace(old, new).encode())
    assert not is_edited(path, before)


@pytest.mark.parametrize(
    "old, new",
    [
        ("op.drop_table('airport')", "op.drop_table('runway')"),
        ("primary_key=True", "primary_key=False"),
        ("        op.execute(\"SELECT 'x\\d'\")", "    op.execute(\"SELECT 'x\\d'\")"),
        ("    op.drop_table('airport')\n", ""),
        ("down_revision = None", "down_revision = ''"),
        ("(f'SELECT {revision!r}')", "(f'SELECT {revision!s}')"),
        ("(f'SELECT {revision!r}')", "(f'SELECT {revision!r} ')"),
        ("def downgrade():", "def downgrade(:"),
        ("'airport', sa.Column", "*'airport', sa.Column"),
    ],
)
def test_other_code(path: Path, old: str, new: str) -> None:
    """Any word of the code that changes is an edit, and so is one that breaks it."""
    before = applied(path)
    assert old in REVISION
    path.write_text(REVISION.replace(old, new))
    assert is_edited(path, before)


@pytest.mark.parametrize("text", [b"def (", b"a = '\0'", b"# coding: nope\n", b"\xff", b"(" * 9999])
def test_broken_file(path: Path, text: bytes) -> None:
    """A file that is no Python has a checksum too, that of its bytes."""
    assert hashlib.sha256(text).hexdigest() == applied(path, text)


def test_bytes_that_were_recorded(path: Path) -> None:
    """What was recorded of the bytes of a file holds while they are the same."""
    recorded = hashlib.sha256(REVISION.encode()).hexdigest()
    assert recorded != applied(path)
    assert not is_edited(path, recorded)
    path.write_text(f"{REVISION}\n# more\n")
    assert is_edited(path, recorded)


def test_every_version_of_python(path: Path) -> None:
    """A checksum is what it was in the database of another version of Python."""
    text = """
        def upgrade() -> None:
            x: int | None = lambda a, /, *b, c=1, **d: {**d, 'k': (1, 2.5, None, ..., b'e', 'ü')}
            for _ in f'{x:>{a}}' 'y', *[i for i in b if i]:
                pass
    """
    known = "0f5bba4530485542f00d9ebf761f1b1d5ab4bf3ebda2685d8a7a220de37af4ea"
    assert known == applied(path, textwrap.dedent(text))


def test_no_source(tmp_path: Path) -> None:
    """What is compiled, or not there, has no checksum and cannot have been edited."""
    compiled = tmp_path / "one.pyc"
    compiled.write_bytes(b"")
    for path in (compiled, tmp_path / "none.py", None):
        assert checksum_of(path) is None
        assert not is_edited(path, "x")
