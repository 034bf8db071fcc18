"""The rehearsal of an upgrade: what it must find, and what it must not."""

from __future__ import annotations

import json
import subprocess
from textwrap import dedent
from typing import Any

import pytest
import sqlalchemy as sa

from qapla_db.errors import InvalidArgument, MigrationError
from qapla_db.migrations import migrate
from qapla_db.migrations.rehearsal import Finding, Rehearsal, rehearse
from tests.conftest import FreshURL
from tests.migrations.conftest import MakeProject
from tests.migrations.project import Project, rows, tables

AIRPORTS = """
op.create_table(
    "country",
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("code", sa.String(2), nullable=False, unique=True),
)
op.create_table(
    "airport",
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("iata", sa.String(3), unique=True),
    sa.Column("name", sa.String(60), nullable=False),
    sa.Column("elevation", sa.Integer),
    sa.Column("country_id", sa.Integer, sa.ForeignKey("country.id"), nullable=False),
    sa.Column("region_id", sa.Integer),
)
"""
NO_AIRPORTS = "op.drop_table('airport')\nop.drop_table('country')"


@pytest.fixture(params=["postgresql", "sqlite"])
def airports(
    request: pytest.FixtureRequest, make_project: MakeProject, fresh_url: FreshURL
) -> Project:
    """A project with one revision, on PostgreSQL and SQLite in turn; no database is there yet."""
    return with_airports(make_project, fresh_url(request.param))


@pytest.fixture
def postgresql_airports(make_project: MakeProject, fresh_url: FreshURL) -> Project:
    return with_airports(make_project, fresh_url("postgresql"))


@pytest.fixture
def mariadb_airports(make_project: MakeProject, fresh_url: FreshURL) -> Project:
    return with_airports(make_project, fresh_url("mariadb"))


def with_airports(make_project: MakeProject, url: sa.URL) -> Project:
    project = make_project({"main": url})
    project.revision("a1", AIRPORTS, NO_AIRPORTS)
    return project


def batch(table: str, *lines: str) -> str:
    """Return an ``op.batch_alter_table`` with these calls in it."""
    calls = "\n".join(f"    batch.{line}" for line in lines)
    return f"with op.batch_alter_table({table!r}) as batch:\n{calls}"


def change(project: Project, up: str, down: str, *comments: str) -> Rehearsal:
    """Add a revision with these comments, and rehearse it."""
    project.revision("a2", "\n".join([*comments, dedent(up).strip()]), down, after="a1")
    return rehearse(project.database())


def kinds(report: Rehearsal) -> list[str]:
    """Return what was found besides that there are no models in these projects."""
    return [one.kind for one in report.findings if one.kind != "models"]


def only(report: Rehearsal) -> Finding:
    (found,) = [one for one in report.findings if one.kind != "models"]
    return found


ADD_NOTE = batch("airport", "add_column(sa.Column('note', sa.Text))")
DROP_NOTE = batch("airport", "drop_column('note')")
DROP_IATA = batch("airport", "drop_column('iata')")
ADD_IATA = batch("airport", "add_column(sa.Column('iata', sa.String(3)))")


# --- nothing to find


def test_harmless(airports: Project) -> None:
    """An upgrade that only adds something has no findings; rows and times are reported."""
    report = change(airports, ADD_NOTE, DROP_NOTE)
    assert [] == kinds(report)
    assert (("a1",), ("a2",), 2, 200) == (report.start, report.end, report.tables, report.rows)
    (revision,) = report.revisions
    assert ("a2", "a2") == (revision.revision, revision.title)
    assert revision.seconds > 0
    assert revision.downgrade_seconds is not None
    assert revision.downgrade_seconds > 0
    assert report.ok


def test_renamed_column(airports: Project) -> None:
    """A column that was renamed is compared under its new name."""
    up = batch("airport", "alter_column('elevation', new_column_name='elevation_m')")
    down = batch("airport", "alter_column('elevation_m', new_column_name='elevation')")
    assert [] == kinds(change(airports, up, down))


def test_renamed_table(airports: Project) -> None:
    """A table that was renamed is compared under its new name."""
    up, down = "op.rename_table('airport', 'airfield')", "op.rename_table('airfield', 'airport')"
    assert [] == kinds(change(airports, up, down))


