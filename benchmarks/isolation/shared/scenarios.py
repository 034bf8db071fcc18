"""The scenarios of ``test_scenarios.py``."""

ALL = {
    "reader": "a session that only read closes after another one's commit",
    "rollback": "a transaction fails after another one's commit",
    "thread": "a thread reads and commits",
    "begin": "engine.begin()",
    "autocommit": "raw SQL with AUTOCOMMIT",
    "ddl": "CREATE TABLE",
    "after_commit": "what is to happen after a commit happens",
    "deferred": "a deferred constraint fails at the commit",
    "clock": "now() of two transactions differs",
    "numbers": "sequences begin at 1 in each test",
}

AGAIN = ("numbers",)
"""These are the same in the second test of all."""
