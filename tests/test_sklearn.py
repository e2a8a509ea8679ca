"""scikit-learn's interface, by scikit-learn's own checks where these apply."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import make_images, tiny_config
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from secure_fl import Federation, Result
from secure_fl.errors import ConfigError, DataError, ModelError, RunFolderError
from secure_fl.sklearn import FederatedClassifier, SecureFLClassifier, SecureFLEncoder

SMALL: dict[str, Any] = {
    "partition": {"kind": "iid", "clients": 2, "min_examples": 2},
    "model": {"encoder": "mlp", "features": 16},
    "pretrain": {"mode": "none"},
    "pools": {
        "count": 1,
        "rounds": 1,
        "local_epochs": 25,
        "start": "random",
        "lr": 0.05,
        "batch_size": 8,
    },
    "evaluate": {"enabled": False},
    "security": {"protection": "plain"},
}
EXPECTED = {
    "check_fit2d_1sample": "one example is fewer than two clients need: refused by a typed "
    "PartitionError, not by a ValueError",
}


@parametrize_with_checks([FederatedClassifier(SMALL)], expected_failed_checks=lambda _: EXPECTED)  # type: ignore[untyped-decorator]
def test_scikit_learns_own_checks(estimator: Any, check: Any) -> None:
    """On what is fitted. The two that wrap a finished run ignore what they are fitted to, so none
    of these checks can hold for them.
    """
    check(estimator)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return Federation(tiny_config(), data=make_images(240)).run(
        tmp_path_factory.mktemp("made") / "run"
    )


def test_a_run_is_a_transformer(made: Result) -> None:
    data = make_images(60, seed=4)
    x, y = data.x.numpy(), data.y.numpy()
    encoder = SecureFLEncoder(made.folder)
    np.testing.assert_array_equal(encoder.transform(x), made.embed(data.x).numpy())
    np.testing.assert_array_equal(encoder.transform(x.reshape(60, -1)), encoder.transform(x))
    np.testing.assert_array_equal(clone(encoder).fit_transform(x), encoder.transform(x))
    assert list(encoder.get_feature_names_out()) == [
        f"secureflencoder{number}" for number in range(16)
    ]
    pipeline = make_pipeline(SecureFLEncoder(made.folder), LogisticRegression())
    assert pipeline.fit(x.reshape(60, -1), y).score(x.reshape(60, -1), y) > 0.8
    with pytest.raises(DataError, match="not of shape"):
        encoder.transform(np.zeros((3, 63)))


def test_a_run_is_a_classifier(made: Result) -> None:
    data = make_images(60, seed=4)
    x, y = data.x.numpy(), data.y.numpy()
    classifier = SecureFLClassifier(made.folder, client=0)
    np.testing.assert_array_equal(classifier.predict(x), made.predict(data.x, 0).numpy())
    np.testing.assert_array_equal(
        classifier.predict_proba(x.reshape(60, -1)), made.predict_proba(data.x, 0).numpy()
    )
    assert classifier.score(x, y) > 0.8
    assert classifier.get_params() == {
        "folder": made.folder,
        "client": 0,
        "pool": None,
        "encoder": None,
    }
    assert list(classifier.classes_) == [0, 1, 2]
    newcomer, pool = SecureFLClassifier(made.folder), made.assign(data.x).pool
    np.testing.assert_array_equal(
        newcomer.predict(x), SecureFLClassifier(made.folder, pool=pool).predict(x)
    )
    with pytest.raises(ModelError, match="no such client"):
        SecureFLClassifier(made.folder, client="nobody").predict(x)


def test_a_folder_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="holds no run"):
        SecureFLEncoder(tmp_path).fit()


def test_fitting_over_named_clients_and_classes() -> None:
    data = make_images(180)
    clients = np.random.default_rng(0).permutation(
        np.array(["north", "south", "west"])[np.arange(180) % 3]
    )
    names = np.array(["ant", "bee", "cat"])[data.y.numpy()]
    config = {**SMALL, "partition": {"kind": "natural"}, "model": {"features": 16}}
    fitted = FederatedClassifier(config).fit(data.x.numpy(), names, clients=clients)
    assert len(fitted.result_.choices) == 3
    assert list(fitted.clients_) == ["north", "south", "west"]
    test = make_images(60, seed=8)
    assert set(fitted.predict(test.x.numpy(), client="south")) <= {"ant", "bee", "cat"}
    assert fitted.score(test.x.numpy(), np.array(["ant", "bee", "cat"])[test.y.numpy()]) > 0.8
    expected = fitted.result_.predict_proba(test.x, 1)
    torch.testing.assert_close(
        torch.from_numpy(fitted.predict_proba(test.x.numpy(), "south")), expected
    )
    with pytest.raises(ModelError, match="a client that fit"):
        fitted.predict(test.x.numpy(), client="east")


def test_clients_are_the_partition_unless_the_configuration_says_otherwise() -> None:
    assert FederatedClassifier()._config(True) == {
        "partition": {"kind": "natural"},
        "data": {"scale": "none"},
    }
    assert FederatedClassifier()._config(False) == {
        "partition": {"kind": "iid"},
        "data": {"scale": "none"},
    }
    with pytest.raises(ConfigError, match="is no configuration"):
        FederatedClassifier(5).fit(np.zeros((4, 2)), np.arange(4) % 2)
    with pytest.raises(NotFittedError):
        FederatedClassifier().predict(np.zeros((4, 2)))
