"""What a sandbox takes a statement for."""

from __future__ import annotations

import pytest

from qapla_db.testing.sandboxes.statements import Kind, Statement, parse, without_passwords

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


@pytest.mark.parametrize(
    "text, calls",
    [
        ("SELECT count(*), lower(name) FROM item WHERE id IN (1, 2) AND (amount > 0)", False),
        ("SELECT pg_catalog.pg_get_userbyid(1)", False),
        ("SELECT nextval('numbers')", False),
        ("SELECT store_item('one')", True),
        ('SELECT "Store"(1)', True),
        ("SELECT shop.count(1)", True),
    ],
)
def test_calls(text: str, calls: bool) -> None:
    """A read that calls a function which is not known to write nothing may write."""
    assert Statement(Kind.READ, calls=calls) == parse(text)


@pytest.mark.parametrize(
    "text, shown",
    [
        ("CREATE ROLE one PASSWORD 'it''s' LOGIN", "CREATE ROLE one PASSWORD '***' LOGIN"),
        ("CREATE USER one IDENTIFIED BY 'x'", "CREATE USER one IDENTIFIED BY '***'"),
        ("SET PASSWORD = PASSWORD('x')", "SET PASSWORD = PASSWORD('***')"),
        ("SET PASSWORD FOR one=PASSWORD('x')", "SET PASSWORD FOR one=PASSWORD('***')"),
        ("SET PASSWORD FOR one = '*x'", "SET PASSWORD FOR one = '***'"),
        (
            "ALTER USER one IDENTIFIED VIA ed25519 USING PASSWORD('x')",
            "ALTER USER one IDENTIFIED VIA ed25519 USING PASSWORD('***')",
        ),
        ("SELECT 'password' AS 'x'", "SELECT 'password' AS 'x'"),
    ],
)
def test_passwords(text: str, shown: str) -> None:
    """No password that a statement sets is shown."""
    assert shown == without_passwords(text)
