"""A run that commit 5acf454 left, in run-5acf454/: it resumes, loads and can be started from."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from training.dataset import PreparedDataset
from training.launch import Launch, LaunchError, launch
from training.learning.checkpoint import load_newest
from training.learning.distributed import Ranks
from training.learning.run import RunError, load_networks, read_run
from training.learning.sources import open_source
from training.learning.trainer import Trainer

OLD = Path(__file__).parent / "run-5acf454"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A copy to train on."""
    return Path(shutil.copytree(OLD / "run", tmp_path / "run"))


def resume(run: Path, silent: Any) -> Any:
    wanted = Launch(
        dataset=OLD / "dataset", run=run, resume=True, device="cpu", overrides={"max_kimg": 0.12}
    )
    return launch(wanted, silent)


def test_its_weights_and_moments_are_taken_up_under_their_names(run: Path) -> None:
    """The sums are those that the commit itself held for each parameter."""
    config, _ = read_run(run)
    dataset = PreparedDataset(OLD / "dataset")
    trainer = Trainer(run, dataset, config, torch.device("cpu"), Ranks())
    trainer.resume()
    assert trainer.nimg == 80
    for average in trainer.ema.generators:  # it had one
        torch.testing.assert_close(average.state_dict(), load_newest(run)["ema"])
    assert trainer.ema.length == 1
    expected = json.loads((OLD / "moments.json").read_text())
    found = {}
    for name in ("generator", "discriminator"):
        optimizer = getattr(trainer.pair, f"{name}_optimizer")
        for parameter_name, parameter in getattr(trainer, name).named_parameters():
            state = optimizer.state[parameter]
            assert state["exp_avg"].shape == parameter.shape
            found[f"{name}.{parameter_name}"] = float(state["exp_avg_sq"].double().sum())
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(("steps", "fits"), [(1, True), (2, False)])
def test_a_run_whose_heads_were_in_every_step_resumes(
    run: Path, silent: Any, steps: int, fits: bool
) -> None:
    """Commit 7cda0e1 could have them in every other step, too."""
    file = run / "config.json"
    config = json.loads(file.read_text()) | {"projected": {"interval_steps": steps}}
    file.write_text(json.dumps(config))
    if fits:
        assert resume(run, silent).nimg == 120
        return
    with pytest.raises(RunError, match=r"projected\.interval_steps"):
        read_run(run)


def test_it_resumes_by_the_command_with_settings_that_are_gone(run: Path, silent: Any) -> None:
    before = load_newest(run)["generator"]
    assert "compile" in json.loads((run / "config.json").read_text())
    assert resume(run, silent).nimg == 120
    after = load_newest(run)["generator"]
    assert not torch.equal(before["synthesis.constant"], after["synthesis.constant"])
    assert resume(run, silent).nimg == 120  # now by its own kind of checkpoint


def test_its_augmentation_is_read_by_its_old_name(run: Path) -> None:
    config = json.loads((run / "config.json").read_text())
    config["augment"]["strength"] = 0.25
    (run / "config.json").write_text(json.dumps(config))
    assert read_run(run)[0].augment.p == 0.25


def test_it_loads_and_is_a_source(run: Path, tmp_path: Path, silent: Any) -> None:
    generator, discriminator, *_ = load_networks(run)
    assert discriminator.masks[0].shape
    source = open_source(str(run))
    torch.testing.assert_close(
        source.build_generator().synthesis.constant, generator.synthesis.constant
    )
    wanted = Launch(
        dataset=OLD / "dataset",
        run=tmp_path / "tuned",
        source=str(run),
        device="cpu",
        overrides={"max_kimg": 0.008, "batch_size": 8, "discriminator": "both"},
    )
    assert launch(wanted, silent) is not None
    tuned = load_networks(tmp_path / "tuned")[1].state_dict()
    theirs = discriminator.state_dict()["blocks.1.conv0.weight"]
    # One step of a warm-up away.
    assert (tuned["convolutional.blocks.1.conv0.weight"] - theirs).abs().max() < 1e-3


def test_one_with_the_relativistic_objective_loads_but_does_not_resume(
    run: Path, silent: Any
) -> None:
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, "objective": "relativistic"}))
    assert load_networks(run)
    with pytest.raises(LaunchError, match=r"relativistic.*--from"):
        resume(run, silent)