COPY = """
op.rename_table("airport", "old")
op.create_table(
    "airport",
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("iata", sa.String(3)),
    sa.Column("name", sa.String(60), nullable=False),
    sa.Column("elevation", sa.Integer),
    sa.Column("country_id", sa.Integer, nullable=False),
    sa.Column("region_id", sa.Integer),
)
op.execute(
    "INSERT INTO airport "
    "SELECT id, {iata}, name, elevation, country_id, region_id FROM old{rows}"
)
op.drop_table("old")
"""
LOST = ("lost table", "lost column", "lost rows", "changed values")


@pytest.mark.parametrize(
    ("iata", "rows", "expected"),
    [("iata", "", []), ("iata", " WHERE id > 9", ["lost rows"]), ("'x'", "", ["changed values"])],
)
def test_copied_table(airports: Project, iata: str, rows: str, expected: list[str]) -> None:
    """A table that was copied into a new one of its name is compared with that."""
    report = change(airports, COPY.format(iata=iata, rows=rows), "pass")
    assert expected == [one for one in kinds(report) if one in LOST]


def test_copied_column(airports: Project) -> None:
    """A column that was copied into a new one of its name is compared with that."""
    steps = [
        batch("airport", "alter_column('elevation', new_column_name='old')"),
        batch("airport", "add_column(sa.Column('elevation', sa.Integer))"),
        "op.execute('UPDATE airport SET elevation = old')",
        batch("airport", "drop_column('old')"),
    ]
    assert [] == kinds(change(airports, "\n".join(steps), "pass"))


def test_declared_rename(airports: Project) -> None:
    """A column that was copied and dropped is the old one where the revision says so."""
    up = "\n".join(
        [
            batch("airport", "add_column(sa.Column('height', sa.Integer))"),
            "op.execute('UPDATE airport SET height = elevation')",
            batch("airport", "drop_column('elevation')"),
        ]
    )
    down = "\n".join(
        [
            batch("airport", "add_column(sa.Column('elevation', sa.Integer))"),
            "op.execute('UPDATE airport SET elevation = height')",
            batch("airport", "drop_column('height')"),
        ]
    )
    comment = "# qapla: renames airport.elevation to airport.height, copied"
    assert [] == kinds(change(airports, up, down, comment))


@pytest.mark.parametrize("kind", ["sa.BigInteger", "sa.Numeric(12, 2)"])
def test_same_value_of_another_type(airports: Project, kind: str) -> None:
    """A number is the same number in a larger type, and with decimals."""
    up = batch("airport", f"alter_column('elevation', type_={kind})")
    down = batch("airport", "alter_column('elevation', type_=sa.Integer)")
    assert [] == kinds(change(airports, up, down))


TYPES = """
op.execute('''CREATE TABLE "Big Table" (
    "Id" serial PRIMARY KEY, i int, b bool, t timestamp, j json, d date, n numeric(10, 2),
    v varchar(20), c char(5), f float, "select" text, bits bit(3))''')
op.execute("CREATE SCHEMA sales")
op.execute('CREATE TABLE sales."Order" (id uuid PRIMARY KEY, qty int CHECK (qty > 0))')
"""
OTHER_TYPES = """
op.execute('''ALTER TABLE "Big Table"
    ALTER i TYPE varchar(10), ALTER b TYPE int USING b::int, ALTER t TYPE timestamptz,
    ALTER j TYPE jsonb, ALTER d TYPE timestamp, ALTER n TYPE numeric(14, 4), ALTER v TYPE text,
    ALTER c TYPE varchar(8), ALTER f TYPE numeric USING f::numeric''')
op.execute('ALTER TABLE "Big Table" RENAME TO big_table')
op.execute('ALTER TABLE big_table RENAME COLUMN "select" TO choose')
op.execute('ALTER TABLE Big_Table RENAME "Id" TO ID')
op.execute('ALTER TABLE big_table RENAME TO "big ""%(x)s"')
op.execute('ALTER TABLE sales."Order" RENAME TO orders')
op.execute('ALTER TABLE sales.orders SET SCHEMA public')
op.execute('ALTER TABLE public.orders RENAME qty TO quantity')
"""
NO_WAY_BACK = "raise NotImplementedError('no way back')"


