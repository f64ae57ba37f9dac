"""The call that shows usage and quotas."""

from datetime import date

from catalogan_client.calls import Call, given
from catalogan_client.methods import AnyTransport, Endpoint, Resource
from catalogan_client.parsing import json_reader
from catalogan_client.results import Usage


def get_usage(first: date | None = None, last: date | None = None) -> Call[Usage]:
    """Show one's own usage and quota, with the scope admin those of all; by default 30 days."""
    query = {"from": first and first.isoformat(), "to": last and last.isoformat()}
    return Call("GET", "/v1/usage", json_reader(Usage), query=given(**query))


class UsageReports(Resource[AnyTransport]):
    """What was requested, and what is left of quotas."""

    get = Endpoint(get_usage)
