"""events of the command line

Revision: 0003
Revises: 0002
Created: 2026-11-21 17:48:07.662914
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

BEFORE = sa.Enum("web", "worker", name="origin", length=10)
AFTER = sa.Enum("web", "worker", "command", name="origin", length=10)


def upgrade() -> None:
    dialect = op.get_context().dialect.name
    if dialect == "postgresql":
        op.execute("ALTER TYPE origin ADD VALUE 'command'")
    elif dialect in ("mysql", "mariadb"):
        _alter(BEFORE, AFTER)
    # on SQLite it is text


def downgrade() -> None:
    """Take the value away; what has it came, as far as the former values tell, from a worker."""
    op.execute("UPDATE event SET origin = 'worker' WHERE origin = 'command'")
    dialect = op.get_context().dialect.name
    if dialect == "postgresql":
        op.execute("ALTER TYPE origin RENAME TO origin_0003")
        op.execute("CREATE TYPE origin AS ENUM ('web', 'worker')")
        op.execute("ALTER TABLE event ALTER origin DROP DEFAULT")
        op.execute("ALTER TABLE event ALTER origin TYPE origin USING origin::text::origin")
        op.execute("ALTER TABLE event ALTER origin SET DEFAULT 'web'")
        op.execute("DROP TYPE origin_0003")
    elif dialect in ("mysql", "mariadb"):
        _alter(AFTER, BEFORE)


def _alter(before: sa.Enum, after: sa.Enum) -> None:
    op.alter_column(
        "event",
        "origin",
        type_=after,
        existing_type=before,
        existing_nullable=False,
        existing_server_default="web",
    )
