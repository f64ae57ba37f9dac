"""Calls for labelled sets: arguments -> call.

The fields are those of docs/api.md; what is None is left to the service.
"""

from collections.abc import Mapping
from typing import Final, Literal

import httpx

from catalogan_client.calls import Call, OutputFormat, given
from catalogan_client.methods import AnyTransport, Resource, Stream
from catalogan_client.parsing import build, header_metadata
from catalogan_client.results import DatasetFacts

SET_TYPES: Final = "application/zip, application/x-tar"


def create_dataset(
    categories: Mapping[str, int] | None = None,
    *,
    count: int | None = None,
    seed: int | None = None,
    shard: tuple[int, int] | None = None,
    layout: Literal["folder", "coco", "webdataset"] | None = None,
    container: Literal["zip", "tar"] | None = None,
    truncation_psi: float | None = None,
    model: str | None = None,
    size: str | None = None,
    background: str | None = None,
    output_format: OutputFormat | None = None,
    output_compression: int | None = None,
    user: str | None = None,
) -> Call[DatasetFacts]:
    """Create a labelled set: so many images of each category, or `count` of all.

    `shard` (1, 4) is the first of four parts of the set.
    """
    body = given(
        categories=categories and dict(categories),
        count=count,
        seed=seed,
        shard=shard and {"index": shard[0], "of": shard[1]},
        layout=layout,
        container=container,
        truncation_psi=truncation_psi,
        model=model,
        size=size,
        background=background,
        output_format=output_format,
        output_compression=output_compression,
        user=user,
    )
    return Call("POST", "/v1/datasets", _read_dataset, body, accept=SET_TYPES)


class Datasets(Resource[AnyTransport]):
    """Labelled synthetic sets.

    with client.datasets.create({"mug": 500}, seed=1) as dataset:
        dataset.save("set.zip")
    """

    create = Stream(create_dataset)


def _read_dataset(response: httpx.Response) -> DatasetFacts:
    found: DatasetFacts = build(DatasetFacts, header_metadata(response, DatasetFacts))
    return found
