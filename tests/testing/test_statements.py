"""What a sandbox takes a statement for."""

from __future__ import annotations

import pytest

from qapla_db.testing.sandboxes.statements import Kind, Statement, parse

KINDS = [
    ("SELECT 1", Kind.READ),
    ("  -- a remark\n/* another */ (SELECT 1) UNION (SELECT 2)", Kind.READ),
    ("with n as (select 1) select * from n", Kind.READ),
    ("SELECT updated, deleted FROM inserts", Kind.READ),
    ("EXPLAIN SELECT 1", Kind.READ),
    ("SELECT 'it''s into this' AS \"into that\", `into`, into_it FROM item", Kind.READ),
    ("SELECT name INTO @name FROM item", Kind.READ),
    ("SELECT name INTO TEMP more FROM item", Kind.DEFINE),
    ("PRAGMA foreign_keys", Kind.READ),
    ("PRAGMA user_version = 5", Kind.OTHER),
    ("SELECT ';' ;\n", Kind.READ),
    ("SELECT 1; DELETE FROM item", Kind.OTHER),
    ("WITH n AS (SELECT 'update for update') SELECT * FROM n", Kind.READ),
    ("SELECT * FROM item FOR UPDATE OF item", Kind.LOCK),
    ("SELECT * FROM item FOR NO KEY UPDATE", Kind.LOCK),
    ("SELECT * FROM item LOCK IN SHARE MODE", Kind.LOCK),
    ("INSERT INTO item SELECT 1", Kind.WRITE),
    ("/* why */ update item set name = 'x'", Kind.WRITE),
    ("WITH gone AS (DELETE FROM item RETURNING *) SELECT * FROM gone", Kind.WRITE),
    ("EXPLAIN ANALYZE DELETE FROM item", Kind.WRITE),
    ("COPY item FROM STDIN", Kind.WRITE),
    ("TRUNCATE item", Kind.WRITE),
    ("CREATE TABLE item (id int)", Kind.DEFINE),
    ("SET LOCAL lock_timeout = 1", Kind.READ),
    ("SET lock_timeout = 1", Kind.OTHER),
    ("SET LOCAL TRANSACTION READ ONLY", Kind.OTHER),
    ("SET LOCAL lock_timeout = 1; DELETE FROM item", Kind.OTHER),
    ("CALL something()", Kind.OTHER),
    ("", Kind.OTHER),
]


@pytest.mark.parametrize("text, kind", KINDS)
def test_kinds(text: str, kind: Kind) -> None:
    """Reads, locks, writes and definitions are told apart by their words."""
    assert Statement(kind) == parse(text)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("SAVEPOINT sa_savepoint_1", Statement(Kind.SAVEPOINT, "sa_savepoint_1")),
        ('savepoint "Mine";', Statement(Kind.SAVEPOINT, "Mine")),
        ("SAVEPOINT Mine", Statement(Kind.SAVEPOINT, "mine")),
        ("RELEASE SAVEPOINT one", Statement(Kind.RELEASE, "one")),
        ("RELEASE one", Statement(Kind.RELEASE, "one")),
        ("ROLLBACK TO SAVEPOINT one", Statement(Kind.ROLLBACK_TO, "one")),
        ("ROLLBACK WORK TO one", Statement(Kind.ROLLBACK_TO, "one")),
        ("ROLLBACK", Statement(Kind.OTHER)),
    ],
)
def test_savepoints(text: str, expected: Statement) -> None:
    """Statements about savepoints give the name, as the server would compare it."""
    assert expected == parse(text)
