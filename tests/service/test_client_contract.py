"""The client has every field that the OpenAPI document names, and no other."""

import dataclasses
import inspect
from typing import Any

import pytest
from starlette.testclient import TestClient

from catalogan_client import images, labelled_sets, results, verifications

RESULTS = {
    "GenerationResponse": results.Generation,
    "GeneratedImage": results.GeneratedImage,
    "UsedStyleMixing": results.StyleMixing,
    "VariationResponse": results.Variation,
    "VariedImage": results.VariedImage,
    "ValidationErrors": results.ValidationErrors,
    "AugmentationResponse": results.Augmentation,
    "AugmentedImage": results.AugmentedImage,
    "CarriedAnnotation": results.Annotations,
    "ModelInfo": results.Model,
    "Marks": results.Marks,
    "ModelList": results.ModelList,
    "Verification": results.Verification,
    "Layer": results.Layer,
    "Claims": results.Claims,
    "Signer": results.Signer,
    "UsageList": results.Usage,
    "UsageEntry": results.UsageEntry,
    "QuotaState": results.Quota,
}
REQUESTS = {
    "/v1/images/generations": images.generate,
    "/v1/images/variations": images.vary,
    "/v1/images/interpolations": images.interpolate,
    "/v1/images/augmentations": images.augment,
    "/v1/datasets": labelled_sets.create_dataset,
    "/v1/verifications": verifications.verify,
}
# What the client calls otherwise, and what it has no use for.
NAMES = {"photo": "image", "photos": "image", "picture": "image", "masks": "mask"}
SAID_OTHERWISE = {"/v1/images/interpolations": {"seeds", "image"}}  # by waypoints
LEFT_OUT = {
    *("object", "response_format", "stream", "partial_images"),
    *("quality", "style", "moderation", "complexity", "safety_identifier"),
}


@pytest.fixture(scope="module")
def document(client: TestClient) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/v1/openapi.json").json()
    return found


@pytest.mark.parametrize("name", RESULTS)
def test_results(document: dict[str, Any], name: str) -> None:
    schema = document["components"]["schemas"][name]
    fields = dataclasses.fields(RESULTS[name])
    known = {field.metadata.get("json", field.name): field for field in fields}
    assert set(known) == set(schema["properties"]) - LEFT_OUT
    needed = {name for name in known if known[name].default is dataclasses.MISSING}
    assert needed == set(schema.get("required", ())) - LEFT_OUT


@pytest.mark.parametrize("path", REQUESTS)
def test_requests(document: dict[str, Any], path: str) -> None:
    contents = document["paths"][path]["post"]["requestBody"]["content"].values()
    fields = {name for content in contents for name in content["schema"]["properties"]}
    arguments = {NAMES.get(name, name) for name in inspect.signature(REQUESTS[path]).parameters}
    assert arguments - {"idempotency_key"} == fields - LEFT_OUT - SAID_OTHERWISE.get(path, set())


def test_no_endpoint_is_left_out(document: dict[str, Any]) -> None:
    gets = {"/v1/models", "/v1/models/{model}", "/v1/usage"}
    assert set(document["paths"]) == gets | set(REQUESTS)
