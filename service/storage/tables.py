"""The tables, as the newest migration leaves them. Times are Unix seconds, UTC.

`key_name` holds a key's id; earlier versions wrote its name there (`key_ids.py`).
"""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    Date,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

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

# What each key requested, by UTC day and kind of image.
usage: Final = Table(
    "usage",
    metadata,
    Column("key_name", String(64), primary_key=True),
    Column("day", Date, primary_key=True),
    Column("kind", String(32), primary_key=True),
    Column("requests", BigInteger, nullable=False),
    Column("pictures", BigInteger, nullable=False),
    Column("errors", BigInteger, nullable=False),
)

# Images that a key has taken of its quota; the period is a UTC day or month, as in ISO 8601.
quotas: Final = Table(
    "quotas",
    metadata,
    Column("key_name", String(64), primary_key=True),
    Column("period", String(10), primary_key=True),
    Column("pictures", BigInteger, nullable=False),
)

# Requests with an Idempotency-Key; status, headers and body once they have a response.
responses: Final = Table(
    "answers",
    metadata,
    Column("key_name", String(64), primary_key=True),
    Column("idempotency_key", String(255), primary_key=True),
    Column("request_sha256", LargeBinary(32), nullable=False),
    Column("owner", String(32), nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("leased_until", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("status", Integer),
    Column("headers", Text),
    Column("body", LargeBinary),
    # Holds what the bound on all responses needs, so that no body is read for it.
    Index("answers_created_bytes", "created", "bytes"),
)
