"""Renames: data is kept, indexes and constraints follow, and the way back is right."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent

import pytest
import sqlalchemy as sa

from qapla_db.backends import get_backend
from qapla_db.errors import InvalidArgument, MigrationError, Refused
from qapla_db.migrations import downgrade, migrate
from qapla_db.migrations.revisions import make_revision
from tests.conftest import FreshURL
from tests.migrations.conftest import MakeProject
from tests.migrations.project import Project, rows

HEAD = """
from qapla_db.naming import NAMING_CONVENTION
Model = sa.MetaData(naming_convention=NAMING_CONVENTION)
def table(name, *columns, **more):
    return sa.Table(name, Model, sa.Column("id", sa.Integer, primary_key=True), *columns, **more)
"""


@dataclass(frozen=True)
class Case:
    """Models before and after, rows before, and what they must be after."""

    before: str
    after: str
    insert: Sequence[str]
    kept: str
    back: str
    renames: Sequence[str] = ()
    asked: Sequence[str] = ()
    without: Sequence[str] = ()
    """What no name in the database contains afterwards, on PostgreSQL."""
    expected: Sequence[tuple[object, ...]] = field(default=((1, 7), (2, 8)))


TWO = ("INSERT INTO users (id, age) VALUES (1, 7)", "INSERT INTO users (id, age) VALUES (2, 8)")
OWNERS = "table('owner', sa.Column('name', sa.String(20)))\n"


def column(before: str, after: str, without: Sequence[str] = ("age",)) -> Case:
    """A column ``users.age`` that becomes ``users.height``, each of such a kind."""
    return Case(
        f"table('users', sa.Column('age', {before}))",
        f"table('users', sa.Column('height', {after}))",
        TWO,
        "SELECT id, height FROM users ORDER BY id",
        "SELECT id, age FROM users ORDER BY id",
        renames=["users.age:height"],
        asked=["Was users.age renamed to users.height?"],
        without=without,
    )


INDEXED = "sa.Integer, index=True"
UNIQUE = "sa.Integer, nullable=False, unique=True"

CASES = {
    "indexed column": column(INDEXED, INDEXED),
    "unique column": column(UNIQUE, UNIQUE),
    "foreign key column": Case(
        OWNERS + "table('ship', sa.Column('owner_id', sa.ForeignKey('owner.id'), nullable=False))",
        OWNERS + "table('ship', sa.Column('holder_id', sa.ForeignKey('owner.id'), nullable=False))",
        [
            "INSERT INTO owner (id) VALUES (7)",
            "INSERT INTO owner (id) VALUES (8)",
            "INSERT INTO ship (id, owner_id) VALUES (1, 7)",
            "INSERT INTO ship (id, owner_id) VALUES (2, 8)",
        ],
        "SELECT id, holder_id FROM ship ORDER BY id",
        "SELECT id, owner_id FROM ship ORDER BY id",
        renames=["ship.owner_id:holder_id"],
        asked=["Was ship.owner_id renamed to ship.holder_id?"],
        without=["owner_id"],
    ),
    "table with foreign keys to and from it, and a new column": Case(
        OWNERS + "table('users', sa.Column('owner_id', sa.ForeignKey('owner.id'), index=True),"
        " sa.Column('age', sa.Integer), sa.CheckConstraint('age > 0', name='old_enough'))\n"
        "table('post', sa.Column('author', sa.ForeignKey('users.id', ondelete='CASCADE')))",
        OWNERS + "table('people', sa.Column('owner_id', sa.ForeignKey('owner.id'), index=True),"
        " sa.Column('age', sa.Integer), sa.Column('more', sa.Integer),"
        " sa.CheckConstraint('age > 0', name='old_enough'))\n"
        "table('post', sa.Column('author', sa.ForeignKey('people.id', ondelete='CASCADE')))",
        [
            "INSERT INTO owner (id) VALUES (5)",
            "INSERT INTO users (id, owner_id, age) VALUES (3, 5, 7)",
            "INSERT INTO users (id, owner_id, age) VALUES (4, 5, 8)",
            "INSERT INTO post (id, author) VALUES (1, 3)",
            "INSERT INTO post (id, author) VALUES (2, 4)",
        ],
        "SELECT post.id, age FROM post JOIN people ON people.id = author ORDER BY post.id",
        "SELECT post.id, age FROM post JOIN users ON users.id = author ORDER BY post.id",
        renames=["users:people"],
        asked=["Was users renamed to people?"],
        without=["users"],
    ),
    "table, column and foreign key column at once": Case(
        "table('users', sa.Column('age', sa.Integer), sa.Column('name', sa.String(20)))\n"
        "table('post', sa.Column('user_id', sa.ForeignKey('users.id'), index=True))",
        "table('people', sa.Column('height', sa.Integer), sa.Column('name', sa.String(20)))\n"
        "table('post', sa.Column('person_id', sa.ForeignKey('people.id'), index=True))",
        [
            *TWO,
            "INSERT INTO post (id, user_id) VALUES (1, 1)",
            "INSERT INTO post (id, user_id) VALUES (2, 2)",
        ],
        "SELECT post.id, height FROM post JOIN people ON people.id = person_id ORDER BY post.id",
        "SELECT post.id, age FROM post JOIN users ON users.id = user_id ORDER BY post.id",
        renames=["users:people", "users.age:height", "post.user_id:person_id"],
        asked=[
            "Was users renamed to people?",
            "Was people.age renamed to people.height?",
            "Was post.user_id renamed to post.person_id?",
        ],
        without=["user", "age"],
    ),
    "type differs": column("sa.Integer", "sa.BigInteger", without=()),
    "ambiguous": Case(
        "table('users', sa.Column('age', sa.Integer), sa.Column('size', sa.Integer))",
        "table('users', sa.Column('height', sa.Integer), sa.Column('width', sa.Integer))",
        TWO,
        "SELECT id, width FROM users ORDER BY id",
        "SELECT id, age FROM users ORDER BY id",
        renames=["users.age:width", "users.size:height"],
    ),
    "hinted": Case(
        "table('users', sa.Column('age', sa.Integer, index=True), sa.Column('x', sa.Integer))",
        "table('people', sa.Column('y', sa.Integer),"
        " sa.Column('zoom', sa.Integer, index=True, info={'renamed_from': 'age'}),"
        " info={'renamed_from': 'users'})",
        TWO,
        "SELECT id, zoom FROM people ORDER BY id",
        "SELECT id, age FROM users ORDER BY id",
        renames=["people.x:y"],
        asked=["Was people.x renamed to people.y?"],
        without=["users", "age"],
    ),
}


def models(text: str) -> str:
    return HEAD + dedent(text)


def start(project: Project, case: Case, url: sa.URL) -> None:
    """Bring a database to the models before, with rows."""
    project.write_env("main", models(case.before))
    database = project.database()
    make_revision(database, "first")
    migrate(database)
    for statement in case.insert:
        rows(url, statement)
    project.write_env("main", models(case.after))


def check_round_trip(project: Project, case: Case, url: sa.URL) -> None:
    """Upgrade with rows, compare, downgrade, compare, and upgrade again."""
    database, before = project.database(), schema(url)
    migrate(database)
    assert list(case.expected) == rows(url, case.kept)
    # the migrated database itself is what the models say
    assert "No new upgrade operations detected.\n" == project.run("check")
    downgrade(database, "-1")
    assert list(case.expected) == rows(url, case.back)
    assert before == schema(url)
    migrate(database)
    assert list(case.expected) == rows(url, case.kept)


def schema(url: sa.URL) -> dict[str, object]:
    """Return all that can be asked about the tables of a database."""
    backend = get_backend(url)
    assert backend is not None
    inspector = sa.inspect(sa.create_engine(backend.complete(url), poolclass=sa.NullPool))
    found: dict[str, object] = {}
    for name in [*inspector.get_schema_names(), None]:
        if name in ("information_schema", "mysql", "performance_schema", "sys"):
            continue
        for kind in ("columns", "indexes", "unique_constraints", "foreign_keys", "pk_constraint"):
            for key, value in getattr(inspector, f"get_multi_{kind}")(schema=name).items():
                parts = value if isinstance(value, list) else [value]
                found[f"{key} {kind}"] = sorted(str(part) for part in parts)
    return found


def names(url: sa.URL) -> set[str]:
    """Return every name in a database of PostgreSQL but those of sequences."""
    query = (
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace "
        "AND relkind <> 'S' UNION ALL SELECT conname FROM pg_constraint "
        "WHERE connamespace = 'public'::regnamespace AND contype <> 'n' "
        "UNION ALL SELECT attname FROM pg_attribute JOIN pg_class ON attrelid = pg_class.oid "
        "WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND attnum > 0"
    )
    return {name for (name,) in rows(url, query)}


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_said(project: Project, each_url: sa.URL, case: Case) -> None:
    """What the caller says was renamed keeps its rows, there and back, with an empty diff."""
    start(project, case, each_url)
    path = make_revision(project.database(), "rename", renames=case.renames)
    assert path is not None
    assert "drop_column" not in path.read_text().partition("def downgrade")[0]
    assert "create_table" not in path.read_text()
    check_round_trip(project, case, each_url)
    if each_url.get_backend_name() == "postgresql":
        assert [] == [
            name
            for name in names(each_url)
            if any(word in name.split("_") or word == name for word in case.without)
            and not name.startswith("qapla")
        ]


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].asked])
def test_asked(make_project: MakeProject, fresh_url: FreshURL, name: str) -> None:
    """Where a person can be asked the questions are these, and yes is a rename."""
    case, asked, url = CASES[name], list[str](), fresh_url("sqlite")
    project = make_project({"main": url})
    start(project, case, url)

    def ask(question: str) -> bool:
        asked.append(question)
        return True

    make_revision(project.database(), "rename", ask=ask)
    assert sorted(case.asked) == sorted(asked)
    assert case.asked[0] == asked[0]
    check_round_trip(project, case, url)


@pytest.fixture
def small(make_project: MakeProject, fresh_url: FreshURL) -> Project:
    """A project on SQLite with a table that has rows."""
    url = fresh_url("sqlite")
    project = make_project({"main": url})
    start(project, CASES["indexed column"], url)
    return project


def test_names_are_renamed(make_project: MakeProject, postgresql_database_url: sa.URL) -> None:
    """On PostgreSQL indexes and constraints are renamed and not made anew."""
    project = make_project({"main": postgresql_database_url})
    case = CASES["table, column and foreign key column at once"]
    start(project, case, postgresql_database_url)
    path = make_revision(project.database(), "rename", renames=case.renames)
    assert path is not None
    up, _, down = path.read_text().partition("def downgrade")
    for line in (
        "op.rename_table('users', 'people')",
        "op.execute('ALTER INDEX ix_post_user_id RENAME TO ix_post_person_id')",
        "op.execute('ALTER TABLE people RENAME CONSTRAINT pk_users TO pk_people')",
        "RENAME CONSTRAINT fk_post_user_id_users TO fk_post_person_id_people')",
    ):
        assert line in up
    assert "op.rename_table('people', 'users')" in down
    for word in ("create_index", "drop_index", "drop_constraint", "create_foreign_key"):
        assert word not in path.read_text()


def test_indexes_of_mariadb(make_project: MakeProject, fresh_url: FreshURL) -> None:
    """On MariaDB an index is renamed, and a column keeps what the models do not know of it."""
    url = fresh_url("mariadb")
    project = make_project({"main": url})
    project.database().create()
    case = CASES["indexed column"]
    start(project, case, url)
    path = make_revision(project.database(), "rename", renames=case.renames)
    assert path is not None
    assert "RENAME INDEX ix_users_age TO ix_users_height" in path.read_text()
    rows(url, "ALTER TABLE users MODIFY age integer DEFAULT 5 COMMENT 'in years'")
    migrate(project.database())
    query = (
        "SELECT column_default, column_comment FROM information_schema.columns "
        "WHERE table_schema = DATABASE() AND column_name = 'height'"
    )
    assert [("5", "in years")] == rows(url, query)


def test_nobody_to_ask(small: Project) -> None:
    """Where nobody can be asked nothing is written, and the flags that decide are named."""
    with pytest.raises(Refused) as raised:
        make_revision(small.database(), "rename")
    assert "users.height is new, and users.age is gone from the models" in str(raised.value)
    assert "--rename users.age:height " in str(raised.value)
    assert "--no-rename" in str(raised.value)
    assert 1 == len(small.versions())


def test_nobody_to_ask_about_two(small: Project) -> None:
    """Each possible pair has its flag."""
    small.write_env(
        "main",
        models(
            "table('users', sa.Column('height', sa.Integer), sa.Column('its size', sa.Integer))"
        ),
    )
    with pytest.raises(Refused) as raised:
        make_revision(small.database(), "rename")
    assert "--rename users.age:height" in str(raised.value)
    assert "--rename 'users.age:its size'" in str(raised.value)  # as the shell takes it


@pytest.mark.parametrize("ask", [None, lambda question: False])
def test_no_rename(small: Project, ask: Callable[[str], bool] | None) -> None:
    """With the flag, or after a no, a column is dropped and another one added."""
    path = make_revision(small.database(), "other", other_renames=ask is not None, ask=ask)
    assert path is not None
    assert "drop_column('age')" in path.read_text()
    assert "add_column(sa.Column('height'" in path.read_text()


def test_no_rename_of_a_table(small: Project) -> None:
    """A table that is not the one before is made, and that one is left alone."""
    small.write_env("main", models("table('people', sa.Column('age', sa.Integer))"))
    with pytest.raises(Refused, match="--rename users:people"):
        make_revision(small.database(), "other")
    lines: list[str] = []
    path = make_revision(small.database(), "other", other_renames=False, report=lines.append)
    assert path is not None
    assert "create_table('people'" in path.read_text()
    assert "drop_table('users'" not in path.read_text()
    assert any("left alone" in line and "users" in line for line in lines)


def test_foreign_keys_speak_for_a_table(make_project: MakeProject, fresh_url: FreshURL) -> None:
    """A table with other columns is asked about where what referred to one refers to the other."""
    case = Case(
        "table('users', sa.Column('age', sa.Integer), sa.Column('size', sa.Integer))\n"
        "table('post', sa.Column('author', sa.ForeignKey('users.id')))",
        "table('people', sa.Column('name', sa.Text), sa.Column('born', sa.Date))\n"
        "table('post', sa.Column('author', sa.ForeignKey('people.id')))",
        [],
        "",
        "",
    )
    url, asked = fresh_url("sqlite"), list[str]()
    project = make_project({"main": url})
    start(project, case, url)

    def ask(question: str) -> bool:
        asked.append(question)
        return False

    make_revision(project.database(), "other", ask=ask)
    assert ["Was users renamed to people?"] == asked


def test_other_types_are_no_question(small: Project) -> None:
    """A column of another kind is not taken for the one before, unless it is said."""
    small.write_env("main", models("table('users', sa.Column('name', sa.String(20)))"))
    path = make_revision(small.database(), "other")
    assert path is not None
    assert "drop_column('age')" in path.read_text()


def hinting(name: str, old: str) -> str:
    return f"sa.Column({name!r}, sa.Integer, info={{'renamed_from': {old!r}}})"


@pytest.mark.parametrize("others", [True, False])
@pytest.mark.parametrize(
    ("after", "problem"),
    [
        (
            f"table('users', {hinting('b', 'age')}, {hinting('c', 'age')})",
            r"both users\.b and users\.c were renamed from users\.age",
        ),
        (
            f"table('users', {hinting('b', 'age')}, {hinting('c', 'b')})",
            r"users\.c was renamed from 'b', but users\.b is still in the models",
        ),
        (
            f"table('users', sa.Column('age', sa.Integer), {hinting('b', 'aeg')})",
            r"users\.b was renamed from 'aeg', but the migrations have no column users\.aeg",
        ),
        (
            f"table('people', {hinting('age', 'age')}, info={{'renamed_from': 'users'}})\n"
            "table('folk', sa.Column('age', sa.Integer), info={'renamed_from': 'users'})",
            "both (people and folk|folk and people) were renamed from users",
        ),
    ],
)
def test_hints_that_cannot_be(small: Project, after: str, problem: str, others: bool) -> None:
    """Hints of which not all can be true are an error that names both, and nothing is written."""
    small.write_env("main", models(after))
    with pytest.raises(InvalidArgument, match=problem):
        make_revision(small.database(), "rename", other_renames=others)
    assert 1 == len(small.versions())


def test_what_is_said_wins_over_hints(small: Project) -> None:
    """What the caller says decides between two hints, and old hints are no error later."""
    two = f"table('users', {hinting('b', 'age')}, {hinting('c', 'age')})"
    small.write_env("main", models(two))
    path = make_revision(small.database(), "rename", renames=["users.age:c"])
    assert path is not None
    assert "alter_column('users', 'age', new_column_name='c')" in path.read_text()
    assert make_revision(small.database(), "again") is None


COLUMN = "table('users', sa.Column({!r}, {}))"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("sa.Integer", "sa.Float"),
        ("sa.Integer", "sa.Numeric(8, 2)"),
        *[
            (same, same)
            for same in ("sa.Boolean", "sa.Enum('a', 'b', name='x')", "sa.Interval", "sa.Uuid")
        ],
    ],
)
def test_types_that_are_stored_as_others(
    project: Project, each_url: sa.URL, old: str, new: str
) -> None:
    """A column whose data the new one may have is asked about, whatever the types are called."""
    start(project, Case(COLUMN.format("a", old), COLUMN.format("b", new), [], "", ""), each_url)
    with pytest.raises(Refused, match=r"users\.b is new, and users\.a is gone"):
        make_revision(project.database(), "rename")
    assert 1 == len(project.versions())


def test_a_table_of_types_that_are_stored_as_others(project: Project, each_url: sa.URL) -> None:
    """A table whose columns the server stores as other types is asked about too."""
    before = "table('users', sa.Column('a', sa.Boolean), sa.Column('b', sa.Interval))"
    start(project, Case(before, before.replace("users", "people"), [], "", ""), each_url)
    with pytest.raises(Refused, match="--rename users:people"):
        make_revision(project.database(), "rename")


def test_other_names_in_python(small: Project) -> None:
    """A column that has another key in the models than in the database is asked about too."""
    small.write_env("main", models("table('users', sa.Column('size', sa.Integer, key='length'))"))
    with pytest.raises(Refused, match=r"--rename users\.age:size"):
        make_revision(small.database(), "rename")


def test_one_answer_settles_the_others(make_project: MakeProject, fresh_url: FreshURL) -> None:
    """What has been renamed is not asked about again, and the likeliest comes first."""
    url, case, asked = fresh_url("sqlite"), CASES["ambiguous"], list[str]()
    project = make_project({"main": url})
    start(project, case, url)

    def ask(question: str) -> bool:
        asked.append(question)
        return True

    make_revision(project.database(), "rename", ask=ask)
    assert 2 == len(asked)
    assert {"age", "size"} == {question.split(".")[1].split()[0] for question in asked}


@pytest.mark.parametrize("said", ["users.age:nothing", "users.nothing:height", "users:people"])
def test_a_rename_that_fits_nothing(small: Project, said: str) -> None:
    """A rename of what does not differ is refused, and the possible ones are named."""
    with pytest.raises(InvalidArgument, match=r"fits nothing.*possible: users\.age:height"):
        make_revision(small.database(), "rename", renames=[said], other_renames=False)
    assert 1 == len(small.versions())


@pytest.mark.parametrize("said", ["", "users", "users.age", ":", "a:b:c", "users.age:users.height"])
def test_a_rename_of_another_form(offline: Project, said: str) -> None:
    """A rename that cannot be read is refused before anything is done, with its form."""
    with pytest.raises(InvalidArgument, match=r"TABLE\.COLUMN:NEW_NAME"):
        make_revision(offline.database(), "rename", renames=[said])


def test_hints_of_yesterday(small: Project) -> None:
    """A hint that stays in the models after its revision does no harm."""
    after = "table('users', sa.Column('height', sa.Integer, info={'renamed_from': 'age'}))"
    small.write_env("main", models(after))
    assert make_revision(small.database(), "rename") is not None
    assert make_revision(small.database(), "again") is None


def test_renamed_and_changed(project: Project, each_url: sa.URL) -> None:
    """A column that is renamed and wider, NOT NULL and indexed now, keeps its rows too."""
    case = Case(
        "table('users', sa.Column('code', sa.String(4)))",
        "table('users', sa.Column('sign', sa.String(40), nullable=False, index=True))",
        ["INSERT INTO users (id, code) VALUES (1, 'a')"],
        "SELECT id, sign FROM users",
        "SELECT id, code FROM users",
        expected=[(1, "a")],
    )
    start(project, case, each_url)
    make_revision(project.database(), "rename", renames=["users.code:sign"])
    check_round_trip(project, case, each_url)


def test_names_that_need_quotes(project: Project, each_url: sa.URL) -> None:
    """Reserved words, capitals, spaces, colons and percent signs are quoted."""

    def quoted(text: str) -> str:
        on_mysql = each_url.get_backend_name() in ("mysql", "mariadb")
        return text.replace('"', "`") if on_mysql else text

    case = Case(
        "table('order', sa.Column('User Id', sa.Integer, index=True))",
        "table('group', sa.Column('Select :me 5%', sa.Integer, index=True))",
        [quoted('INSERT INTO "order" VALUES (1, 7)')],
        quoted('SELECT * FROM "group"'),
        quoted('SELECT * FROM "order"'),
        expected=[(1, 7)],
    )
    start(project, case, each_url)
    make_revision(project.database(), "rename", ask=lambda question: True)
    check_round_trip(project, case, each_url)


def test_long_names(make_project: MakeProject, postgresql_database_url: sa.URL) -> None:
    """Names that the convention makes too long are cut as the models' are."""
    old = "a_column_with_a_name_that_is_really_very_long_indeed_1"
    new = "a_column_with_a_name_that_is_really_very_long_indeed_2"
    case = Case(
        f"table('users_of_the_system', sa.Column('{old}', sa.Integer, index=True))",
        f"table('users_of_the_system', sa.Column('{new}', sa.Integer, index=True))",
        ["INSERT INTO users_of_the_system VALUES (1, 7)"],
        "SELECT * FROM users_of_the_system",
        "SELECT * FROM users_of_the_system",
        expected=[(1, 7)],
    )
    project = make_project({"main": postgresql_database_url})
    start(project, case, postgresql_database_url)
    renames = [f"users_of_the_system.{old}:{new}"]
    path = make_revision(project.database(), "rename", renames=renames)
    assert path is not None
    assert "ALTER INDEX" in path.read_text()
    check_round_trip(project, case, postgresql_database_url)


