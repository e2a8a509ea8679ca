"""scikit-learn's interface: a finished run as a transformer or a classifier, and a federation that
is fitted like any estimator.

`X` may be `[N, *shape]`, or rows `[N, F]` with as many values as an example has, as scikit-learn's
own tools pass them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.base import (
    BaseEstimator,
    ClassifierMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
)
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import nn

from secure_fl.arguments import as_config
from secure_fl.config import FederationConfig
from secure_fl.data.dataset import Array, Dataset
from secure_fl.errors import ModelError
from secure_fl.finished.inference import from_rows
from secure_fl.finished.result import Result
from secure_fl.models.heads import feature_width
from secure_fl.run import Federation


class _OfRun(BaseEstimator):  # type: ignore[misc]
    """What is made from a finished run: there is nothing to fit."""

    folder: Path | str
    encoder: nn.Module | None

    def fit(self, X: Array | None = None, y: Array | None = None) -> Self:
        """Load the run; the arguments are there for pipelines.

        Raises:
            SecureFLError: as `Result.load`.
        """
        self.result_ = Result.load(self.folder, self.encoder)
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True


class SecureFLEncoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, _OfRun):  # type: ignore[misc]
    """A run's encoder as a transformer: `transform` gives features `[N, F]`. Nothing is fitted: the
    run has done it.

    Args:
        folder: of a finished run.
        encoder: a module of the same architecture, needed where the run was given one of the
            caller's own.
    """

    def __init__(self, folder: Path | str, encoder: nn.Module | None = None) -> None:
        self.folder = folder
        self.encoder = encoder

    def transform(self, X: Array) -> np.ndarray:
        """Features `[N, F]`, float32.

        Raises:
            DataError: the examples are not of the run's shape.
        """
        result = _result(self)
        return np.asarray(result.embed(from_rows(X, result.models.card)).numpy())

    @property
    def _n_features_out(self) -> int:
        """Width of the features, by which scikit-learn names them."""
        models = _result(self).models
        return feature_width(models.encoder, models.card.shape)


class SecureFLClassifier(ClassifierMixin, _OfRun):  # type: ignore[misc]
    """A run's pools as a classifier. Nothing is fitted: the run has done it.

    Args:
        folder: of a finished run with supervised pools.
        client: whose pool to use, by number or name; None: the examples of each call choose it
            together, as a newcomer's do.
        pool: the pool to use, where it is known otherwise.
        encoder: a module of the same architecture, needed where the run was given one of the
            caller's own.
    """

    def __init__(
        self,
        folder: Path | str,
        client: int | str | None = None,
        pool: int | None = None,
        encoder: nn.Module | None = None,
    ) -> None:
        self.folder = folder
        self.client = client
        self.pool = pool
        self.encoder = encoder

    @property
    def classes_(self) -> np.ndarray:
        """The classes in order: names, where the run has them, or numbers."""
        card = _result(self).models.card
        return np.array(card.class_names or range(card.classes))

    def predict(self, X: Array) -> np.ndarray:
        """The most probable class of each example `[N]`; errors as `Result.predict`."""
        return np.asarray(self.classes_[self.predict_proba(X).argmax(1)])

    def predict_proba(self, X: Array) -> np.ndarray:
        """Probability of each class, `[N, classes]`; errors as `Result.predict_proba`."""
        result = _result(self)
        rows = from_rows(X, result.models.card)
        return np.asarray(result.predict_proba(rows, self.client, pool=self.pool).numpy())


class FederatedClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A federation that is simulated on `fit`, over the clients named there, and predicts as
    a classifier.

    Args:
        config: the run, as `Federation` takes it. Without, and with clients named in `fit`, these
            are the clients; else examples are dealt out at random. Pools are supervised. Columns
            are used as they are unless `data.scale` is set: put a `StandardScaler` in front.
        encoder: as in `Federation`.
        augment: as in `Federation`.
        out: a folder for the run, which must not hold anything; None writes nothing.
    """

    def __init__(
        self,
        config: FederationConfig | Mapping[str, Any] | Path | str | None = None,
        encoder: Any = None,
        augment: Any = None,
        out: Path | str | None = None,
    ) -> None:
        self.config = config
        self.encoder = encoder
        self.augment = augment
        self.out = out

    def fit(self, X: Array, y: Array, clients: Array | None = None) -> Self:
        """Simulate the federation.

        Args:
            X: examples, `[N, F]`, or `[N, C, L]` and `[N, C, H, W]`.
            y: their classes, numbers or names.
            clients: who holds each example, numbers or names `[N]`.

        Raises:
            SecureFLError: as `Federation`.
            ValueError: what scikit-learn refuses: lengths that differ, missing values, a target
                that is no class.
        """
        X, y = validate_data(self, X, y, allow_nd=True, dtype=np.float32)
        check_classification_targets(y)
        self.classes_, numbers = np.unique(y, return_inverse=True)
        owners = None
        if clients is not None:
            self.clients_, owners = np.unique(np.asarray(clients), return_inverse=True)
        data = Dataset.from_arrays(
            X, numbers, client=owners, classes=max(2, len(self.classes_)), name="X"
        )
        self.result_ = Federation(
            self._config(owners is not None), data=data, encoder=self.encoder, augment=self.augment
        ).run(self.out)
        return self

    def predict(self, X: Array, client: Any = None) -> np.ndarray:
        """The most probable class of each example `[N]`; see `predict_proba`."""
        best = self.predict_proba(X, client).argmax(1)
        return np.asarray(self.classes_[best])

    def predict_proba(self, X: Array, client: Any = None) -> np.ndarray:
        """Probability of each class, `[N, classes]`.

        Args:
            X: examples.
            client: as named in `fit`, whose pool is used; None: with several pools, the examples
                choose it together, as a newcomer's do.

        Raises:
            ModelError: no such client.
        """
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, allow_nd=True, dtype=np.float32)
        # A model has two classes at least, also where there was one.
        known = self.result_.predict_proba(X, self._number(client)).numpy()[:, : len(self.classes_)]
        return np.asarray(known / known.sum(1, keepdims=True))

    def _config(self, natural: bool) -> FederationConfig | Mapping[str, Any] | Path | str:
        """The configuration given; without one, clients as they were named, or by chance."""
        if self.config is None:
            return {
                "partition": {"kind": "natural" if natural else "iid"},
                "data": {"scale": "none"},
            }
        config = as_config(self.config)
        if "scale" in config.data.model_fields_set:
            return config
        return config.model_copy(update={"data": config.data.model_copy(update={"scale": "none"})})

    def _number(self, client: Any) -> int | None:
        if client is None:
            return None
        found = np.array([client])
        if hasattr(self, "clients_"):
            found = np.flatnonzero(self.clients_ == client)
        if len(found) != 1:
            raise ModelError.of_kind(
                "no such client", "client", client, "use a client that fit() was given examples of"
            )
        return int(found[0])


def _result(estimator: Any) -> Result:
    """The run that was loaded by `fit`, or is loaded now."""
    if not hasattr(estimator, "result_"):
        estimator.fit()
    result: Result = estimator.result_
    return result
