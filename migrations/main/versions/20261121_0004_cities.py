"""airports are found by their city

Revision: 0004
Revises: 0003
Created: 2026-11-21 17:43:31.093374
"""

from qapla_db.migrations.indexes import create_index_concurrently, drop_index_concurrently

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_index_concurrently("ix_airport_city", "airport", ["city"])


def downgrade() -> None:
    drop_index_concurrently("ix_airport_city", "airport")