def test_schemas(make_project: MakeProject, postgresql_database_url: sa.URL) -> None:
    """Tables and columns in a schema of PostgreSQL are renamed there."""
    url = postgresql_database_url
    project = make_project({"main": url})
    project.revision("a1", "op.execute('CREATE SCHEMA fleet')")
    before = (
        "table('ship', sa.Column('owner', sa.Integer, index=True), schema='fleet')\n"
        "table('crew', sa.Column('ship_id', sa.ForeignKey('fleet.ship.id')), schema='fleet')"
    )
    case = Case(
        before,
        before.replace("'ship'", "'boat'")
        .replace("fleet.ship", "fleet.boat")
        .replace("'owner'", "'holder'"),
        ["INSERT INTO fleet.ship (id, owner) VALUES (1, 7)"],
        "SELECT id, holder FROM fleet.boat",
        "SELECT id, owner FROM fleet.ship",
        expected=[(1, 7)],
    )
    start(project, case, url)
    renames = ["fleet.ship:boat", "fleet.boat.owner:holder"]
    path = make_revision(project.database(), "rename", renames=renames)
    assert path is not None
    assert "op.rename_table('ship', 'boat', schema='fleet')" in path.read_text()
    assert "ALTER INDEX fleet.ix_ship_owner RENAME TO ix_boat_holder" in path.read_text()
    assert "fk_crew_ship_id_ship TO fk_crew_ship_id_boat" in path.read_text()
    check_round_trip(project, case, url)


def test_a_rename_that_the_server_refuses(small: Project) -> None:
    """A rename that cannot be executed is named, and nothing is written."""
    versions = small.directory("main") / "versions"
    view = "op.execute('CREATE VIEW people AS SELECT 1')"
    (first,) = small.versions()
    small.revision("b1", view, after=revision_id(versions / first))
    small.write_env("main", models("table('people', sa.Column('age', sa.Integer))"))
    with pytest.raises(MigrationError, match=r"shadow database refuses the rename.*people"):
        make_revision(small.database(), "rename", renames=["users:people"])


def revision_id(path: Path) -> str:
    (found,) = re.findall(r"^revision = '(\w+)'", path.read_text(), re.MULTILINE)
    return str(found)
