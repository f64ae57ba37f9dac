"""Photos that are copies of one another: candidates by features, decided by pixels.

Each photo is judged by its product view (`product_view`), so that a white ground that all
photos of a shop share says nothing. Each view's NEIGHBOURS nearest by the features of
EfficientNet-Lite2 are its candidates (`neighbours`). Of these, mirrored or not, a pair is
one photo twice when, laid over each other (`registration`), their products have one outline,
one structure and one colour, each within the limits below.
"""

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch.nn import functional

from training.photos.neighbours import nearest_pairs
from training.photos.product_view import GROUND, HOLE, OUTSIDE, PRODUCT
from training.photos.registration import register, warp

NEIGHBOURS: Final = 8