def rehearsed(project: Project, up: str, then: str) -> Rehearsal:
    project.revision("a1", up, "pass")
    project.revision("a2", then, NO_WAY_BACK, after="a1")
    return rehearse(project.database())


def test_same_values_on_postgresql(make_project: MakeProject, fresh_url: FreshURL) -> None:
    """Values are the same in other types, other schemas and under odd names."""
    report = rehearsed(make_project({"main": fresh_url("postgresql")}), TYPES, OTHER_TYPES)
    assert ["failed downgrade"] == kinds(report)
    assert 200 == report.rows


def test_same_values_on_sqlite(make_project: MakeProject, fresh_url: FreshURL) -> None:
    """Batch mode copies columns under new names and of new types."""
    create = """
    op.create_table(
        "t",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("a", sa.Boolean),
        sa.Column("n", sa.Numeric(10, 2)),
        sa.Column("s", sa.String(30)),
    )
    """
    alter = """
    with op.batch_alter_table("t") as batch:
        batch.alter_column("a", type_=sa.Integer, new_column_name="aa")
        batch.alter_column("n", type_=sa.Float)
        batch.alter_column("s", type_=sa.Text, new_column_name="ss")
    op.execute("ALTER TABLE T RENAME COLUMN SS TO sss")
    op.rename_table("t", "tt")
    """
    report = rehearsed(make_project({"main": fresh_url("sqlite")}), create, alter)
    assert ["failed downgrade"] == kinds(report)


def test_same_values_on_mariadb(make_project: MakeProject, fresh_url: FreshURL) -> None:
    """Several clauses of one ALTER TABLE rename columns, RENAME TABLE the table."""
    create = """
    op.execute('''CREATE TABLE p (id int AUTO_INCREMENT PRIMARY KEY, j json NOT NULL,
        s set('a', 'b') NOT NULL, y year NOT NULL, u uuid NOT NULL, b bit(3) NOT NULL,
        e enum('x', 'y') NOT NULL, m mediumint unsigned NOT NULL, ti tinyint NOT NULL,
        bb bool NOT NULL, vb varbinary(5) NOT NULL, c char(3) UNIQUE, t timestamp NOT NULL)''')
    """
    alter = """
    op.execute("ALTER TABLE p CHANGE m mm bigint NOT NULL, RENAME COLUMN ti TO tiny")
    op.execute("ALTER TABLE p RENAME COLUMN BB TO boolean")
    op.execute("RENAME TABLE q TO `q %`, p TO pp")
    """
    create += 'op.create_table("q", sa.Column("n", sa.Integer, nullable=False))'
    report = rehearsed(make_project({"main": fresh_url("mariadb")}), dedent(create), alter)
    assert ["failed downgrade"] == kinds(report)
    assert 200 == report.rows


def test_lost_primary_key(make_project: MakeProject, fresh_url: FreshURL) -> None:
    """Where the primary key is gone, rows are matched by another key."""
    create = (
        "op.execute('CREATE TABLE p (code text PRIMARY KEY, name text NOT NULL UNIQUE, n int)')"
    )
    alter = """
    op.execute("ALTER TABLE p DROP code, ADD id serial PRIMARY KEY")
    op.execute("UPDATE p SET n = 5000 WHERE id <= 3")
    """
    report = rehearsed(make_project({"main": fresh_url("postgresql")}), create, alter)
    assert ["lost column", "changed values", "failed downgrade"] == kinds(report)
    assert ["code", "n", None] == [one.column for one in report.findings]
    assert 3 == report.findings[1].rows


# --- losses


def test_lost_column(postgresql_airports: Project) -> None:
    """A dropped column is a loss, with the number of values in it and the revision."""
    down = f"{ADD_IATA}\nop.create_unique_constraint('airport_iata_key', 'airport', ['iata'])"
    report = change(postgresql_airports, DROP_IATA, down)
    found = only(report)
    assert ("lost column", "airport", "iata", "a2") == (
        found.kind,
        found.table,
        found.column,
        found.revision,
    )
    assert 70 < found.rows < 100
    assert not report.ok


