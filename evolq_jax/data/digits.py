"""scikit-learn's handwritten digits: real data that needs no download."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from evolq_jax.data.arrays import array_source
from evolq_jax.data.source import Source
from evolq_jax.errors import UserError
from evolq_jax.typing import Preprocessing

DIGITS = ("digits:train", "digits:test")
_NUM_TRAIN = 1100
_SPLIT_SEED = 0


def digits_source(name: str, preprocessing: Preprocessing) -> Source:
    """The 1,100 training or the 697 test images of a fixed stratified split of the 1,797 digits.

    Images are 8x8x1. The file's values 0..16 are scaled to 0..255 and rounded. An image is called
    `digits[position]`, after its position in scikit-learn's set.

    Args:
        name: `digits:train` or `digits:test`.
        preprocessing: size 8 gives the images as they are, other sizes resize them.

    Raises:
        UserError: scikit-learn is not installed.
    """
    pixels, labels = read_digits()
    train, test = split_digits(labels)
    rows = train if name == "digits:train" else test
    return array_source(
        name,
        pixels[rows],
        labels[rows],
        preprocessing,
        title="digits",
        identity=[name],
        positions=rows,
    )


def split_digits(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Splits positions into train [1100] and test. Both are sorted and hold each class in proportion.

    Class c gets 1100·n_c/B training images, rounded by largest remainders so that they sum to 1100. They are
    drawn class by class, in label order, by `permutation` of one `Generator(PCG64(0))`.

    Args:
        labels: integers [B].
    """
    classes, counts = np.unique(labels, return_counts=True)
    shares = _NUM_TRAIN * counts / counts.sum()
    quotas = np.floor(shares).astype(int)
    largest = np.argsort(quotas - shares, kind="stable")[: _NUM_TRAIN - quotas.sum()]
    quotas[largest] += 1
    rng = np.random.Generator(np.random.PCG64(_SPLIT_SEED))
    chosen = [
        rng.permutation(np.flatnonzero(labels == label))[:quota]
        for label, quota in zip(classes, quotas, strict=True)
    ]
    train = np.sort(np.concatenate(chosen))
    return train, np.setdiff1d(np.arange(len(labels)), train)


@cache
def read_digits() -> tuple[np.ndarray, np.ndarray]:
    """Pixels uint8 [1797, 8, 8, 1] and labels int32 [1797], from scikit-learn's file.

    Importing scikit-learn would take thirty times as long as reading the file.

    Raises:
        UserError: scikit-learn is not installed, or lacks the file.
    """
    found = find_spec("sklearn")
    if found is None or not found.submodule_search_locations:
        raise UserError("digits:train and digits:test need scikit-learn: pip install 'evolq_jax[digits]'")
    file = Path(found.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz"
    try:
        table = np.loadtxt(file, delimiter=",")
    except OSError as error:
        raise UserError(f"scikit-learn lacks its digits ('{file}'): install it anew") from error
    pixels = np.rint(table[:, :-1].reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    return pixels, table[:, -1].astype(np.int32)
