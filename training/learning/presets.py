"""Named settings, each intended for one image size; any preset works with any dataset size.

Which were run: cpu-demo many times on a CPU; gpu-64 and gpu-128 once on an H100, which trained the
bases (docs/performance.md). gpu-256 and gpu-512 are extrapolated from these by size; only their
speed was measured, with another discriminator. cpu-64 is gpu-64 with the smaller batches that a
CPU has time for.
"""

from typing import Any, Final

from training.learning.config import merge

_PRETRAINED: Final = {
    # A fifth to a half of the distance of the convolutional one alone: docs/decisions/0019.
    "discriminator": "both",
    "optimizer": {"learning_rate": 0.004, "mapping_multiplier": 0.3, "r1_gamma": 1.0},
}


def _gpu(**settings: Any) -> dict[str, Any]:
    """Merge `settings` over the settings that all GPU presets have in common."""
    common = {
        "batch_size": 64,
        "model": {"channel_base": 4096},
        "optimizer": {"ema_kimg": 20.0},
        "augment": {"adjust_kimg": 200.0},
        "checkpoint_kimg": 100.0,
        "grid_kimg": 100.0,
        "tick_kimg": 4.0,
    }
    return merge(merge(_PRETRAINED, common), settings)


PRESETS: Final[dict[str, dict[str, Any]]] = {
    # 32 px on two CPU cores within minutes.
    "cpu-demo": {
        # Half the images in the same time, at a lower distance: docs/decisions/0019.
        "discriminator": "both",
        "batch_size": 16,
        "model": {"channel_base": 1024},
        # A hundred times the usual penalty halves the distance at this size and batch:
        # docs/decisions/0019, last paragraph.
        "optimizer": {"learning_rate": 0.006, "mapping_multiplier": 0.3, "r1_gamma": 1.0},
    },
    # 64 px on a CPU within hours.
    # Many small steps: a quarter of an hour is 8 kimg (docs/fine-tuning.md).
    "cpu-64": merge(
        _PRETRAINED,
        {"batch_size": 8, "model": {"channel_base": 4096}, "optimizer": {"decay": 0.3}},
    ),
    # A tenth of this penalty doubled the distance; narrow, so that a CPU can fine-tune it.
    "gpu-64": _gpu(),
    "gpu-128": _gpu(optimizer={"r1_gamma": 2.0}),
    "gpu-256": _gpu(
        batch_size=32,
        model={"channel_base": 16384, "channel_max": 256},
        optimizer={"r1_gamma": 4.0},
        checkpoint_kimg=200.0,
        grid_kimg=200.0,
    ),
    "gpu-512": _gpu(
        batch_size=16,
        model={"channel_base": 32768, "channel_max": 512},
        optimizer={"r1_gamma": 8.0},
        checkpoint_kimg=200.0,
        grid_kimg=200.0,
    ),
}

# Longer side in pixels that each preset is intended for; decides the default of `--preset`.
PRESET_SIZE_PX: Final = {
    "cpu-demo": 32,
    "cpu-64": 64,
    "gpu-64": 64,
    "gpu-128": 128,
    "gpu-256": 256,
    "gpu-512": 512,
}


def default_preset(longer_side_px: int, on_cpu: bool) -> str:
    """Choose the preset for a size: the first one of the device's kind that is large enough.

    A CPU uses the larger of its two for all larger sizes: with the widths of a GPU's presets
    training would take weeks.
    """
    if longer_side_px <= 32:
        return "cpu-demo"
    if on_cpu:
        return "cpu-64"
    sizes = [name for name in PRESETS if name.startswith("gpu")]
    return next((n for n in sizes if longer_side_px <= PRESET_SIZE_PX[n]), sizes[-1])
