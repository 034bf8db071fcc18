"""elevations are stored in metres

Revision: 0003
Revises: 0002
Created: 2026-11-21 17:41:50.847216
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# qapla: changes airport.elevation, feet to metres


def upgrade() -> None:
    op.execute("UPDATE airport SET elevation = elevation * 0.3048 WHERE elevation <> 0")


def downgrade() -> None:
    op.execute("UPDATE airport SET elevation = elevation / 0.3048 WHERE elevation <> 0")