def test_lost_column_without_constraint(airports: Project) -> None:
    """A dropped column is a loss on every kind of database."""
    up = batch("airport", "drop_column('elevation')")
    down = batch("airport", "add_column(sa.Column('elevation', sa.Integer))")
    found = only(change(airports, up, down))
    assert ("lost column", "elevation") == (found.kind, found.column)


def test_declared_loss(airports: Project) -> None:
    """A loss that the revision declares is reported as such, with its reason, and is accepted."""
    up = batch("airport", "drop_column('elevation')")
    down = batch("airport", "add_column(sa.Column('elevation', sa.Integer))")
    comment = "# qapla: loses airport.elevation, nobody reads it since 3.2"
    report = change(airports, up, down, comment)
    assert "nobody reads it since 3.2" == only(report).declared
    assert report.ok


def test_declared_loss_of_another_column(airports: Project) -> None:
    """A declaration accepts what it names and nothing else, and it is said that it is idle."""
    up = batch("airport", "drop_column('elevation')")
    down = batch("airport", "add_column(sa.Column('elevation', sa.Integer))")
    report = change(airports, up, down, "# qapla: loses airport.name, unread")
    assert only(report).declared is None
    assert any("airport.name" in note for note in report.notes)
    assert not report.ok


def test_declaration_without_reason(airports: Project) -> None:
    """A declaration without a reason declares nothing and is found itself."""
    up = batch("airport", "drop_column('elevation')")
    down = batch("airport", "add_column(sa.Column('elevation', sa.Integer))")
    report = change(airports, up, down, "# qapla: loses airport.elevation")
    assert ["declaration", "lost column"] == kinds(report)
    assert not report.ok


# of what two columns, the rows and a table lose each declaration accepts one thing
LOSSES = [
    "op.execute('UPDATE airport SET region_id = 1')",
    batch("airport", "drop_column('iata')"),
    batch("airport", "drop_column('elevation')"),
    "op.execute('DELETE FROM airport WHERE id = 1')",
    "op.drop_table('note')",
]


@pytest.mark.parametrize(
    ("declared", "accepted"),
    [
        ("loses airport.elevation", ("lost column", "elevation")),
        ("loses note", ("lost table", None)),
        ("loses rows of airport", ("lost rows", None)),
        ("changes airport.region_id", ("changed values", "region_id")),
        ("loses airport", None),
        ("loses rows of note", None),
        ("loses airport.region_id", None),
        ("changes airport.elevation", None),
        ("changes airport.name", None),
    ],
)
def test_declarations_are_narrow(
    make_project: MakeProject,
    fresh_url: FreshURL,
    declared: str,
    accepted: tuple[str, str | None] | None,
) -> None:
    """A declaration covers one column, the rows of a table, or that a table is dropped."""
    project = make_project({"main": fresh_url("sqlite")})
    airport = AIRPORTS.replace("sa.String(3), unique=True", "sa.String(3)")
    note = "op.create_table('note', sa.Column('id', sa.Integer, primary_key=True))"
    project.revision("a1", f"{airport}\n{note}", NO_AIRPORTS)
    no_way = "raise NotImplementedError('no way back')"
    report = change(project, "\n".join(LOSSES), no_way, f"# qapla: {declared}, because")
    losses = [one for one in report.findings if one.kind not in ("failed downgrade", "models")]
    assert 5 == len(losses)
    found = [(one.kind, one.column) for one in losses if one.declared == "because"]
    assert ([accepted] if accepted else []) == found
    assert (accepted is None) == any(declared in note for note in report.notes)


def test_declared_change_of_the_way_back(airports: Project) -> None:
    """What a downgrade does to one column is declared for it, and for no other."""
    back = "op.execute('UPDATE airport SET elevation = NULL, region_id = NULL')"
    down = "\n".join([back, "op.execute('DELETE FROM airport WHERE id = 1')"])
    comment = "# qapla: changes airport.elevation, it is measured anew"
    report = change(airports, "pass", down, comment)
    found = {one.column: one.declared for one in report.findings if one.kind != "models"}
    assert {None: None, "elevation": "it is measured anew", "region_id": None} == found


