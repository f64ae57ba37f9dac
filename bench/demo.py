"""`make demo`: the whole job by the public commands, from photos to images over HTTP, in demo/."""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
from measuring import CATALOGAN, REPOSITORY
from processes import running, usable_port
from rich.console import Console
from rich.table import Table

console = Console(highlight=False)
NAME = "shop"
OUT = Path("demo")
PORT = 3000  # or another one, where that is taken
# Fraction of the training time: the encoder trains faster, as the generator is already trained.
ENCODER_FRACTION = 0.2
BASE = "clothing"
BASE_EXPORT = REPOSITORY / "training" / "data" / "bases" / BASE


class Timer:
    """Prints the commands that are run, and records how long each step took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time one step."""
        console.rule(name)
        start = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - start

    def run(self, name: str, *arguments: str) -> None:
        """Run one catalogan command as a step; stop the demo when it fails."""
        with self.step(name):
            console.print("$ catalogan " + " ".join(arguments), style="bold", markup=False)
            done = subprocess.run([CATALOGAN, *arguments], check=False)
        if done.returncode:
            sys.exit(f"demo: `catalogan {arguments[0]}` ended with {done.returncode}")


def fetch_images(port: int, name: str, out: Path) -> str:
    """Request one image of each category from the service; returns a shell line that does so, too.

    Raises:
        RuntimeError: The service does not become ready.
    """
    out.mkdir()
    command = [CATALOGAN, "serve", "--port", str(port), "--model", name]
    with (
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client,
        running(command, client, "/readyz", limit_sec=60),
    ):
        model = client.get("/v1/models").json()["data"][0]
        for category in model["categories"]:
            response = client.post(
                "/v1/images/generations",
                json={"category": category, "seed": 1},
                headers={"Accept": "image/png"},
            )
            response.raise_for_status()
            file = "".join(c if c.isalnum() else "-" for c in category)
            (out / f"{file}.png").write_bytes(response.content)
        console.print(f"{len(model['categories'])} images over HTTP in {out}")
        body = shlex.quote(json.dumps({"category": model["categories"][0], "seed": 1}))
        curl = (
            f"curl -sSf http://127.0.0.1:{port}/v1/images/generations -H 'Accept: image/png' "
            f"-H 'Content-Type: application/json' -d {body} -o {shlex.quote(f'{out}/curl.png')}"
        )
        if shutil.which("curl"):
            console.print(f"$ {curl}", style="bold", markup=False, soft_wrap=True)
            subprocess.run(curl, shell=True, check=True)
    return curl


def move_aside() -> None:
    """Rename an earlier demo's folder: it may have been trained on somebody's photos for hours."""
    if not OUT.exists():
        return
    created = datetime.fromtimestamp(OUT.stat().st_mtime).astimezone()
    aside = OUT.with_name(f"{OUT.name}-{created:%Y%m%d-%H%M%S}")
    OUT.rename(aside)
    console.print(f"the earlier demo is now in {aside}", soft_wrap=True, markup=False)


def train_export(options: argparse.Namespace, timer: Timer) -> Path:
    """Train and export a model; own photos start from the base's weights, except with --no-base."""
    photos, source, size = options.photos, [], "32"
    if photos is None:
        photos = OUT / "photos"
        timer.run("Unpack photos", "sample-catalogue", "--out", str(photos))
    elif options.base is not False:
        source, size = ["--from", f"base:{BASE}"], str(read_manifest(BASE_EXPORT)["width"])
    dataset, run, export = (str(OUT / name) for name in ("dataset", "run", "export"))
    minutes = ["--max-minutes", str(options.minutes)]
    timer.run("Prepare", "prepare", str(photos), "--out", dataset, "--size", size)
    timer.run("Train", "train", dataset, "--out", run, *minutes, *source)
    encoder_minutes = ["--max-minutes", f"{options.minutes * ENCODER_FRACTION:g}"]
    timer.run("Train the encoder", "train-encoder", run, "--data", dataset, *encoder_minutes)
    timer.run("Evaluate", "evaluate", run, "--data", dataset)
    timer.run("Export", "export", run, "--out", export, "--name", NAME)
    console.print(f"Report: {run}/report.html", soft_wrap=True)
    console.print(f"Contact sheet: {run}/evaluation/contact-sheet.png", soft_wrap=True)
    return Path(export)


def read_manifest(export: Path) -> dict[str, Any]:
    """Read an export's manifest."""
    manifest: dict[str, Any] = json.loads((export / "manifest.json").read_text())
    return manifest


def show(metrics: dict[str, float], seconds: dict[str, float]) -> None:
    """Print the model's metrics and the time of each step."""
    table = Table("metric", "value", title="against the validation photos")
    for name, value in metrics.items():
        table.add_row(name, f"{value:.4g}")
    console.print(table)
    table = Table("step", "seconds")
    for name, taken in seconds.items():
        table.add_row(name, f"{taken:.1f}")
    table.add_row("in all", f"{sum(seconds.values()):.1f}", style="bold")
    console.print(table)


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--photos", type=Path, help="folder of photos; the sample catalogue if not given"
    )
    parser.add_argument("--minutes", type=float, default=5.0, help="training time")
    parser.add_argument(
        "--base",
        action=argparse.BooleanOptionalAction,
        help="without --photos, serve the base that ships with Catalogan at once; with them it is "
        "fine-tuned, unless --no-base",
    )
    options = parser.parse_args()
    if options.photos and not options.photos.is_dir():
        sys.exit(f"demo: PHOTOS={options.photos} is no folder")
    if options.base and not BASE_EXPORT.is_dir():
        sys.exit(f"demo: there is no base at {BASE_EXPORT}")
    move_aside()
    OUT.mkdir()
    os.environ["BENTOML_HOME"] = str((OUT / "model-store").resolve())
    os.environ["BENTOML_DO_NOT_TRACK"] = "True"
    os.environ.pop("CATALOGAN_API_KEY", None)  # the demo's service listens on this machine only

    timer = Timer()
    as_it_is = options.base and options.photos is None
    export = BASE_EXPORT if as_it_is else train_export(options, timer)
    manifest = read_manifest(export)
    timer.run("Register", "register", str(export))
    try:
        port = usable_port(PORT)
        with timer.step("Serve"):
            curl = fetch_images(port, manifest["name"], OUT / "images")
    except RuntimeError as error:
        sys.exit(f"demo: {error}")
    show(manifest["metrics"], timer.seconds)
    console.print("Serve it again, in one shell:", style="bold")
    store = os.environ["BENTOML_HOME"]
    console.print(
        f"BENTOML_HOME={store} {CATALOGAN} serve --port {port} --model {manifest['name']}",
        soft_wrap=True,
        markup=False,
    )
    console.print("and in another:", style="bold")
    console.print(curl, soft_wrap=True, markup=False)


if __name__ == "__main__":
    main()
