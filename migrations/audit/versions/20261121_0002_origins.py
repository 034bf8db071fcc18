"""an event knows where it came from

Revision: 0002
Revises: 0001
Created: 2026-11-21 17:46:20.190277
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

ORIGIN = sa.Enum("web", "worker", name="origin", length=10)


def upgrade() -> None:
    ORIGIN.create(op.get_bind(), checkfirst=False)
    op.add_column("event", sa.Column("origin", ORIGIN, server_default="web", nullable=False))
    op.execute("UPDATE event SET origin = 'worker' WHERE who LIKE 'worker%'")


def downgrade() -> None:
    op.drop_column("event", "origin")
    ORIGIN.drop(op.get_bind(), checkfirst=False)
