"""a neighbour's distance says its unit

Revision: 0002
Revises: 0001
Created: 2026-11-21 17:40:12.310582
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# qapla: allow rename-column, web server and worker are stopped while it is migrated


def upgrade() -> None:
    with op.batch_alter_table("neighbour") as neighbour:
        neighbour.alter_column(
            "distance",
            new_column_name="distance_km",
            existing_type=sa.Double(),
            existing_nullable=False,
        )


def downgrade() -> None:
    with op.batch_alter_table("neighbour") as neighbour:
        neighbour.alter_column(
            "distance_km",
            new_column_name="distance",
            existing_type=sa.Double(),
            existing_nullable=False,
        )
