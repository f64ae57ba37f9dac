"""When a run goes back, when it warns, and when it does not even start."""

from pathlib import Path

import pytest
import torch

from training.learning.guardrails import (
    MAX_ROLLBACKS,
    Guardrails,
    ResourceError,
    TrainingDiverged,
    alarms,
    check_disk,
    check_memory,
)


def test_what_is_not_finite_is_named() -> None:
    with pytest.raises(TrainingDiverged, match="discriminator_loss not finite"):
        Guardrails().check({"generator_loss": 1.0, "discriminator_loss": float("inf")})


def test_gradients_far_above_their_past_are_refused_and_a_noisy_run_is_not() -> None:
    rails = Guardrails()
    for norm in (1.0, 9.0, 0.5, 3.0, 30.0, 2.0):
        rails.check({"gradient_norm": norm})
    with pytest.raises(TrainingDiverged, match="exploded"):
        rails.check({"gradient_norm": 5000.0})


def test_each_rollback_halves_the_rate_until_there_are_too_many() -> None:
    rails = Guardrails()
    for n in range(1, MAX_ROLLBACKS + 1):
        assert f"rollback {n} of {MAX_ROLLBACKS}" in rails.roll_back("loss not finite")
        assert rails.learning_rate_factor == 0.5**n
    with pytest.raises(TrainingDiverged, match="--learning-rate"):
        rails.roll_back("loss not finite")


def test_the_count_survives_a_stop() -> None:
    rails, resumed = Guardrails(), Guardrails()
    rails.check({"gradient_norm": 2.0})
    rails.roll_back("broken")
    resumed.load_state_dict(rails.state_dict())
    assert resumed.rollbacks == 1
    assert resumed.gradient_norms == [2.0]


@pytest.mark.parametrize(
    ("overfitting", "diversity", "names"),
    [
        (0.2, 0.9, []),
        (0.95, 0.9, ["overfitting"]),
        (0.2, 0.01, ["collapse"]),
        (0.95, 0.01, ["overfitting", "collapse"]),
    ],
)
def test_alarms(overfitting: float, diversity: float, names: list[str]) -> None:
    measured = {"overfitting": overfitting, "diversity": diversity}
    assert list(alarms(measured)) == names


def test_a_full_disk_is_said_before_the_start(full_disk: Path) -> None:
    check_disk(full_disk, (torch.nn.Linear(10, 10),), 3)
    with pytest.raises(ResourceError, match="MB of disk"):
        check_disk(full_disk, (torch.nn.Linear(100, 1000),), 3)


def test_networks_beyond_memory_are_refused() -> None:
    check_memory((torch.nn.Linear(10, 10),), torch.device("cpu"))
    with torch.device("meta"):
        huge = torch.nn.Linear(10**6, 10**6)
    with pytest.raises(ResourceError, match="MB of memory"):
        check_memory((huge,), torch.device("cpu"))
