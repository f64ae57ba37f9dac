"""The image's recipe and the scripts of the CI; building and running is `make container`."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent

Stages = dict[str, list[tuple[str, str]]]


@pytest.fixture(scope="module")
def stages() -> Stages:
    """Stage -> its instructions (name, arguments), the ones of its own file's bases first."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    found: Stages = {}
    current: list[tuple[str, str]] = []
    for line in text.splitlines():
        name, _, arguments = line.partition(" ")
        if name == "FROM":
            base, _, stage = arguments.partition(" AS ")
            current = found[stage] = list(found.get(base, [("FROM", base)]))
        elif name and name != "#":
            current.append((name, arguments.strip()))
    return found


def last(instructions: list[tuple[str, str]], name: str) -> str:
    return next(arguments for given, arguments in reversed(instructions) if given == name)


def test_service_is_what_is_built_by_default(stages: Stages) -> None:
    assert list(stages)[-1] == "service"
    assert "trainer" in stages


def test_every_stage_starts_from_the_base_that_was_asked_for(stages: Stages) -> None:
    for instructions in stages.values():
        assert instructions[0] == ("FROM", "${BASE_IMAGE}")


@pytest.mark.parametrize("stage", ["service", "trainer"])
def test_nobody_is_root(stages: Stages, stage: str) -> None:
    user, group = last(stages[stage], "USER").split(":")
    assert int(user) > 0
    assert int(group) > 0


def test_the_health_of_the_service_is_watched(stages: Stages) -> None:
    assert "/livez" in last(stages["service"], "HEALTHCHECK")
    assert all(name != "HEALTHCHECK" for name, _ in stages["trainer"])


def test_old_builders_take_it(stages: Stages) -> None:
    for name, arguments in (each for stage in stages.values() for each in stage):
        assert "<<" not in arguments, "heredoc"
        assert not (name in ("COPY", "ADD") and "--link" in arguments)
        assert not (name == "RUN" and arguments.startswith("--mount"))


@pytest.mark.parametrize(
    "command",
    ["hadolint Dockerfile", "shellcheck .ci/run .ci/container", "pre-commit validate-config"],
)
def test_checkers_find_nothing(command: str) -> None:
    tool, *arguments = shlex.split(command)
    ran = subprocess.run([BIN / tool, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_commits_are_checked_with_what_setup_installs() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    for hook in (hook for repository in config["repos"] for hook in repository["hooks"]):
        tool = Path(hook["entry"].split()[0])
        assert tool.parent == Path(".venv/bin")
        assert (BIN / tool.name).exists(), hook["id"]
