"""What a set says of itself: manifest.json for programs, README.md for people."""

import json
from collections.abc import Sequence
from typing import Any, Final

from models.markdown import plain_markdown
from service.datasets.plan import DatasetPlan
from service.datasets.reading import how_to_read
from service.generation.output import ImageEncoder
from service.provenance.xmp import GENERATED

STATEMENT: Final = (
    "All images in this set are synthetic: a generator created them. They show no real product, "
    "and their labels say what the generator was to show."
)
MAX_ROWS: Final = 200


def set_metadata(
    plan: DatasetPlan, encoder: ImageEncoder, folders: Sequence[str]
) -> dict[str, Any]:
    """What holds for the whole set, whatever part of it is generated."""
    manifest = encoder.manifest
    background = plan.presentation.background
    return {
        "synthetic": True,
        "statement": STATEMENT,
        "digital_source_type": GENERATED,
        "model": encoder.model_id,
        "model_hash": manifest.model_hash,
        "model_author": manifest.author,
        "model_licence": manifest.licence,
        "model_trained_on": manifest.data,
        "seed": plan.seed,
        "truncation_psi": plan.truncation_psi,
        "size": plan.presentation.size,
        "enlargement": plan.presentation.enlargement,
        "background": background and "#{:02x}{:02x}{:02x}".format(*background),
        "output_format": plan.output_format,
        "output_compression": plan.output_compression,
        "layout": plan.layout,
        "count": plan.total,
        "categories": [
            {
                "name": manifest.categories[category],
                "label": category,
                "folder": folders[category],
                "count": plan.counts[category],
                "first_seed": plan.first_seed(category),
            }
            for category in sorted(plan.counts)
        ],
    }


def set_manifest(metadata: dict[str, Any], plan: DatasetPlan) -> bytes:
    """manifest.json; it comes last, so a set that has it is whole."""
    numbers = plan.numbers
    shard = {
        "index": plan.shard.index,
        "of": plan.shard.of,
        "count": len(numbers),
        "first_number": numbers[0] if numbers else None,
        "last_number": numbers[-1] if numbers else None,
    }
    text = json.dumps(
        {"schema_version": 1, **metadata, "shard": shard}, indent=2, ensure_ascii=False
    )
    return (text + "\n").encode()


def set_card(metadata: dict[str, Any]) -> bytes:
    """README.md, the same in all parts of a set."""
    lines = [
        f"# {metadata['count']:,} synthetic product images",
        "",
        STATEMENT,
        "",
        "Every file says so, too (XMP, IPTC DigitalSourceType trainedAlgorithmicMedia): keep the "
        "marks where you pass images on, and say that they are synthetic.",
        "",
        "| | |",
        "|---|---|",
        f"| Model | {plain_markdown(metadata['model'])} |",
        f"| SHA-256 of its generator | {metadata['model_hash']} |",
        f"| Licence of the model | {plain_markdown(metadata['model_licence'])} |",
        f"| Author of the model | {plain_markdown(metadata['model_author'])} |",
        f"| Trained on | {plain_markdown(metadata['model_trained_on'])} |",
        f"| Seed of the set | {metadata['seed']} |",
        f"| truncation_psi | {metadata['truncation_psi']} |",
        f"| Images | {metadata['size']}, {metadata['output_format']} |",
        "",
        "| category | label | images | first seed |",
        "|---|---|---|---|",
        *(
            f"| {plain_markdown(one['name'])} | {one['label']} | {one['count']} "
            f"| {one['first_seed']} |"
            for one in metadata["categories"][:MAX_ROWS]
        ),
        "",
    ]
    if len(metadata["categories"]) > MAX_ROWS:
        lines += [f"The manifest names all {len(metadata['categories'])} categories.", ""]
    lines += [
        "The i-th image of a category, from 0 on, has the seed `first seed + i`, modulo 2^53. "
        "With the model, the category, truncation_psi and size, it can be generated again: "
        "POST /v1/images/generations, or `catalogan generate`.",
        "",
        *how_to_read(metadata["layout"], metadata["output_format"]),
    ]
    return "\n".join(lines).encode()
