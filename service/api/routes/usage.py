"""GET /v1/usage: what each key requested, and what is left of its quota."""

from datetime import date, timedelta
from typing import Any, Final

from fastapi import FastAPI, Request

from service.access.api_keys import ApiKey, name_in
from service.api.caller import key_of
from service.api.endpoint import USAGE
from service.api.openapi import route
from service.api.runtime import Runtime
from service.api.schemas.usage import QuotaState, UsageEntry, UsageList, UsageQuery
from service.fields import validate
from service.storage.quotas import Quota, utc_now

DEFAULT_DAYS: Final = 30


def add_routes(app: FastAPI, runtime: Runtime) -> None:
    """Add GET /v1/usage."""
    parameters = [_parameter("from", "First day, UTC; by default 30 days are listed.")]
    parameters.append(_parameter("to", "Last day, UTC; by default today."))

    @route(app, USAGE, openapi_extra={"parameters": parameters})
    async def show_usage(request: Request) -> UsageList:
        """Requests, images and errors by key, day and kind."""
        query = validate(UsageQuery, dict(request.query_params))
        caller = key_of(request)
        is_admin = "admin" in caller.scopes
        last = query.last or utc_now().date()
        first = query.first or max(date.min + timedelta(DEFAULT_DAYS), last) - timedelta(
            DEFAULT_DAYS - 1
        )
        used = await runtime.state.usage.between(first, last, None if is_admin else caller.id)
        names = {key.id: key.name for key in (*runtime.keyring.all(), caller)}
        data = [
            UsageEntry(
                key=names.get(one.key_name, name_in(one.key_name)),
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
    quotas = [(key, quota) for key in keys if (quota := Quota.of(key, now))]
    if not quotas:
        return []
    taken = await runtime.state.quotas.taken({key.id: quota.period for key, quota in quotas})
    return [
        QuotaState(
            key=key.name,
            pictures=quota.limit,
            per=quota.per,
            used=taken.get(key.id, 0),
            left=max(0, quota.limit - taken.get(key.id, 0)),
            resets_at=int(quota.ends.timestamp()),
        )
        for key, quota in sorted(quotas, key=lambda one: one[0].name)
    ]


def _parameter(name: str, description: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "query",
        "required": False,
        "description": description,
        "schema": {"type": "string", "format": "date"},
    }
