import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image, ImageDraw
from pydantic import ValidationError

from training.dataset import DatasetInfo, PreparedDataset
from training.evaluation.classifier import CategoryClassifier, LabelledPhotos, training_photos
from training.evaluation.contact_sheet import SheetRow, draw_contact_sheet
from training.evaluation.evaluation import EvaluationError, evaluate
from training.evaluation.options import EvaluationOptions
from training.evaluation.record import EvaluationReport
from training.evaluation.second_opinion import second_opinion
from training.evaluation.usefulness import UsefulnessOptions, measure_usefulness

SHAPES = ("ball", "crate", "sign")
SIZE_PX = 32
OPTIONS = EvaluationOptions(samples=60, classifier_steps=30, batch_size=32)


def draw(shape, rng):
    """One product on a plain backdrop, uint8 [SIZE_PX, SIZE_PX, 3]."""
    image = Image.new("RGB", (SIZE_PX, SIZE_PX), tuple(rng.integers(200, 256, 3).tolist()))
    pen, colour = ImageDraw.Draw(image), tuple(rng.integers(0, 160, 3).tolist())
    x, y, r = *rng.integers(12, 20, 2).tolist(), int(rng.integers(7, 11))
    if shape == "ball":
        pen.ellipse((x - r, y - r, x + r, y + r), colour)
    elif shape == "crate":
        pen.rectangle((x - r, y - r, x + r, y + r), colour)
    else:
        pen.polygon([(x, y - r), (x + r, y + r), (x - r, y + r)], colour)
    return np.asarray(image)


def write_dataset(path, *, shapes=SHAPES, train=20, validation=8, channels=3):
    rng = np.random.default_rng(5)
    per_shape = train + validation
    images = np.asarray([draw(shape, rng) for shape in shapes for _ in range(per_shape)])
    images = {
        1: images[..., :1],
        3: images,
        4: np.pad(images, [(0, 0)] * 3 + [(0, 1)], constant_values=255),
    }[channels]
    labels = np.repeat(np.arange(len(shapes)), per_shape)
    splits = (["train"] * train + ["validation"] * validation) * len(shapes)
    path.mkdir()
    np.save(path / "images.npy", images)
    paths = [f"{shapes[label]}/{i}.png" for i, label in enumerate(labels)]
    index = pa.table({"path": paths, "label": labels, "split": splits})
    pq.write_table(index, path / "index.parquet")
    info = DatasetInfo(
        hash="0" * 64,
        width=SIZE_PX,
        height=SIZE_PX,
        channels=channels,
        categories=shapes,
        fit="crop",
        background="white",
        counts={
            "train": dict.fromkeys(shapes, train),
            "validation": dict.fromkeys(shapes, validation),
        },
    )
    (path / "dataset.json").write_text(info.model_dump_json())
    return PreparedDataset(path)


class ShapeSampler:
    """A generator that draws the requested category, or the one that `says` maps it to."""

    def __init__(self, categories=SHAPES, says=None, noise=0.0, channels=3):
        self.categories = categories
        self.calls = []
        self._says, self._noise, self._channels = says or {}, noise, channels

    def sample(self, labels, *, seed, truncation_psi=1.0, noise_scale=1.0):
        self.calls.append((len(labels), seed, truncation_psi))
        rng = np.random.default_rng([seed, 99])
        names = [self.categories[label] for label in labels]
        images = np.asarray([draw(self._says.get(name, name), rng) for name in names])
        images = (images + rng.normal(0, self._noise, images.shape)).clip(0, 255).astype(np.uint8)
        return images[..., : self._channels]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("evaluation") / "dataset")


@pytest.fixture(scope="module")
def good(dataset, tmp_path_factory):
    """Report, folder and sampler of a generator as good as real."""
    out = tmp_path_factory.mktemp("evaluation") / "made" / "here"
    sampler = ShapeSampler()
    return evaluate(sampler, dataset, OPTIONS, out), out, sampler


def test_a_good_generator_scores_near_the_floor(good):
    report, _, _ = good
    assert report.overall.real_count == 24
    assert report.overall.compared_count == 72  # 3 rounds of 24, for at least 60
    assert report.real_floor.compared_count == 60  # all 20 of each, in the same mix
    low, high = report.overall.kernel_distance_interval
    assert low < report.overall.kernel_distance < high
    assert low < report.real_floor.kernel_distance_interval[1]  # no farther than chance
    assert report.agreement.validation_accuracy > 0.8
    assert report.agreement.generated.overall > 0.8
    assert report.agreement.generated_as_served.truncation_psi == 0.7
    opinion = report.second_opinion
    assert (opinion.generated_count, opinion.photo_count) == (72, 60)