@pytest.mark.parametrize("what", ["changes airport", "changes rows of airport"])
def test_declaration_that_says_too_little(airports: Project, what: str) -> None:
    """A change is declared column by column."""
    up = "op.execute('UPDATE airport SET elevation = 1')"
    report = change(airports, up, "pass", f"# qapla: {what}, why not")
    assert {"declaration", "changed values"} == set(kinds(report))
    assert all(one.declared is None for one in report.findings)


def test_lost_table(airports: Project) -> None:
    """A dropped table is a loss, with the number of its rows."""
    report = change(airports, "op.drop_table('airport')", "pass")
    found = next(one for one in report.findings if one.kind == "lost table")
    assert ("airport", 100, "a2") == (found.table, found.rows, found.revision)


def test_lost_rows(airports: Project) -> None:
    """Deleted rows are a loss, with keys of some."""
    found = only(change(airports, "op.execute('DELETE FROM airport WHERE id <= 7')", "pass"))
    assert ("lost rows", "airport", 7) == (found.kind, found.table, found.rows)
    assert ("id=1", "id=2", "id=3") == found.examples


def test_lost_rows_of_a_table_without_key(airports: Project) -> None:
    """Rows of a table without a key are compared as a whole."""
    create = "op.create_table('log', sa.Column('line', sa.Text), sa.Column('at', sa.Integer))"
    airports.revision("a2", create, "op.drop_table('log')", after="a1")
    airports.revision("a3", "op.execute('DELETE FROM log WHERE at > 500')", after="a2")
    found = only(rehearse(airports.database()))
    assert ("lost rows", "log") == (found.kind, found.table)
    assert 0 < found.rows < 100


def test_changed_values(airports: Project) -> None:
    """Changed values are found, with the values before and after."""
    up = "op.execute('UPDATE airport SET elevation = elevation + 1 WHERE elevation IS NOT NULL')"
    down = up.replace("+", "-")
    found = only(change(airports, up, down))
    assert ("changed values", "airport", "elevation") == (found.kind, found.table, found.column)
    before, after = found.examples[0].partition(": ")[2].split(" -> ")
    assert int(after) == int(before) + 1


def test_values_that_became_null(airports: Project) -> None:
    """Values that became NULL are said to have."""
    found = only(change(airports, "op.execute('UPDATE airport SET elevation = NULL')", "pass"))
    assert "changed values" == found.kind
    assert "to NULL" in found.message


def test_declared_change(airports: Project) -> None:
    """A declared change is accepted, there and back."""
    up = "op.execute('UPDATE airport SET elevation = elevation / 3')"
    down = "op.execute('UPDATE airport SET elevation = elevation * 3')"
    comment = "# qapla: changes airport.elevation, feet to metres"
    report = change(airports, up, down, comment)
    assert {"feet to metres"} == {one.declared for one in report.findings}
    assert report.ok


def test_truncated_values(postgresql_airports: Project) -> None:
    """Values that a shorter type cuts are found, though an empty database would not show it."""
    up = """
    op.alter_column("airport", "name", type_=sa.String(20), postgresql_using="left(name, 20)")
    """
    down = "op.alter_column('airport', 'name', type_=sa.String(60))"
    found = [one for one in change(postgresql_airports, up, down).findings if one.column]
    assert ["changed values"] == [one.kind for one in found]


# --- failures


def test_foreign_key_violation(airports: Project) -> None:
    """A foreign key that rows do not keep to fails the rehearsal, with a row that does not."""
    key = "create_foreign_key('airport_region', 'country', ['region_id'], ['id'])"
    down = batch("airport", "drop_constraint('airport_region', type_='foreignkey')")
    report = change(airports, batch("airport", key), down)
    found = only(report)
    assert ("failed upgrade", "a2") == (found.kind, found.revision)
    assert "region_id=" in found.examples[0]
    assert ("a1",) == report.end
    assert not report.ok


def test_the_row_that_violates(airports: Project) -> None:
    """Of many rows that one is shown which the foreign key was violated by."""
    up = """
    op.execute("UPDATE airport SET region_id = NULL")
    op.execute("UPDATE airport SET region_id = 999999 WHERE id = 50")
    """
    airports.revision("a2", up, "pass", after="a1")
    key = "create_foreign_key('airport_region', 'country', ['region_id'], ['id'])"
    airports.revision("a3", batch("airport", key), "pass", after="a2")
    report = rehearse(airports.database(), start="a1")
    (found,) = [one for one in report.findings if one.kind == "failed upgrade"]
    assert "id=50," in found.examples[0]


