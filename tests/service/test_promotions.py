"""The pointer under several writers at once."""

import multiprocessing
from pathlib import Path

from service.model_store.promotions import MAX_HISTORY, Promotions


def promote_many(folder: Path, name: str) -> None:
    for index in range(20):
        Promotions(folder).promote(name, f"v{index}")


def test_no_promotion_of_other_processes_is_lost(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [
        context.Process(target=promote_many, args=(tmp_path, name)) for name in ("a", "b", "c")
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    expected = tuple(f"v{index}" for index in range(20))
    assert Promotions(tmp_path).histories() == dict.fromkeys("abc", expected)


def test_the_folder_that_it_makes_is_private(tmp_path: Path) -> None:
    Promotions(tmp_path / "data").promote("shop", "1")
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700


def test_history_is_bounded_and_ends_with_what_is_served(tmp_path: Path) -> None:
    promotions = Promotions(tmp_path)
    for index in range(MAX_HISTORY + 5):
        promotions.promote("a", f"v{index}")
    history = promotions.histories()["a"]
    assert len(history) == MAX_HISTORY
    assert history[-1] == f"v{MAX_HISTORY + 4}"


def test_identity_changes_with_each_write(tmp_path: Path) -> None:
    promotions = Promotions(tmp_path)
    seen = [promotions.identity()]
    for version in ("v1", "v2", "v1"):
        promotions.promote("a", version)
        seen.append(promotions.identity())
    assert seen[0] is None
    assert len(set(seen)) == 4
