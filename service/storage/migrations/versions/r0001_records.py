"""Records of handed-out images."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the table of records."""
    op.create_table(
        "records",
        sa.Column("sha256", sa.LargeBinary(32), primary_key=True),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("source_type", sa.String(200), nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("model", sa.String(200)),
        sa.Column("model_hash", sa.String(64)),
        sa.Column("seed", sa.BigInteger),
        sa.Column("category", sa.String(200)),
        sa.Column("request_id", sa.String(64)),
    )
    op.create_index("records_created", "records", ["created"])