def test_not_null_without_default(airports: Project) -> None:
    """A NOT NULL column without a default fails on rows, and is a finding with a row."""
    up = "op.add_column('airport', sa.Column('note', sa.Text, nullable=False))"
    found = only(change(airports, up, DROP_NOTE))
    assert ("failed upgrade", "airport") == (found.kind, found.table)
    assert "id=" in found.examples[0]


def test_not_null_on_rows_with_null(airports: Project) -> None:
    """SET NOT NULL on a column that has NULL fails on rows."""
    up = batch("airport", "alter_column('elevation', nullable=False)")
    down = batch("airport", "alter_column('elevation', nullable=True)")
    found = only(change(airports, up, down))
    assert "failed upgrade" == found.kind
    assert found.examples


def test_data_migration_that_raises(airports: Project) -> None:
    """Python that fails on rows is a finding, not a traceback."""
    up = """
    for row in op.get_bind().execute(sa.text("SELECT elevation FROM airport")).all():
        row.elevation + 1
    """
    found = only(change(airports, up, "pass"))
    assert "failed upgrade" == found.kind
    assert "NoneType" in found.message


# --- downgrades


def test_downgrade_that_forgets(airports: Project) -> None:
    """A downgrade that leaves something over is found."""
    found = only(change(airports, ADD_NOTE, "pass"))
    assert ("schema after downgrade", "airport") == (found.kind, found.table)
    assert "column note is left over" in found.message


def test_downgrade_that_brings_back_less(airports: Project) -> None:
    """A downgrade that brings a column back otherwise is found."""
    up = batch("airport", "drop_column('elevation')")
    down = batch("airport", "add_column(sa.Column('elevation', sa.Text))")
    assert ["lost column", "schema after downgrade"] == kinds(change(airports, up, down))


def test_downgrade_that_loses(airports: Project) -> None:
    """Data that the upgrade kept and the downgrade loses is found."""
    delete = "op.execute('DELETE FROM airport')"
    schema, data = change(airports, ADD_NOTE, delete).findings
    assert ("schema after downgrade", "airport") == (schema.kind, schema.table)
    assert ("data after downgrade", "airport", 100) == (data.kind, data.table, data.rows)


def test_downgrade_that_fails(airports: Project) -> None:
    """A downgrade that fails is found."""
    report = change(airports, ADD_NOTE, "op.execute('DELETE FROM nowhere')")
    found = only(report)
    assert ("failed downgrade", "a2") == (found.kind, found.revision)
    assert "nowhere" in found.message
    assert not report.ok


def test_revision_without_way_back(airports: Project) -> None:
    """A downgrade that says that there is none is accepted, and reported."""
    report = change(airports, ADD_NOTE, "raise NotImplementedError('the notes are gone')")
    assert "the notes are gone" == only(report).message
    assert report.ok


def test_merged_branches(airports: Project) -> None:
    """Branches and the revision that merges them are rehearsed, from the branches."""
    create = "op.create_table({0!r}, sa.Column('id', sa.Integer, primary_key=True))".format
    airports.revision("b1", create("b"), "op.drop_table('b')", after="a1")
    airports.revision("c1", create("c"), "op.drop_table('c')", after="a1")
    airports.revision("d1", ADD_NOTE, DROP_NOTE, after="b1")
    path = airports.directory("main") / "versions" / "d1_.py"
    text = path.read_text().replace("down_revision = 'b1'", "down_revision = ('b1', 'c1')")
    path.write_text(text)
    report = rehearse(airports.database())
    assert (("b1", "c1"), ("d1",), 4) == (report.start, report.end, report.tables)
    assert [] == kinds(report)
    assert report.revisions[0].downgrade_seconds is not None
    whole = rehearse(airports.database(), start="b1")
    assert [] == kinds(whole)
    assert {"c1", "d1"} == {one.revision for one in whole.revisions}


