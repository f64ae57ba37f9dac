"""Calls that show the served models."""

from urllib.parse import quote

from catalogan_client.calls import Call
from catalogan_client.methods import AnyTransport, Endpoint, Resource
from catalogan_client.parsing import json_reader
from catalogan_client.results import Model, ModelList


def list_models() -> Call[ModelList]:
    """List the models that are served."""
    return Call("GET", "/v1/models", json_reader(ModelList))


def retrieve_model(model: str) -> Call[Model]:
    """Show a model, by name or "name:version"."""
    return Call("GET", f"/v1/models/{quote(model, safe='')}", json_reader(Model))


class Models(Resource[AnyTransport]):
    """What is served."""

    list = Endpoint(list_models)
    retrieve = Endpoint(retrieve_model)
