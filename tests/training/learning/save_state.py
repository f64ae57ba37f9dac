"""Train one rank in float64 and save its state: RUN DATASET CONFIG; torchrun starts several.

In float32, sums of another order differ by as much as 1 % after a dozen steps of Adam, which
takes a gradient of nearly zero for its sign; how much, depends on the processor. In float64
they differ by some 1e-15 of what was learned.
"""

import sys
from pathlib import Path

import torch

from training.dataset import PreparedDataset
from training.learning import trainer as trainer_module
from training.learning.config import TrainingConfig
from training.learning.distributed import joined


def compute_in_float64() -> None:
    """Wherever the code says float32, in this process alone."""
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double
    trainer_module.compute_dtype = lambda *_: torch.float64


def main(run: Path, dataset: Path, config: Path) -> None:
    torch.set_num_threads(1)
    compute_in_float64()
    settings, data = (
        TrainingConfig.model_validate_json(config.read_bytes()),
        PreparedDataset(dataset),
    )
    with joined("cpu") as ranks:
        trainer = trainer_module.Trainer(run, data, settings, torch.device("cpu"), ranks)
        start = {
            part: getattr(trainer, part).state_dict() for part in ("generator", "discriminator")
        }
        torch.save(start, run / f"start-{ranks.rank}.pt")
        trainer.train(lambda _: None, lambda: False)
        torch.save(trainer.state_dict(), run / f"end-{ranks.rank}.pt")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
