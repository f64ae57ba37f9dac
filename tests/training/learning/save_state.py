"""Train one rank and save its state: RUN DATASET CONFIG; torchrun starts several."""

import sys
from pathlib import Path

import torch

from training.dataset import PreparedDataset
from training.learning.config import TrainingConfig
from training.learning.distributed import joined
from training.learning.trainer import Trainer


def main(run: Path, dataset: Path, config: Path) -> None:
    torch.set_num_threads(1)
    settings = TrainingConfig.model_validate_json(config.read_bytes())
    with joined("cpu") as ranks:
        trainer = Trainer(run, PreparedDataset(dataset), settings, torch.device("cpu"), ranks)
        start = {
            part: getattr(trainer, part).state_dict() for part in ("generator", "discriminator")
        }
        torch.save(start, run / f"start-{ranks.rank}.pt")
        trainer.train(lambda _: None, lambda: False)
        torch.save(trainer.state_dict(), run / f"end-{ranks.rank}.pt")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
