"""longer names of time zones

Revision: 0005
Revises: 0004
Created: 2026-11-21 17:45:02.556190
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# qapla: allow change-type, MySQL copies the table for it, but it has 28,000 rows only


def upgrade() -> None:
    with op.batch_alter_table("airport") as airport:
        airport.alter_column(
            "timezone",
            type_=sa.String(length=64),
            existing_type=sa.String(length=60),
            existing_nullable=False,
            existing_server_default="",
        )


def downgrade() -> None:
    with op.batch_alter_table("airport") as airport:
        airport.alter_column(
            "timezone",
            type_=sa.String(length=60),
            existing_type=sa.String(length=64),
            existing_nullable=False,
            existing_server_default="",
        )