def test_same_seed_same_numbers_and_it_says_what_is_done(dataset, good):
    last = {}

    def note(part: str, done: int, total: int) -> None:
        assert last.get(part, (0,))[0] < done <= total
        last[part] = (done, total)

    assert evaluate(ShapeSampler(), dataset, OPTIONS, on_progress=note) == good[0]
    assert {"generated", "as served"} <= last.keys()
    assert all(done == total for done, total in last.values())


def test_another_seed_other_numbers(dataset, good):
    other = evaluate(ShapeSampler(), dataset, OPTIONS.model_copy(update={"seed": 1}))
    assert other.overall.kernel_distance != good[0].overall.kernel_distance


def test_corrupted_images_score_worse(dataset, good):
    report = evaluate(ShapeSampler(noise=40), dataset, OPTIONS)
    assert report.overall.kernel_distance_interval[0] > good[0].overall.kernel_distance_interval[1]
    assert report.real_floor == good[0].real_floor


def test_the_ratio_to_photos_is_given_only_where_theirs_is_not_zero(good):
    report = good[0]
    assert report.kernel_distance_over_floor is None
    assert "kernel_distance_over_floor" not in report.headline()
    apart = report.real_floor.model_copy(
        update={"kernel_distance": 0.2, "kernel_distance_interval": (0.1, 0.3)}
    )
    overall = report.overall.model_copy(update={"kernel_distance": 0.5})
    other = report.model_copy(update={"real_floor": apart, "overall": overall})
    assert other.headline()["kernel_distance_over_floor"] == pytest.approx(2.5)


@pytest.mark.slow
def test_a_mislabelled_category_is_found_by_both_opinions(dataset, good):
    report = evaluate(ShapeSampler(says={"crate": "ball"}), dataset, OPTIONS)
    agreement = report.agreement.generated.per_category
    assert agreement["crate"] < 0.2
    assert agreement["ball"] > 0.8
    assert report.agreement.generated.overall < 0.75
    crate = report.per_category["crate"]
    assert crate.covered_share < report.per_category["ball"].covered_share
    steps = OPTIONS.model_copy(update={"classifier_steps": 80})
    mixed_up = evaluate(ShapeSampler(says={"ball": "sign", "sign": "ball"}), dataset, steps)
    assert mixed_up.second_opinion.trained_on_photos > 0.8
    assert mixed_up.second_opinion.trained_on_generated < 0.5


def test_what_photos_teach_is_found_once(tmp_path, monkeypatch):
    data = write_dataset(tmp_path / "data", train=4, validation=2)
    trained = []

    class Counting(CategoryClassifier):
        def __init__(self, *arguments, **settings):
            trained.append(settings["steps"])
            super().__init__(*arguments, **settings)

    monkeypatch.setattr("training.evaluation.second_opinion.CategoryClassifier", Counting)

    def opinion(steps=10):
        return second_opinion(data, training_photos(data, seed=0), seed=0, steps=steps)

    first = opinion()
    assert len(trained) == 2
    assert opinion() == first
    assert len(trained) == 3  # on generated images only
    assert opinion(steps=11).photo_count == first.photo_count
    assert trained[-2:] == [11, 11]
    (data.path / "features" / "second-opinion.json").write_text("{")
    assert opinion() == first


def test_scores_that_photos_are_too_few_for_are_null_with_a_reason(good):
    scores = good[0].per_category["ball"].generated
    assert scores.real_count == 8
    assert scores.kernel_distance is None
    assert scores.reasons["kernel_distance"] == "8 photos, needs 20"
    assert good[0].overall.kernel_distance is not None
    for name in ("frechet_distance", "precision", "recall", "density", "coverage"):
        assert getattr(good[0].overall, name) is None
        assert good[0].overall.reasons[name] == "24 photos, needs 100"


@pytest.mark.slow
def test_photos_enough_give_every_score(tmp_path):
    many = write_dataset(tmp_path / "many", shapes=SHAPES[:1], train=100, validation=100)
    options = OPTIONS.model_copy(update={"samples": 100})
    report = evaluate(ShapeSampler(SHAPES[:1]), many, options)
    assert report.overall.reasons == {}
    assert report.overall.frechet_distance < 2 * report.real_floor.frechet_distance
    assert report.overall.precision > 0.7
    assert report.overall.coverage > 0.7
    assert report.second_opinion is None  # of one category