def test_enum_that_a_downgrade_forgets(postgresql_airports: Project) -> None:
    """An enum type that a downgrade leaves would stop the next upgrade; it is found."""
    up = """
    sa.Enum("a", "b", name="kind").create(op.get_bind())
    op.add_column("airport", sa.Column("kind", sa.Enum("a", "b", name="kind", create_type=False)))
    """
    found = only(change(postgresql_airports, up, "op.drop_column('airport', 'kind')"))
    assert "type kind is left over" == found.message


# --- locks and storage


def test_rewritten_table(airports: Project) -> None:
    """A table that is written anew is reported."""
    up = batch("airport", "alter_column('elevation', type_=sa.BigInteger)")
    down = batch("airport", "alter_column('elevation', type_=sa.Integer)")
    (revision,) = change(airports, up, down).revisions
    assert ("airport",) == revision.rewritten


def test_locks(postgresql_airports: Project) -> None:
    """The locks that let others wait are reported for each revision, of existing tables only."""
    postgresql_airports.revision("a2", ADD_NOTE, DROP_NOTE, after="a1")
    index = "op.create_index('airport_name', 'airport', ['name'])"
    create = "op.create_table('other', sa.Column('id', sa.Integer, primary_key=True))"
    undo = "op.drop_table('other')\nop.drop_index('airport_name')"
    postgresql_airports.revision("a3", f"{index}\n{create}", undo, after="a2")
    report = rehearse(postgresql_airports.database(), start="a1")
    assert [{"airport": "AccessExclusiveLock"}, {"airport": "ShareLock"}] == [
        dict(one.locks) for one in report.revisions
    ]
    assert [(), ()] == [one.rewritten for one in report.revisions]
    assert [] == kinds(report)


def test_concurrent_index(postgresql_airports: Project) -> None:
    """A revision with an index made CONCURRENTLY is rehearsed; it lets nobody wait."""
    up = """
    with op.get_context().autocommit_block():
        op.create_index("airport_name", "airport", ["name"], postgresql_concurrently=True)
    """
    report = change(postgresql_airports, up, "op.drop_index('airport_name')")
    assert [] == kinds(report)
    assert {} == report.revisions[0].locks


# --- models


def test_models(airports: Project) -> None:
    """What the models want and no revision does is found."""
    models = """
    Model = sa.MetaData()
    sa.Table(
        "country",
        Model,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("code", sa.String(2), nullable=False, unique=True),
        sa.Column("name", sa.Text),
    )
    """
    airports.write_env("main", models)
    report = change(airports, ADD_NOTE, DROP_NOTE)
    (found,) = report.findings
    assert "models" == found.kind
    assert "country.name" in found.message


# --- where it starts


def three(project: Project) -> None:
    create = "op.create_table({0!r}, sa.Column('id', sa.Integer, primary_key=True))".format
    for id, after, table in (("a2", "a1", "two"), ("a3", "a2", "three")):
        project.revision(id, create(table), f"op.drop_table({table!r})", after=after)


def test_starts(airports: Project) -> None:
    """It starts before head, at a revision, where the database is, or at nothing."""
    three(airports)
    database = airports.database()
    assert ("a2",) == rehearse(database, rows=3).start
    assert ("a1",) == rehearse(database, start="a1", rows=3).start
    assert () == rehearse(database, start="base", rows=3).start
    with pytest.raises(MigrationError, match="does not exist"):
        rehearse(database, start="@deployed", rows=3)
    database.create()
    with pytest.raises(MigrationError, match="no revision"):
        rehearse(database, start="@deployed", rows=3)
    migrate(database, "a1")
    assert ("a1",) == rehearse(database, rows=3).start
    assert ("a1",) == rehearse(database, start="@deployed", rows=3).start
    migrate(database)
    assert ("a2",) == rehearse(database, rows=3).start
    assert () == rehearse(database, start="@deployed", rows=3).revisions


def test_the_database_is_not_touched(airports: Project) -> None:
    """The real database stays as it is, and nothing is left beside it."""
    three(airports)
    database = airports.database()
    database.create()
    migrate(database, "a1")
    url = database.settings.url
    before = tables(url)
    rehearse(database, rows=3)
    assert before == tables(url)
    assert [(0,)] == rows(url, "SELECT count(*) FROM airport")
    if url.get_backend_name() == "postgresql":
        name = f"{url.database}_shadow%"
        assert [] == rows(url, f"SELECT datname FROM pg_database WHERE datname LIKE '{name}'")  # noqa: S608


