"""What holds for the project as a whole: its layout, its import rules, its pins."""

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
FOLDERS = {
    "catalogan_client",
    "service",
    "training",
    "models",
    "tests",
    "bench",
    "docs",
    ".ci",
    "locks",
}
FILES = {
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Dockerfile",
    "LICENSE",
    "Makefile",
    "README.md",
    "SECURITY.md",
    "bentofile.yaml",
    "catalogan.py",
    "constraints.txt",
    "pyproject.toml",
}


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def pins() -> dict[str, str]:
    """Distribution -> version of the constraints file."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert all(len(pin) == 2 for pin in pinned), "every line is NAME==VERSION"
    return {canonicalize_name(name): version for name, version in pinned}


@pytest.fixture(scope="module")
def tracked() -> list[str]:
    """Files of the repository."""
    if not (ROOT / ".git").exists():
        pytest.skip("no git checkout")
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return listed.stdout.splitlines()


def test_the_top_level_holds_what_it_should(tracked: list[str]) -> None:
    folders = {path.split("/")[0] for path in tracked if "/" in path}
    files = {path for path in tracked if "/" not in path and not path.startswith(".")}
    assert folders == FOLDERS
    assert files == FILES


def test_only_the_ci_knows_what_lies_beside_the_checkout(tracked: list[str]) -> None:
    beside = "../" + "shared"
    knowing = [
        path
        for path in tracked
        if (ROOT / path).is_file() and beside.encode() in (ROOT / path).read_bytes()
    ]
    assert knowing == [".ci/run"]


def test_import_rules_hold() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    ran = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout


def installed(name: str, extras: frozenset[str]) -> Iterator[tuple[str, str]]:
    """Distributions, with versions, that `name[extras]` needs and this environment has."""
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [(name, extras)]
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        name, extras = current
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        yield canonicalize_name(name), distribution.version
        for line in distribution.requires or ():
            needed = Requirement(line)
            marker = needed.marker
            if marker is None or any(marker.evaluate({"extra": e}) for e in ("", *extras)):
                waiting.append((canonicalize_name(needed.name), frozenset(needed.extras)))


def test_what_is_installed_is_what_is_pinned(pins: dict[str, str]) -> None:
    needed = dict(installed("catalogan", frozenset({"cpu", "train", "test", "dev"})))
    needed.pop("catalogan")
    assert len(needed) > 100
    assert {name: pins.get(name) for name in needed} == needed


def test_every_requirement_is_pinned_within_its_bounds(
    project: dict[str, Any], pins: dict[str, str]
) -> None:
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    for needed in (Requirement(line) for group in groups for line in group):
        if needed.name != project["name"]:
            assert pins[canonicalize_name(needed.name)] in needed.specifier, needed


OWN = {"bench", "catalogan", "catalogan_client", "models", "service", "tests", "training"}
# Imported where somebody installed it: `catalogan evaluate --features inception` says how.
OPTIONAL = {"torch-fidelity"}


@pytest.mark.parametrize(
    ("roots", "extras"),
    [
        (("catalogan.py", "service"), ("cpu",)),
        (("catalogan_client",), ("client",)),
        (("models", "training"), ("cpu", "train")),
        (("tests", "bench"), ("cpu", "train", "client", "test", "dev")),
    ],
)
def test_every_imported_package_is_declared(
    project: dict[str, Any], roots: tuple[str, ...], extras: tuple[str, ...]
) -> None:
    groups = [project["optional-dependencies"][extra] for extra in extras]
    if roots != ("catalogan_client",):  # which installs without the rest
        groups.append(project["dependencies"])
    declared = {canonicalize_name(Requirement(line).name) for group in groups for line in group}
    if "onnxruntime" in declared:
        declared.add("onnxruntime-gpu")  # the same package by another distribution
    paths = [path for root in roots for path in python_files(ROOT / root)]
    own = {*OWN, *(path.stem for path in paths)}
    distributions = importlib.metadata.packages_distributions()
    assert len(paths) > 1
    for path in paths:
        for name in imported(path) - own - sys.stdlib_module_names:
            known = {canonicalize_name(one) for one in distributions.get(name, (name,))}
            assert known & (declared | OPTIONAL), f"{path} imports {name}, declared nowhere"


def python_files(root: Path) -> list[Path]:
    return [root] if root.is_file() else sorted(root.rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Top-level names of the packages that a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {one.name.partition(".")[0] for one in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(str(node.module).partition(".")[0])
    return names


def test_a_bento_and_the_container_install_what_is_locked() -> None:
    packed = yaml.safe_load((ROOT / "bentofile.yaml").read_text())["python"]
    assert packed == {"lock_packages": False, "requirements_txt": "./locks/cpu.txt"}
    lines = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    installs = [
        part for line in lines for part in line.split("&&") if "pip" in part and " install " in part
    ]
    assert len(installs) == 4
    for install in installs:
        assert "--require-hashes" in install or "--no-index" in install, install


def shared_modules(path: Path) -> set[Path]:
    """Files of models/ that a file imports, by `from models.NAME import ...`."""
    imports = [
        one for one in ast.walk(ast.parse(path.read_text())) if isinstance(one, ast.ImportFrom)
    ]
    named = [str(one.module) for one in imports if str(one.module).startswith("models.")]
    return {ROOT / f"{name.replace('.', '/')}.py" for name in named}


def test_a_bento_packs_all_that_the_service_imports() -> None:
    patterns = yaml.safe_load((ROOT / "bentofile.yaml").read_text())["include"]
    packed = {path for pattern in patterns for path in ROOT.glob(pattern)}
    wanted, waiting = set[Path](), set((ROOT / "service").rglob("*.py"))
    while waiting:
        wanted |= waiting
        waiting = {found for path in waiting for found in shared_modules(path)} - wanted
    assert packed == wanted | {ROOT / "models/__init__.py"}


def locked(name: str) -> dict[str, str]:
    """Distribution -> version of a lock, each line of which has hashes."""
    entries = (ROOT / "locks" / f"{name}.txt").read_text().replace("\\\n", " ").splitlines()
    found = {}
    for entry in entries:
        requirement, *hashes = entry.split("--hash=")
        assert hashes, f"{requirement} has no hash"
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", one.strip()) for one in hashes)
        pinned = re.match(r"([\w.-]+)==([\w.+!-]+)", requirement)
        assert pinned, f"{requirement} is not pinned"
        if "== 'emscripten'" not in requirement:  # no platform of ours
            found[canonicalize_name(pinned[1])] = pinned[2]
    return found


@pytest.mark.parametrize("name", ["cpu", "gpu", "train", "build"])
def test_a_lock_is_what_its_command_would_write(
    project: dict[str, Any], pins: dict[str, str], name: str
) -> None:
    """Else `make locks`: a package was added, or its version changed."""
    found = locked(name)
    assert found == {package: pins.get(package) for package in found}
    if name == "build":
        system = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]
        assert f"echo '{system['requires'][0]}' |" in (ROOT / "Makefile").read_text()
        assert len(system["requires"]) == len(found) == 1
        return
    declared = project["dependencies"] + project["optional-dependencies"][name]
    needed = {canonicalize_name(Requirement(line).name) for line in declared}
    for line in map(Requirement, declared):
        needed |= {found for found, _ in installed(line.name, frozenset(line.extras))}
    assert needed <= found.keys()