class CopySampler(ShapeSampler):
    """A generator that gives photos of a split, every other one mirrored, with slight noise."""

    def __init__(self, dataset, split):
        super().__init__()
        self._dataset, self._rows = dataset, dataset.indices(split)

    def sample(self, labels, *, seed, truncation_psi=1.0, noise_scale=1.0):
        rng = np.random.default_rng([seed, 7])
        of_label = {
            label: self._rows[self._dataset.labels[self._rows] == label] for label in labels
        }
        images = self._dataset.images[[rng.choice(of_label[label]) for label in labels]].copy()
        images[::2] = images[::2, :, ::-1]
        return (images + rng.normal(0, 3, images.shape)).clip(0, 255).astype(np.uint8)


def test_a_generator_that_copies_training_photos_is_found(dataset, tmp_path):
    report = evaluate(CopySampler(dataset, "train"), dataset, OPTIONS, tmp_path)
    found = report.memorisation
    assert found.share > 0.95
    assert (found.train_count, found.validation_count, found.generated_count) == (60, 24, 72)
    assert {pair.mirrored for pair in found.nearest} == {True, False}
    for pair in found.nearest:
        category, number = pair.photo.removesuffix(".png").split("/")
        assert pair.category == category
        assert dataset.splits[int(number)] == "train"
    assert report.headline()["memorised_share"] == found.share
    assert report.headline()["memorised_share_floor"] == found.expected_share
    Image.open(tmp_path / "memorisation.png").verify()


def test_a_generator_as_good_as_real_is_not_taken_for_a_copier(good):
    found = good[0].memorisation
    assert found.expected_share == pytest.approx(1 / 25)
    assert found.share <= found.chance_share < 0.25


FEW = UsefulnessOptions(photos_per_category=1, generated_per_category=24, seeds=2, steps=25)
ALL_SHAPES = np.arange(len(SHAPES))


def usefulness(dataset, sampler, options=FEW):
    def generate(labels, first):
        for start in range(0, len(labels), 50):
            yield sampler.sample(labels[start : start + 50], seed=first + start)

    return measure_usefulness(dataset, ALL_SHAPES, generate, options, seed=0)


@pytest.mark.slow
def test_good_images_help_where_photos_are_few_and_mislabelled_ones_do_not(dataset):
    helped = usefulness(dataset, ShapeSampler()).arms
    turned = dict(zip(SHAPES, SHAPES[1:] + SHAPES[:1], strict=True))
    harmed = usefulness(dataset, ShapeSampler(says=turned)).arms
    assert helped["real"] == harmed["real"]
    assert helped["augmented"] == harmed["augmented"] != helped["real"]
    for arm, control in (("generated", "real"), ("generated_augmented", "augmented")):
        assert helped[arm].mean > helped[control].mean + 0.1
        assert harmed[arm].mean < helped[arm].mean - 0.2


@pytest.mark.slow
def test_usefulness_is_in_the_report(dataset, good):
    options = OPTIONS.model_copy(update={"usefulness": FEW})
    sampler = ShapeSampler()
    report = evaluate(sampler, dataset, options)
    found = report.usefulness
    assert (found.categories, found.validation_count, found.steps) == (3, 24, 25)
    for name, arm in found.arms.items():
        assert len(arm.accuracies) == 2
        assert arm.mean == pytest.approx(np.mean(arm.accuracies))
        assert arm.spread == pytest.approx(np.std(arm.accuracies, ddof=1))
        assert report.headline()[f"few_photos_{name}"] == arm.mean
    # Everything else is as without it, and its images are other ones.
    assert report.model_copy(update={"usefulness": None}) == good[0]
    seeds = [seed for _, seed, psi in sampler.calls if psi == OPTIONS.truncation_psi]
    assert len(set(seeds)) == len(seeds)


def test_usefulness_needs_two_categories(tmp_path):
    one = write_dataset(tmp_path / "one", shapes=("ball",), validation=20)
    with pytest.raises(ValueError, match="needs two"):
        usefulness(one, ShapeSampler())


def test_few_photos_are_few(dataset):
    photos = training_photos(dataset, seed=0, per_category=2, labels=np.asarray([0, 2]))
    assert photos.labels.tolist() == [0, 0, 2, 2]
    other = training_photos(dataset, seed=1, per_category=2, labels=np.asarray([0, 2]))
    assert not photos.photos.equal(other.photos)