def test_unknown_start(airports: Project) -> None:
    """A start that is not known says what there is to name."""
    with pytest.raises(InvalidArgument, match="cannot start from 'zz'"):
        rehearse(airports.database(), start="zz")


def git(project: Project, *arguments: str) -> None:
    who = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
    subprocess.run(["git", *who, *arguments], cwd=project.root, check=True, capture_output=True)


def test_git_start(make_project: MakeProject, fresh_url: FreshURL) -> None:
    """It starts where a branch is, without a checkout."""
    project = with_airports(make_project, fresh_url("sqlite"))
    git(project, "init", "-b", "stable")
    git(project, "add", ".")
    git(project, "commit", "-m", "one")
    three(project)
    database = project.database()
    report = rehearse(database, start="git:stable", rows=3)
    assert (("a1",), ("a3",)) == (report.start, report.end)
    with pytest.raises(InvalidArgument, match="git:nowhere"):
        rehearse(database, start="git:nowhere")
    with pytest.raises(InvalidArgument, match="does not know"):
        rehearse(database, start="git:--output=x")


def test_revision_that_only_the_branch_has(make_project: MakeProject, fresh_url: FreshURL) -> None:
    """A branch that is at a revision which is not here is refused."""
    project = with_airports(make_project, fresh_url("sqlite"))
    three(project)
    git(project, "init", "-b", "stable")
    git(project, "add", ".")
    git(project, "commit", "-m", "one")
    (project.directory("main") / "versions" / "a3_.py").unlink()
    with pytest.raises(InvalidArgument, match="is at a3"):
        rehearse(project.database(), start="git:stable")


# --- the report


def test_report(airports: Project) -> None:
    """The report is text for people and JSON for programs."""
    up = batch("airport", "drop_column('elevation')")
    down = batch("airport", "add_column(sa.Column('elevation', sa.Integer))")
    report = change(airports, up, down)
    text = str(report)
    assert text.startswith("main: a1 -> a2, 1 revision on 200 rows in 2 tables")
    assert "FOUND lost column: airport.elevation" in text
    found: dict[str, Any] = json.loads(json.dumps(report.as_json()))
    assert (False, "main", ["a1"]) == (found["ok"], found["database"], found["start"])
    assert "lost column" == found["findings"][0]["kind"]


def test_steps_are_reported(airports: Project) -> None:
    """Each step is told to the function that was passed."""
    airports.revision("a2", ADD_NOTE, DROP_NOTE, after="a1")
    lines: list[str] = []
    rehearse(airports.database(), rows=3, report=lines.append)
    assert ["main: base -> a1 a1", "main: a1 -> a2 a2", "main: a2 -> a1 undo a2"] == lines


# --- MariaDB


def test_mariadb(mariadb_airports: Project) -> None:
    """MariaDB: a lost column, changed values, a renamed column and lost rows are found."""
    up = """
    op.drop_column("airport", "region_id")
    op.alter_column("airport", "elevation", new_column_name="height", existing_type=sa.Integer)
    op.execute("UPDATE airport SET name = 'x' WHERE id = 1")
    op.execute("DELETE FROM airport WHERE id = 2")
    """
    down = """
    op.add_column("airport", sa.Column("region_id", sa.Integer))
    op.alter_column("airport", "height", new_column_name="elevation", existing_type=sa.Integer)
    """
    report = change(mariadb_airports, up, down)
    assert ["lost column", "lost rows", "changed values"] == [
        one.kind for one in report.findings if one.kind != "data after downgrade"
    ]
    assert ["region_id", None, "name"] == [one.column for one in report.findings[:3]]


def test_mariadb_failure(mariadb_airports: Project) -> None:
    """MariaDB: a foreign key that rows do not keep to is a finding."""
    up = "op.create_foreign_key('k', 'airport', 'country', ['region_id'], ['id'])"
    found = only(change(mariadb_airports, up, "op.drop_constraint('k', 'airport')"))
    assert ("failed upgrade", "airport") == (found.kind, found.table)
