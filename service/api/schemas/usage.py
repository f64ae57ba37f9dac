"""What GET /v1/usage takes and responses."""

import datetime
import re
from datetime import date
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def _parse_day(text: str) -> date:
    """One way to write a day, of all that Python and pydantic know."""
    if not _DAY.fullmatch(text):
        raise ValueError("must be a day such as 2026-11-24")
    return date.fromisoformat(text)


GivenDay = Annotated[date, BeforeValidator(_parse_day)]


class UsageQuery(BaseModel):
    """Which days are requested."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    first: Annotated[GivenDay | None, Field(alias="from")] = None
    last: Annotated[GivenDay | None, Field(alias="to")] = None

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.first and self.last and self.first > self.last:
            raise ValueError("from is after to")
        return self


class UsageEntry(BaseModel):
    """One key's requests of one kind on one day."""

    key: Annotated[str, Field(description="The API key's name.")]
    date: Annotated[datetime.date, Field(description="UTC.")]
    kind: Annotated[str, Field(description="generation, variation, interpolation, ...")]
    requests: Annotated[int, Field(description="All that came, those with errors too.")]
    pictures: Annotated[int, Field(description="Created; a replayed response counts none.")]
    errors: Annotated[int, Field(description="Responses with a status of 400 or more.")]


class QuotaState(BaseModel):
    """What one key has left."""

    key: str
    pictures: Annotated[int, Field(description="The quota.")]
    per: Literal["day", "month"]
    used: int
    left: int
    resets_at: Annotated[int, Field(description="Unix time.")]


class UsageList(BaseModel):
    """Response of GET /v1/usage: of all keys for a key with the scope admin, else of one's own."""

    object: Literal["list"] = "list"
    data: Annotated[list[UsageEntry], Field(description="Oldest first.")]
    quotas: Annotated[list[QuotaState], Field(description="Now, of the keys that have one.")]
