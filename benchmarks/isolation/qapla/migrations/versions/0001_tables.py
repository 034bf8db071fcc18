from alembic import op
from tables import Base

revision = "0001"
down_revision = None


def upgrade() -> None:
    for table in Base.metadata.sorted_tables:
        table.create(op.get_bind())


def downgrade() -> None:
    for table in Base.metadata.sorted_tables:
        op.drop_table(table.name)
