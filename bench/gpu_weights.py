"""16-bit weights of a run, in small files: `make gpu` writes them, and continues from them.

    python bench/gpu_weights.py PIECES RUN DATASET

converts them to a run, which `catalogan evaluate` and `catalogan export` accept with `--snapshot
best`. DATASET is prepared from the bundle's photos.
"""

import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
from torch import Tensor

from training.dataset import DatasetInfo, PreparedDataset
from training.learning.checkpoint import save_best
from training.learning.config import TrainingConfig
from training.learning.ema import only_average
from training.learning.run import write_run
from training.learning.sources import Source
from training.learning.trainer import Trainer

PIECE_BYTES = 16_000_000
MAX_PIECES = 6  # eight files with gpu.json and samples.png
NETWORKS = ("generator", "discriminator", "ema")  # of a checkpoint


@dataclass(frozen=True)
class Weights:
    """One moment of a run, without its optimisers."""

    config: TrainingConfig
    info: DatasetInfo
    nimg: int
    augment_p: float
    networks: dict[str, dict[str, Tensor]]

    def continue_in(self, trainer: Trainer) -> None:
        """Load the weights into `trainer`, to continue; its learning rate warms up again.

        A trainer of larger images starts from these weights, as with `catalogan train --from`.

        Raises:
            ValueError: It has photos of other categories.
        """
        if trainer.dataset.info.categories != self.info.categories:
            raise ValueError(
                f"the weights are of other categories: {', '.join(self.info.categories)}"
            )
        trainer.augmentation.load_state_dict({"strength": self.augment_p})
        if trainer.dataset.info.width != self.info.width:
            trainer.start_from(self._source())
            return
        trainer.generator.load_state_dict(self.networks["generator"])
        trainer.discriminator.load_state_dict(self.networks["discriminator"])
        trainer.ema.load_state_dict(only_average(self.networks["ema"]))
        trainer.nimg = trainer.first_nimg = self.nimg

    def _source(self) -> Source:
        return Source(
            name=f"{self.info.width} px",
            model=self.config.model,
            categories=self.info.categories,
            height=self.info.height,
            width=self.info.width,
            channels=self.info.channels,
            generator=self.networks["ema"],
            discriminator=self.networks["discriminator"],
        )


def pieces_of(trainer: Trainer) -> dict[str, bytes]:
    """Split the weights into files; each name contains the SHA-256 of all of them, joined.

    Raises:
        ValueError: There would be too many, or a weight is beyond float16.
    """
    state = trainer.state_dict()
    tensors = {f"{n}/{k}": t.half().contiguous() for n in NETWORKS for k, t in state[n].items()}
    if not all(tensor.isfinite().all() for tensor in tensors.values()):
        raise ValueError("weights are beyond float16: the run has diverged")
    record = {"config": trainer.config.model_dump_json(), "nimg": str(trainer.nimg)}
    record["info"] = trainer.dataset.info.model_dump_json()
    record["augment_p"] = str(trainer.augmentation.p)
    data = safetensors.torch.save(tensors, record)
    count, digest = -(-len(data) // PIECE_BYTES), hashlib.sha256(data).hexdigest()
    if count > MAX_PIECES:
        raise ValueError(
            f"{len(data) / 1e6:.0f} MB of weights are more than {MAX_PIECES} pieces of "
            f"{PIECE_BYTES / 1e6:.0f} MB: give a smaller model.channel_max in SET"
        )
    return {
        f"weights-{i + 1}-of-{count}-{digest}.part": data[i * PIECE_BYTES :][:PIECE_BYTES]
        for i in range(count)
    }


def read_pieces(folder: Path) -> Weights:
    """Join the pieces in `folder`.

    Raises:
        ValueError: One is missing or damaged, or there are pieces of another call.
    """
    paths = sorted(folder.glob("weights-*.part"))
    data = b"".join(path.read_bytes() for path in paths)
    if {path.stem.split("-")[-1] for path in paths} != {hashlib.sha256(data).hexdigest()}:
        raise ValueError(f"{folder} must hold all pieces of one call, unchanged, and no others")
    record = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    networks: dict[str, dict[str, Tensor]] = {name: {} for name in NETWORKS}
    for name, tensor in safetensors.torch.load(data).items():
        network, _, parameter = name.partition("/")
        networks[network][parameter] = tensor
    config = TrainingConfig.model_validate_json(record["config"])
    info = DatasetInfo.model_validate_json(record["info"])
    return Weights(config, info, int(record["nimg"]), float(record["augment_p"]), networks)


def main() -> None:
    """Convert pieces to a run."""
    pieces, run, folder = map(Path, sys.argv[1:])
    weights, dataset = read_pieces(pieces), PreparedDataset(folder)
    if (dataset.info.width, dataset.info.categories) != (
        weights.info.width,
        weights.info.categories,
    ):
        sys.exit(f"{folder} is of another size or of other categories than {pieces}")
    run.mkdir(parents=True)
    write_run(run, weights.config, dataset)
    kept = {name: weights.networks[name] for name in ("ema", "discriminator")}
    save_best(run, weights.nimg, {"nimg": weights.nimg, **kept})
    print(f"{run}: {weights.nimg} images shown; use --snapshot best")


if __name__ == "__main__":
    main()
