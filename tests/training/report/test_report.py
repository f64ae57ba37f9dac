"""A run's report: whole, self-contained, and safe whatever the run's files say."""

import base64
import http.server
import io
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import pytest
from PIL import Image

from training.evaluation.record import (
    Agreement,
    AgreementReport,
    CategoryScores,
    EvaluationReport,
    Memorisation,
    NearestPhoto,
    SecondOpinion,
    Usefulness,
    UsefulnessArm,
)
from training.features.extractor import ExtractorInfo
from training.learning.run import RunError
from training.metrics.scores import Scores
from training.report.report import write_report
from training.report.tables import usefulness_verdict

EVIL = '<img src="http://127.0.0.1:{port}/x"><script>alert(1)</script>{{{{ 7 * 7 }}}}"\'&'


def evil(port: int = 9) -> str:
    return EVIL.format(port=port)


class Page(HTMLParser):
    """Elements with their attributes, and the text outside of styles."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.styles = ""
        self._in_style = False
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._in_style = tag == "style"
        self.text += " " if tag in ("td", "th", "span") else ""

    def handle_endtag(self, tag: str) -> None:
        self._in_style = False

    def handle_data(self, data: str) -> None:
        if self._in_style:
            self.styles += data
        else:
            self.text += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def external_references(page: Page) -> list[str]:
    """All that could make a browser fetch something, or run a script."""
    found = []
    active = ("script", "iframe", "object", "embed", "base", "form", "frame", "audio", "video")
    for tag, attributes in page.elements:
        if tag in active or attributes.get("http-equiv") == "refresh":
            found.append(tag)
        for name, value in attributes.items():
            points = name in ("src", "srcset", "href", "xlink:href", "data", "action", "poster")
            if points and not (value or "").startswith(("data:", "#")):
                found.append(f"{tag} {name}={value}")
            if name.startswith("on") or re.search(r"url\((?!#)|javascript:", value or ""):
                found.append(f"{tag} {name}={value}")
    return found + re.findall(r"@import|url\((?!#)[^)]*", page.styles)


def evaluation(name: str, dataset_hash: str = "0" * 64) -> EvaluationReport:
    scores = Scores(
        real_count=30,
        compared_count=90,
        frechet_distance=12.5,
        kernel_distance=0.25,
        kernel_distance_interval=(0.125, 0.375),
        precision=0.75,
        recall=0.5,
        density=0.9,
        coverage=0.625,
    )
    few = Scores(real_count=4, compared_count=12, reasons={"coverage": "4 photos, needs 100"})
    labelled = Agreement(truncation_psi=0.7, count=90, overall=0.875, per_category={name: 0.8125})
    return EvaluationReport(
        dataset_hash=dataset_hash,
        features=ExtractorInfo(
            name="efficientnet-lite2",
            sha256="1" * 64,
            dimensions=1280,
            input_px=224,
            provenance="Made here.",
            frechet_name="Frechet distance on EfficientNet-Lite2",
        ),
        seed=0,
        truncation_psi=1,
        categories=(name,),
        categories_only_in_model=(),
        categories_only_in_dataset=(),
        overall=scores,
        real_floor=scores,
        per_category={
            name: CategoryScores(
                generated=few, real_floor=few, covered_share=0.25, covered_share_floor=0.75
            )
        },
        second_opinion=SecondOpinion(
            trained_on_generated=0.5625,
            trained_on_photos=0.6875,
            generated_count=90,
            photo_count=60,
        ),
        agreement=AgreementReport(
            validation_accuracy=0.9375,
            validation_accuracy_per_category={name: 1},
            generated=labelled,
            generated_as_served=labelled,
        ),
        memorisation=Memorisation(
            train_count=60,
            validation_count=30,
            generated_count=90,
            threshold=2.5,
            share=0.375,
            expected_share=1 / 31,
            chance_share=0.1,
            nearest=(
                NearestPhoto(
                    category=name, photo=f"a/{name}.jpg", mirrored=True, distance=1, too_near=True
                ),
            ),
        ),
        usefulness=Usefulness(
            photos_per_category=10,
            generated_per_category=64,
            categories=3,
            steps=150,
            validation_count=30,
            arms={
                "real": arm(0.5, 0.75),
                "augmented": arm(0.625, 0.75),
                "generated": arm(0.5, 0.75),
                "generated_augmented": arm(0.75, 0.875),
            },
        ),
    )


def arm(*accuracies: float) -> UsefulnessArm:
    return UsefulnessArm(mean=mean(accuracies), spread=stdev(accuracies), accuracies=accuracies)


def add_evaluation(run: Path, report: EvaluationReport) -> None:
    (run / "evaluation").mkdir()
    (run / "evaluation" / "evaluation.json").write_text(report.model_dump_json())
    for name in ("contact-sheet.png", "memorisation.png"):
        Image.new("RGB", (60, 40), "green").save(run / "evaluation" / name)


def append(run: Path, *lines: dict[str, Any]) -> None:
    with (run / "stats.jsonl").open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_run, tmp_path / "run")
    return tmp_path / "run"


def make_hostile(run: Path, port: int = 9) -> None:
    """Everything that comes from outside tries to break out of its place."""
    info = json.loads((run / "dataset.json").read_text())
    counts = {side: {evil(port): 1} for side in ("train", "validation")}
    info |= {"categories": [evil(port), "hats", "mats"], "counts": counts, "background": evil(port)}
    (run / "dataset.json").write_text(json.dumps(info))
    config = json.loads((run / "config.json").read_text())
    config |= {"preset": evil(port), evil(port): evil(port)}
    config["masking"]["mode"] = evil(port)
    (run / "config.json").write_text(json.dumps(config))
    append(
        run,
        {"kind": "alarm", "nimg": 200, "name": evil(port), "message": evil(port)},
        {"kind": "rollback", "nimg": 200, "message": evil(port)},
        {"kind": "tick", "nimg": 216, "generator_loss": evil(port)},
    )
    add_evaluation(run, evaluation(evil(port)))


def test_a_run_that_was_trained_and_evaluated(run: Path) -> None:
    info = json.loads((run / "dataset.json").read_text())
    add_evaluation(run, evaluation("cups", info["hash"]))
    for i, diversity in enumerate((0.9, 0.7)):
        line = {"kernel_distance": 9 - i, "coverage": 0.5, "recall": 0.4, "overfitting": 0.1}
        append(run, {"kind": "validation", "nimg": 208 + 8 * i, "diversity": diversity, **line})
    page = Page(write_report(run))
    assert external_references(page) == []
    for shown in (
        "Kernel distance 0.25 (0.125 to 0.375) 0.25 (0.125 to 0.375) lower",
        "Frechet distance on EfficientNet-Lite2 12.5 12.5 lower",
        "Teaches a classifier 56% 69% higher",
        "In the category requested, at psi 0.7 88% 94%",
        "Memorised 38% 3.2%",
        "more than chance explains",
        "cups 4 25% (75%) 81% – (–)",
        "a/cups.jpg (mirrored) 1 too near",
        "the same, classically augmented 69% ± 8.8 +6.2 ± 8.8 points",
        "Generated images helped: +12.5 points on top of classical augmentation.",
        "masking.period_kimg 0.05",
        "Losses generator discriminator",
        "Overfitting",
        "Diversity",
        "Masks and lag",
        "after 0.2 thousand images",
    ):
        assert shown in " ".join(page.text.split()), shown
    assert "another dataset" not in page.text
    images = [str(image["src"]) for image in page.of("img")]
    assert len(images) == 2 + len(list((run / "grids").glob("*.png")))
    assert all(image.startswith("data:image/webp;base64,UklGR") for image in images)


def test_nothing_from_outside_gets_out_of_its_place(run: Path) -> None:
    make_hostile(run)
    page = Page(write_report(run))
    assert external_references(page) == []
    assert page.text.count(evil()) >= 8
    assert "49" not in re.findall(r"alert\(1\)[^ ]{0,12}", page.text)[0]


def test_the_check_for_external_references_finds_them(run: Path, tmp_path: Path) -> None:
    make_hostile(run)
    unescaped = write_report(run).read_text().replace("&lt;", "<").replace("&gt;", ">")
    (tmp_path / "open.html").write_text(unescaped.replace("&#34;", '"'))
    found = external_references(Page(tmp_path / "open.html"))
    assert "script" in found
    assert any("http://127.0.0.1:9/x" in reference for reference in found)


def test_a_policy_forbids_the_page_to_load_anything(run: Path) -> None:
    (policy,) = (
        meta["content"]
        for meta in Page(write_report(run)).of("meta")
        if meta.get("http-equiv") == "Content-Security-Policy"
    )
    rules = dict(rule.strip().split(" ", 1) for rule in str(policy).split(";"))
    assert rules.pop("default-src") == "'none'"
    assert rules == {
        "img-src": "data:",
        "style-src": "'unsafe-inline'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }


@pytest.mark.parametrize(
    ("with_generated", "said"),
    [
        ((0.6, 0.6, 0.6), "No clear difference: +0.0"),
        ((0.9, 0.5, 0.6), "No clear difference: +6.7"),
        ((0.61, 0.62, 0.9), "No clear difference: +11.0"),
        ((0.7, 0.71, 0.72), "Generated images helped: +11.0"),
        ((0.5, 0.52, 0.51), "Generated images did harm: -9.0"),
    ],
)
def test_only_a_gain_clear_of_its_scatter_is_called_one(
    with_generated: tuple[float, ...], said: str
) -> None:
    found = evaluation("cups").usefulness
    assert found is not None
    plain, better = arm(0.6, 0.6, 0.6), arm(*with_generated)
    arms = {**found.arms, "augmented": plain, "generated_augmented": better}
    assert usefulness_verdict(found.model_copy(update={"arms": arms})).startswith(said)


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("stats.jsonl", "no training figures yet"),
        ("dataset.json", "Settings"),
        ("grids", "Settings"),
        ("evaluation/evaluation.json", "Not evaluated yet"),
        ("evaluation/contact-sheet.png", "Are photos copied?"),
        ("evaluation", "Not evaluated yet"),
    ],
)
def test_a_run_without_some_of_its_files_still_gets_a_report(
    run: Path, missing: str, said: str
) -> None:
    add_evaluation(run, evaluation("cups"))
    path = run / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert said in Page(write_report(run)).text


@pytest.mark.parametrize(
    "damaged",
    ["dataset.json", "evaluation/evaluation.json", "evaluation/contact-sheet.png"],
)
def test_a_damaged_file_is_named(run: Path, damaged: str) -> None:
    add_evaluation(run, evaluation("cups"))
    path = run / damaged
    path.write_bytes(path.read_bytes()[:40])
    assert f"{path.name} can't be read" in Page(write_report(run)).text


def test_an_evaluation_of_other_photos_or_of_an_earlier_state_is_said_to_be_so(run: Path) -> None:
    add_evaluation(run, evaluation("cups", "f" * 64))
    assert "used another dataset" in Page(write_report(run)).text
    newest = max(run.glob("checkpoint-*.pt"))
    shutil.copystat(newest, run / "evaluation" / "evaluation.json")
    newest.touch()
    assert "older than the newest checkpoint" in Page(write_report(run)).text


def test_a_folder_that_is_no_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is no training run"):
        write_report(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(RunError, match="has no settings"):
        write_report(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_many_large_grids_stay_small(run: Path) -> None:
    shutil.rmtree(run / "grids")
    (run / "grids").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    large = Image.fromarray(noise).resize((2000, 2000))
    for i in range(1, 31):
        large.save(run / "grids" / f"grid-{i * 1000:012d}.png", compress_level=0)
    path = write_report(run)
    captions = re.findall(r"after ([\d.]+) thousand images", Page(path).text)
    assert captions == ["1", "7", "13", "18", "24", "30"]
    for image in Page(path).of("img"):
        data = base64.b64decode(str(image["src"]).partition(",")[2])
        assert max(Image.open(io.BytesIO(data)).size) <= 768


def test_the_same_run_gives_the_same_page(run: Path) -> None:
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first
    assert not list(run.glob(".*.partial"))


@contextmanager
def listening() -> Iterator[tuple[int, list[str]]]:
    """A server on loopback, and the paths requested from it."""
    requested: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requested.append(self.path)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port, requested
        server.shutdown()


def browse(chromium: str, page: Path, folder: Path) -> str:
    """Open a page; returns the addresses that the browser requested."""
    log = folder / f"{page.stem}.log"
    arguments = [
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
        *("--disable-component-update", "--no-first-run", f"--user-data-dir={folder / 'profile'}"),
        *(f"--log-net-log={log}", "--net-log-capture-mode=IncludeSensitive"),
        f"--screenshot={folder / 'screen.png'}",
        page.as_uri(),
    ]
    subprocess.run([chromium, *arguments], check=True, capture_output=True)
    return log.read_text(errors="replace")


@pytest.mark.slow
def test_a_browser_asks_for_nothing(run: Path, tmp_path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium")
    with listening() as (port, requested):
        make_hostile(run, port)
        page = write_report(run)
        assert f"127.0.0.1:{port}" not in browse(chromium, page, tmp_path)
        assert requested == []
        # The same page with its guards down does ask.
        text = page.read_text().replace("&lt;", "<").replace("&gt;", ">").replace("&#34;", '"')
        text = text.replace("Content-Security-Policy", "X").replace("alert(1)", "")
        (tmp_path / "open.html").write_text(text)
        assert f"127.0.0.1:{port}" in browse(chromium, tmp_path / "open.html", tmp_path)
        assert set(requested) == {"/x"}
