"""The model card of an export: what a person should know before using the model."""

from models.manifest import PREVIEW_FILE, WEIGHTS_FILE, GeneratorManifest


def model_card(manifest: GeneratorManifest) -> bytes:
    """Markdown that says what the model paints, what it learnt from, and how good it is.

    Args:
        manifest: Of the export, whose files need not be listed yet.
    """
    masking = manifest.masking.get("mode", "off")
    augment = manifest.training.get("augment", {})
    mirrored = augment.get("mode") != "off" and augment.get("mirror", True)
    lines = [
        f"# {manifest.name}",
        "",
        f"Paints product pictures of {manifest.width} x {manifest.height} px in "
        f"{len(manifest.categories)} categories: {', '.join(manifest.categories)}.",
        "",
        f"![A row of pictures for each category]({PREVIEW_FILE})",
        "",
        "| | |",
        "|---|---|",
        f"| Model | StyleGAN2-family generator, masking of its discriminator: {masking} |",
        f"| Trained on | {_cell(manifest.data)} (dataset {manifest.dataset_hash[:16]}) |",
        *(
            f"| {_cell(name)} is called | {_cell(', '.join(others))}, too |"
            for name, others in manifest.synonyms.items()
        ),
        f"| Images shown in training | {manifest.nimg:,}{_started_from(manifest)} |",
        f"| Photos mirrored in training | {'yes: print in pictures reads both ways' * mirrored}"
        f"{'no' * (not mirrored)} |",
        f"| Precision | {manifest.precision} |",
        f"| Licence | {_cell(manifest.licence)} |",
        f"| Author | {_cell(manifest.author)} |",
        f"| Made | {manifest.created:%Y-%m-%d} |",
        "",
        "## How good it is",
        "",
    ]
    if manifest.metrics:
        lines += [
            "Against photos that were not trained on; names that end in `_floor` say what real "
            "photos score instead. Distances are on EfficientNet-Lite2's features unless named "
            "otherwise: no FID.",
            "",
            "| metric | value |",
            "|---|---|",
            *(f"| {name} | {value:.4g} |" for name, value in manifest.metrics.items()),
        ]
    else:
        lines += ["Not evaluated before it was exported."]
    lines += _upscaler_lines(manifest)
    lines += _precision_lines(manifest)
    lines += [
        "",
        "## Before you use it",
        "",
        "- Its pictures are synthetic. What serves them marks them as such; keep the marks.",
        "- It knows its categories as the photos showed them, and nothing else; mixtures and "
        "truncation 1 give stranger pictures.",
        "- A generator can repeat photos that it learnt from: `catalogan evaluate` measures the "
        "share that comes too near.",
        f"- `{WEIGHTS_FILE}` is for fine-tuning (`catalogan train DATASET --from THIS_FOLDER`); "
        "a service does not load it.",
        "",
    ]
    return "\n".join(lines).encode()


def _started_from(manifest: GeneratorManifest) -> str:
    """What the images come on top of, where the run began with trained weights."""
    source = manifest.training.get("fine_tuning", {}).get("source")
    return f", from {_cell(source)} on" if source else ""


def _upscaler_lines(manifest: GeneratorManifest) -> list[str]:
    """What the upscaler is worth; nothing where there is none."""
    record = manifest.upscaler
    if record is None:
        return []
    size = f"{record.factor * manifest.width} x {record.factor * manifest.height}"
    return [
        "",
        "## Larger images",
        "",
        f"Its upscaler makes them {record.factor} times as large, {size} px. Kernel distance on "
        f"EfficientNet-Lite2 to {record.judged} validation photos of that size:",
        "",
        "| images | upscaled | by Lanczos |",
        "|---|---|---|",
        *(
            f"| {name} | {distances.upscaler:.4f} | {distances.lanczos:.4f} |"
            for name, distances in (
                ("validation photos that were made small", record.photos),
                ("generated images", record.generated),
            )
        ),
        "",
        "Detail that an upscaler adds is made up: it is like the catalogue's, and is no product's.",
    ]


def _precision_lines(manifest: GeneratorManifest) -> list[str]:
    """What a lower precision costs; nothing for float32."""
    if not manifest.losses:
        return []
    return [
        "",
        f"## What {manifest.precision} costs",
        "",
        "Its pictures against those in float32 of the same seeds; a step is one of 255.",
        "",
        "| truncation | noise | pictures | PSNR, dB | of the worst | mean steps | most |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {loss.truncation_psi:g} | {loss.noise_scale:g} | {loss.pictures} "
            f"| {_decibels(loss.psnr_db)} | {_decibels(loss.worst_psnr_db)} "
            f"| {loss.mean_steps:.2g} | {loss.max_steps:g} |"
            for loss in manifest.losses
        ),
    ]


def _decibels(value: float | None) -> str:
    return "no difference" if value is None else f"{value:.1f}"


def _cell(text: str) -> str:
    """Text that stays within its cell of a table."""
    return " ".join(text.replace("|", "\\|").split())