@pytest.mark.slow
def test_a_classifier_takes_an_equal_share_of_every_source(dataset):
    right = training_photos(dataset, seed=0)
    wrong = LabelledPhotos(
        right.photos.repeat(10, 1, 1, 1), np.tile((right.labels + 1) % len(SHAPES), 10)
    )
    both = LabelledPhotos(
        torch.cat([right.photos, wrong.photos]), np.concatenate([right.labels, wrong.labels])
    )
    rows = dataset.indices("validation")
    shares = []
    for sources in ([right, right, wrong], [both]):
        classifier = CategoryClassifier(sources, len(SHAPES), seed=0, steps=60)
        predicted = classifier.predict(dataset.images[rows])
        shares.append((predicted == dataset.labels[rows]).mean())
    assert shares[0] > 0.7
    assert shares[1] < 0.3


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ([([], [])], "needs images to learn from"),
        ([([0, 1], [0, 1]), ([0, 0], [0, 0])], "of the same categories"),
    ],
)
def test_a_classifier_refuses_sources_that_it_cannot_draw_from(sources, message):
    given = [
        LabelledPhotos(torch.zeros(len(photos), 3, 32, 32), np.asarray(labels, dtype=np.int64))
        for photos, labels in sources
    ]
    with pytest.raises(ValueError, match=message):
        CategoryClassifier(given, 2, seed=0, steps=10)


@pytest.mark.slow
def test_each_category_has_a_covered_share_however_few_its_photos(dataset, good):
    for scores in good[0].per_category.values():
        assert scores.generated.coverage is None  # 8 photos are too few for that
        assert scores.covered_share > 0.6
        assert scores.covered_share_floor > 0.6
    report = evaluate(ShapeSampler(says={"crate": "ball"}), dataset, OPTIONS)
    assert report.per_category["crate"].covered_share < 0.3
    assert report.per_category["ball"].covered_share > 0.6


@pytest.mark.parametrize("count", [4, 5, 6])
def test_four_validation_photos_are_enough(tmp_path, count):
    dataset = write_dataset(tmp_path / "few", shapes=SHAPES[:1], validation=count)
    report = evaluate(ShapeSampler(SHAPES[:1]), dataset, OPTIONS, tmp_path / "out")
    scores = report.per_category["ball"]
    assert (scores.covered_share is None) == (count < 6)
    assert (scores.covered_share_floor is None) == (count < 6)
    assert report.overall.frechet_distance is None
    assert report.overall.reasons["frechet_distance"] == f"{count} photos, needs 100"
    assert (tmp_path / "out" / "contact-sheet.png").exists()


@pytest.mark.slow
def test_near_duplicates_across_the_split_are_reported(tmp_path, caplog):
    dataset = write_dataset(tmp_path / "dataset")
    evaluate(ShapeSampler(), dataset, OPTIONS)
    assert "nearly training photo" not in caplog.text
    images = np.load(tmp_path / "dataset" / "images.npy")
    images[22] = images[3][:, ::-1]  # one of 24 validation photos
    np.save(tmp_path / "dataset" / "images.npy", images)
    report = evaluate(ShapeSampler(), PreparedDataset(tmp_path / "dataset"), OPTIONS)
    assert report.memorisation.threshold < 1e-5
    assert "photo ball/22.png is nearly training photo ball/3.png" in caplog.text


def test_the_report_is_written_and_reads_back(good):
    report, out, _ = good
    assert sorted(path.name for path in out.iterdir()) == [
        "contact-sheet.png",
        "evaluation.json",
        "memorisation.png",
    ]
    text = (out / "evaluation.json").read_text()
    assert EvaluationReport.model_validate_json(text) == report
    assert "fid" not in json.loads(text)["features"]["frechet_name"].lower()
    assert set(report.headline()) >= {"kernel_distance", "kernel_distance_low", "label_agreement"}
    assert "fid" not in report.headline()


def test_images_are_sampled_in_batches_with_seeds_that_never_repeat(good):
    _, _, sampler = good
    judged = [call for call in sampler.calls if call[2] == OPTIONS.truncation_psi]
    assert max(count for count, _, _ in judged) <= OPTIONS.batch_size
    starts = np.cumsum([0] + [count for count, _, _ in judged])[:-1]
    assert [seed for _, seed, _ in judged] == (OPTIONS.seed + starts).tolist()


def test_categories_are_matched_by_name_in_any_order(dataset, good):
    sampler = ShapeSampler(
        categories=("SIGN", "moon", "Ball", "Crate"),
        says={"SIGN": "sign", "Ball": "ball", "Crate": "crate"},
    )
    report = evaluate(sampler, dataset, OPTIONS)
    assert report.categories == SHAPES
    assert report.categories_only_in_model == ("moon",)
    assert report.categories_only_in_dataset == ()
    assert report.overall == good[0].overall


