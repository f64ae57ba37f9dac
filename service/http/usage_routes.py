"""GET /v1/usage: what each key asked for, and what is left of its quota."""

import datetime
import re
from datetime import date, timedelta
from typing import Annotated, Any, Final, Literal, Self

from fastapi import FastAPI, Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from service.access.api_keys import ApiKey
from service.http.access import key_of
from service.http.openapi import responses
from service.http.runtime import Runtime
from service.messages.schemas import validate
from service.state.quotas import Quota, utc_now

DEFAULT_DAYS: Final = 30

_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def _parse_day(text: str) -> date:
    """One way to write a day, of all that Python and pydantic know."""
    if not _DAY.fullmatch(text):
        raise ValueError("must be a day such as 2026-11-24")
    return date.fromisoformat(text)


GivenDay = Annotated[date, BeforeValidator(_parse_day)]


class UsageQuery(BaseModel):
    """Which days are asked for."""

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
    pictures: Annotated[int, Field(description="Made; an answer given again makes none.")]
    errors: Annotated[int, Field(description="Answers with a status of 400 or more.")]


class QuotaState(BaseModel):
    """What one key has left."""

    key: str
    pictures: Annotated[int, Field(description="The quota.")]
    per: Literal["day", "month"]
    used: int
    left: int
    resets_at: Annotated[int, Field(description="Unix time.")]


class UsageList(BaseModel):
    """Answer of GET /v1/usage: of all keys for a key with the scope admin, else of one's own."""

    object: Literal["list"] = "list"
    data: Annotated[list[UsageEntry], Field(description="Oldest first.")]
    quotas: Annotated[list[QuotaState], Field(description="Now, of the keys that have one.")]


def add_usage(app: FastAPI, runtime: Runtime) -> None:
    """Add GET /v1/usage."""
    parameters = [_parameter("from", "First day, UTC; by default 30 days of them are given.")]
    parameters.append(_parameter("to", "Last day, UTC; by default today."))

    @app.get(
        "/v1/usage",
        summary="Show usage and quotas",
        responses=responses(None, 400, 401, 500, 503),
        openapi_extra={"parameters": parameters},
    )
    async def show_usage(request: Request) -> UsageList:
        """Requests, pictures and errors by key, day and kind."""
        query = validate(UsageQuery, dict(request.query_params))
        caller = key_of(request)
        is_admin = "admin" in caller.scopes
        last = query.last or utc_now().date()
        first = query.first or max(date.min + timedelta(DEFAULT_DAYS), last) - timedelta(
            DEFAULT_DAYS - 1
        )
        used = await runtime.state.usage.between(first, last, None if is_admin else caller.name)
        data = [
            UsageEntry(
                key=one.key_name,
                date=one.day,
                kind=one.kind,
                requests=one.requests,
                pictures=one.pictures,
                errors=one.errors,
            )
            for one in used
        ]
        keys = runtime.keyring.all() if is_admin else [caller]
        return UsageList(data=data, quotas=await _quota_states(keys, runtime))


async def _quota_states(keys: list[ApiKey], runtime: Runtime) -> list[QuotaState]:
    now = utc_now()
    quotas = {key.name: quota for key in keys if (quota := Quota.of(key, now))}
    if not quotas:
        return []
    taken = await runtime.state.quotas.taken({name: one.period for name, one in quotas.items()})
    return [
        QuotaState(
            key=name,
            pictures=quota.limit,
            per=quota.per,
            used=taken.get(name, 0),
            left=max(0, quota.limit - taken.get(name, 0)),
            resets_at=int(quota.ends.timestamp()),
        )
        for name, quota in sorted(quotas.items())
    ]


def _parameter(name: str, description: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "query",
        "required": False,
        "description": description,
        "schema": {"type": "string", "format": "date"},
    }
