"""The fixed model that serving is measured with: `bench-128`, of about 3 M parameters."""

import dataclasses
import datetime
import hashlib
from pathlib import Path

import torch

from models.generator import Generator, GeneratorShape
from models.manifest import (
    GENERATOR_FILE,
    MANIFEST_FILE,
    FileRecord,
    GeneratorManifest,
)
from training.export.graphs import OPSET, to_onnx
from training.export.parity import measure_parity

NAME = "bench-128"
CATEGORIES = ("bag", "bottle", "box", "chair", "lamp", "mug", "shirt", "shoe")
SHAPE = GeneratorShape(
    height=128,
    width=128,
    channels=3,
    categories=len(CATEGORIES),
    z_dim=128,
    w_dim=256,
    channel_base=4096,
    channel_max=192,
)
SEED = 0
# A trained generator adds noise; the first weights would add none.
NOISE_STRENGTH = 0.1


def build_generator() -> Generator:
    """The generator, with its first weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        generator = Generator(SHAPE).eval().requires_grad_(False)
    for name, parameter in generator.named_parameters():
        if name.endswith("noise_strength"):
            parameter.fill_(NOISE_STRENGTH)
    generator.update_w_avg()
    return generator


def write_export(folder: Path) -> int:
    """Export the model as `catalogan export` would; gives its count of parameters."""
    generator = build_generator()
    graph = to_onnx(generator, "fp32")
    manifest = GeneratorManifest(
        name=NAME,
        created=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
        categories=CATEGORIES,
        width=SHAPE.width,
        height=SHAPE.height,
        channels=3,
        z_dim=generator.z_dim,
        noise_dim=generator.noise_dim,
        num_ws=generator.style_shape[0],
        w_dim=generator.style_shape[1],
        opset=OPSET,
        preset=NAME,
        nimg=0,
        dataset_hash="0" * 64,
        training={"model": dataclasses.asdict(SHAPE)},
        licence="CC0-1.0",
        parity=measure_parity(generator, graph, "fp32"),
        files={
            GENERATOR_FILE: FileRecord(sha256=hashlib.sha256(graph).hexdigest(), bytes=len(graph))
        },
    )
    folder.mkdir()
    (folder / GENERATOR_FILE).write_bytes(graph)
    (folder / MANIFEST_FILE).write_text(manifest.model_dump_json(indent=2), encoding="utf-8")
    return sum(parameter.numel() for parameter in generator.parameters())