def test_a_category_that_the_model_lacks_is_left_out_and_listed(dataset, tmp_path):
    report = evaluate(ShapeSampler(categories=("ball", "sign")), dataset, OPTIONS, tmp_path)
    assert report.categories == ("ball", "sign")
    assert report.categories_only_in_dataset == ("crate",)
    assert report.overall.real_count == 16
    assert set(report.per_category) == {"ball", "sign"}


def test_no_common_category_is_an_error(dataset, tmp_path):
    with pytest.raises(EvaluationError, match=r"\(moon\) .* \(ball, crate, sign\) .* in common"):
        evaluate(ShapeSampler(categories=("moon",)), dataset, OPTIONS, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_too_few_validation_photos_are_an_error(tmp_path):
    few = write_dataset(tmp_path / "few", validation=1)
    with pytest.raises(EvaluationError, match=r"few has 3 validation photos .*needs 4: prepare"):
        evaluate(ShapeSampler(), few, OPTIONS)


@pytest.mark.slow
def test_few_validation_photos_give_what_they_can_and_say_the_rest(tmp_path):
    few = write_dataset(tmp_path / "few", validation=4)
    report = evaluate(ShapeSampler(), few, OPTIONS, tmp_path / "out")
    assert report.overall.kernel_distance is None
    assert report.overall.reasons["kernel_distance"] == "12 photos, needs 20"
    assert "kernel_distance_floor" not in report.headline()
    assert report.headline()["label_agreement"] > 0.9
    assert (tmp_path / "out" / "contact-sheet.png").exists()


def test_a_sampler_that_returns_too_few_images_is_an_error(dataset):
    class Short(ShapeSampler):
        def sample(self, labels, **settings):
            return super().sample(labels, **settings)[1:]

    with pytest.raises(EvaluationError, match="returned 31 images of 32 requested"):
        evaluate(Short(), dataset, OPTIONS)


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 4])
def test_grey_and_transparent_catalogues(tmp_path, channels):
    dataset = write_dataset(tmp_path / "dataset", channels=channels)
    report = evaluate(ShapeSampler(channels=min(channels, 3)), dataset, OPTIONS, tmp_path / "out")
    assert report.overall.kernel_distance is not None
    Image.open(tmp_path / "out" / "contact-sheet.png").verify()


def test_nothing_half_written_stays(dataset, tmp_path, monkeypatch):
    (tmp_path / "contact-sheet.png").mkdir()  # can't be replaced by a file
    with pytest.raises(OSError, match=r"contact-sheet"):
        evaluate(ShapeSampler(), dataset, OPTIONS, tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("samples", 0),
        ("seed", -1),
        ("truncation_psi", 1.5),
        ("truncation_psi", float("nan")),
        ("batch_size", 0),
        ("features", "fid"),
        ("classifier_steps", 0),
        ("speed", 1),
    ],
)
def test_options_name_the_field_that_is_wrong(field, value):
    with pytest.raises(ValidationError, match=field):
        EvaluationOptions.model_validate({field: value})


@pytest.mark.slow
def test_the_classifier_treats_rare_categories_alike(dataset):
    photos = training_photos(dataset, seed=0)
    classifier = CategoryClassifier([photos], len(SHAPES), seed=0, steps=80)
    again = CategoryClassifier([photos], len(SHAPES), seed=0, steps=80)
    rows = dataset.indices("validation")
    predicted = classifier.predict(dataset.images[rows])
    np.testing.assert_array_equal(predicted, again.predict(dataset.images[rows]))
    assert (predicted == dataset.labels[rows]).mean() > 0.9


def test_the_contact_sheet_shows_real_above_generated(good):
    red, blue = np.zeros((2, 4, 32, 24, 3), dtype=np.uint8)
    red[..., 0], blue[..., 2] = 255, 255
    sheet = Image.open(
        io.BytesIO(draw_contact_sheet([SheetRow("Tasse für Öl ☕" * 9, red, blue)], good[0]))
    )
    pixels = np.asarray(sheet.convert("RGB")).astype(int)
    is_red = (pixels == [255, 0, 0]).all(axis=2)
    is_blue = (pixels == [0, 0, 255]).all(axis=2)
    assert is_red.sum() == is_blue.sum() > 0
    rows_red, columns_red = np.nonzero(is_red)
    rows_blue, columns_blue = np.nonzero(is_blue)
    assert rows_red.max() < rows_blue.min()
    np.testing.assert_array_equal(np.unique(columns_red), np.unique(columns_blue))
    # Four images at the photos' own aspect, 3 wide to 4 high.
    height, width = len(np.unique(rows_red)), len(np.unique(columns_red)) / 4
    assert width / height == pytest.approx(3 / 4, abs=0.02)
