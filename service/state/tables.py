"""The tables, as the newest migration leaves them. Times are Unix seconds, UTC."""

from typing import Final

from sqlalchemy import BigInteger, Column, Index, LargeBinary, MetaData, String, Table

metadata: Final = MetaData()

records: Final = Table(
    "records",
    metadata,
    Column("sha256", LargeBinary(32), primary_key=True),
    Column("kind", String(32), nullable=False),
    Column("source_type", String(200), nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("model", String(200)),
    Column("model_hash", String(64)),
    Column("seed", BigInteger),
    Column("category", String(200)),
    Column("request_id", String(64)),
    Index("records_created", "created"),
)
