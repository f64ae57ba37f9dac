"""The search for near vectors: what it finds, and that it ends whatever it is given."""

import numpy as np

from training.photos.near_duplicates import linked_groups
from training.photos.neighbours import LEAF, TREES, _leaves, nearest_pairs


def test_planted_neighbours_are_found() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(3000, 64)).astype(np.float32)
    near = vectors[:500] + rng.normal(0, 0.2, (500, 64)).astype(np.float32)
    pairs = nearest_pairs(np.concatenate([vectors, near]), 4)
    found = {(a, b) for a, b in pairs.tolist()}
    assert sum((i, 3000 + i) in found for i in range(500)) >= 495


def test_few_vectors_get_their_true_neighbours() -> None:
    vectors = np.random.default_rng(1).normal(size=(50, 16)).astype(np.float32)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    likeness = unit @ unit.T - 2 * np.eye(50)
    expected = {
        (min(a, b), max(a, b)) for a in range(50) for b in np.argsort(-likeness[a])[:3].tolist()
    }
    assert {(a, b) for a, b in nearest_pairs(vectors, 3).tolist()} == expected


def test_length_does_not_count() -> None:
    vectors = np.random.default_rng(2).normal(size=(500, 16)).astype(np.float32)
    stretched = vectors * np.linspace(0.1, 9, 500, dtype=np.float32)[:, None]
    assert np.mean(nearest_pairs(vectors, 3)[:900] == nearest_pairs(stretched, 3)[:900]) > 0.99


def test_thousands_of_equal_vectors_are_one_group_from_few_pairs() -> None:
    vectors = np.ones((5000, 8), np.float32)
    pairs = nearest_pairs(vectors, 4)
    assert len(pairs) <= 4 * len(vectors)
    assert len(set(linked_groups(np.arange(5000), pairs).tolist())) == 1


def test_work_grows_as_n_log_n_whatever_the_vectors() -> None:
    # Vectors are compared within leaves only, and leaves are small.
    for vectors in (np.ones((3000, 4)), np.repeat(np.eye(4), 750, axis=0)):
        leaves = list(_leaves(vectors.astype(np.float32), np.random.default_rng(0)))
        assert max(map(len, leaves)) <= LEAF
        assert sorted(np.concatenate(leaves).tolist()) == list(range(3000))
    assert TREES * LEAF < 1000  # vectors that each is compared with


def test_none_and_one() -> None:
    assert nearest_pairs(np.empty((0, 8), np.float32), 4).shape == (0, 2)
    assert nearest_pairs(np.ones((1, 8), np.float32), 4).shape == (0, 2)
    assert nearest_pairs(np.zeros((2, 8), np.float32), 4).tolist() == [[0, 1]]
