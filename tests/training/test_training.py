"""Local training, scoring and probes."""

from __future__ import annotations

import pytest
import torch
from helpers import make_images
from torch import nn

from secure_fl.config import ObjectiveConfig, PretrainConfig, RuntimeConfig
from secure_fl.data.dataset import Dataset
from secure_fl.errors import ConfigError, TrainingError
from secure_fl.models.heads import Classifier, EncoderProjector
from secure_fl.models.state import to_vector
from secure_fl.objectives.build import build_objective
from secure_fl.training.device import Compute
from secure_fl.training.fit import LocalSpec, epochs
from secure_fl.training.probes import few_labels, fine_tune, linear_probe, weighted_knn
from secure_fl.training.tasks import SelfSupervised, Supervised, embed

CPU = Compute(torch.device("cpu"))
SPEC = LocalSpec(epochs=2, batch_size=16, lr=0.1, momentum=0.9, weight_decay=0.0)


def classifier(features: int = 8, *, dropout: float = 0.0) -> Classifier:
    torch.manual_seed(0)
    return Classifier(
        nn.Sequential(nn.Flatten(), nn.Linear(64, features), nn.ReLU(), nn.Dropout(dropout)),
        nn.Linear(features, 3),
    )


def self_supervised(name: str = "align_uniform") -> SelfSupervised:
    return SelfSupervised(
        build_objective(ObjectiveConfig(name=name)), lambda x: x + 0.1 * torch.randn_like(x), CPU
    )


def projector_model() -> EncoderProjector:
    torch.manual_seed(0)
    return EncoderProjector(
        nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU()), nn.Linear(8, 8)
    )


def test_batches_cover_each_epoch_once_in_new_orders() -> None:
    spec = LocalSpec(3, 16, 0.1, 0, 0)
    batches = list(epochs(50, spec, 0, whole=False))
    per_epoch = [torch.cat(batches[i : i + 4]) for i in (0, 4, 8)]
    assert all(sorted(e.tolist()) == list(range(50)) for e in per_epoch)
    assert not torch.equal(per_epoch[0], per_epoch[1])


@pytest.mark.parametrize(
    ("count", "whole", "sizes"),
    [(50, True, [16, 16, 16]), (10, True, [10]), (33, False, [16, 16]), (1, False, [])],
)
def test_incomplete_batches(count: int, whole: bool, sizes: list[int]) -> None:
    assert [len(b) for b in epochs(count, LocalSpec(1, 16, 0.1, 0, 0), 0, whole=whole)] == sizes


def test_schedules() -> None:
    constant, cosine = PretrainConfig(), PretrainConfig(schedule="cosine")
    assert LocalSpec.at_round(constant, 99, 100).lr == 0.1
    assert LocalSpec.at_round(cosine, 0, 100).lr == 0.1
    assert LocalSpec.at_round(cosine, 50, 100).lr == pytest.approx(0.05)


def test_supervised_training_learns_and_repeats_bit_for_bit() -> None:
    data = make_images(120)
    models = [classifier(dropout=0.2) for _ in range(2)]
    torch.manual_seed(7)
    state = torch.get_rng_state()
    reports = [Supervised(CPU).fit(model, data, SPEC, seed=3) for model in models]
    assert torch.equal(torch.get_rng_state(), state)
    assert reports[0] == reports[1]
    assert torch.equal(to_vector(models[0]), to_vector(models[1]))
    assert (Supervised(CPU).score(models[0], data, 0).accuracy or 0) > 0.9


def test_unlabelled_examples_are_left_out() -> None:
    data = make_images(60)
    some = Dataset.from_arrays(
        torch.cat([data.x, torch.rand(20, 1, 8, 8)]),
        torch.cat([data.y, torch.full((20,), -1)]),
        classes=3,
    )
    first, second = classifier(), classifier()
    Supervised(CPU).fit(first, data, SPEC, seed=0)
    Supervised(CPU).fit(second, some, SPEC, seed=0)
    assert torch.equal(to_vector(first), to_vector(second))
    score = Supervised(CPU).score(first, data.unlabelled(), 0)
    assert score.accuracy is None
    assert score.entropy is not None


def test_a_frozen_encoder_stays() -> None:
    model = classifier()
    before = model.encoder[1].weight.clone()
    Supervised(CPU, frozen=True).fit(model, make_images(60), SPEC, seed=0)
    assert torch.equal(model.encoder[1].weight, before)
    assert not model.encoder.training


@pytest.mark.parametrize("name", ["align_uniform", "nt_xent", "spectral_contrastive"])
def test_self_supervised_training_lowers_its_loss(name: str) -> None:
    data, model, task = make_images(96).unlabelled(), projector_model(), self_supervised(name)
    before = task.score(model, data, 1).loss
    task.fit(model, data, LocalSpec(10, 32, 0.05, 0.9, 0), seed=0)
    assert task.score(model, data, 1).loss < before
    assert task.score(model, data, 1) == task.score(model, data, 1)


def test_dropout_follows_the_seed_in_self_supervised_training_too() -> None:
    data, vectors = make_images(48).unlabelled(), []
    for ambient in (1, 2):
        model = projector_model()
        model.encoder.append(nn.Dropout(0.5))  # type: ignore[operator]
        torch.manual_seed(ambient)
        self_supervised().fit(model, data, SPEC, seed=4)
        vectors.append(to_vector(model))
    assert torch.equal(*vectors)


def test_divergence_in_the_last_step_is_noticed() -> None:
    data = make_images(16)
    loud = Dataset.from_arrays(1e4 * data.x, data.y, classes=3)
    with pytest.raises(TrainingError, match="diverged"):
        Supervised(CPU).fit(classifier(), loud, LocalSpec(1, 16, 1e38, 0, 0), seed=0)


def test_one_example_has_no_self_supervised_score() -> None:
    assert (
        self_supervised().score(projector_model(), make_images(1), 0).loss
        != self_supervised().score(projector_model(), make_images(1), 0).loss
    )


def test_a_loss_that_is_not_finite_stops_training() -> None:
    model = classifier()
    with pytest.raises(TrainingError, match="not finite"):
        Supervised(CPU).fit(model, make_images(60), LocalSpec(5, 16, 1e30, 0.9, 0), seed=0)


def test_nothing_to_train_on() -> None:
    with pytest.raises(TrainingError, match="no batch of two"):
        Supervised(CPU).fit(classifier(), make_images(1), SPEC, seed=0)


def test_mixed_precision_trains_in_bfloat16_on_the_processor() -> None:
    model, data = classifier(), make_images(120)
    compute = Compute.of(RuntimeConfig(device="cpu", precision="mixed"))
    Supervised(compute).fit(model, data, SPEC, seed=0)
    assert model.head.weight.dtype == torch.float32
    assert (Supervised(compute).score(model, data, 0).accuracy or 0) > 0.9
    seen = []
    model.head.register_forward_hook(lambda *args: seen.append(args[2].dtype))
    Supervised(compute).score(model, data, 0)
    assert seen[0] == torch.bfloat16


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without cuda")
def test_cuda_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="no CUDA device"):
        Compute.of(RuntimeConfig(device="cuda"))


def test_probes_read_separable_features() -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(90) % 3
    h = 3 * torch.eye(3)[y] + 0.1 * torch.randn(90, 3, generator=generator)
    bank, test = (h[:60], y[:60]), (h[60:], y[60:])
    assert weighted_knn(*bank, *test, k=500) > 0.95
    assert linear_probe(*bank, *test, classes=3, epochs=1000) > 0.95
    noise = torch.randn(90, 3, generator=generator)
    assert weighted_knn(noise[:60], y[:60], noise[60:], y[60:]) < 0.7


def test_knn_agrees_with_scikit_learn_where_weights_are_flat() -> None:
    from sklearn.neighbors import KNeighborsClassifier

    generator = torch.Generator().manual_seed(1)
    bank, h = (
        torch.nn.functional.normalize(torch.randn(n, 5, generator=generator), dim=1)
        for n in (80, 40)
    )
    bank_y, y = torch.arange(80) % 4, torch.arange(40) % 4
    theirs = (
        KNeighborsClassifier(7, metric="cosine")
        .fit(bank.numpy(), bank_y.numpy())
        .score(h.numpy(), y.numpy())
    )
    assert weighted_knn(bank, bank_y, h, y, k=7, temperature=1e6) == pytest.approx(theirs, abs=0.06)


def test_few_labels_are_enough_where_classes_lie_apart_and_teach_nothing_of_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(300) % 3
    noise = torch.randn(300, 8, generator=generator)
    apart = 4 * torch.eye(8)[y] + 0.3 * noise
    assert min(few_labels(apart[:150], y[:150], apart[150:], y[150:], classes=3)) > 0.95
    assert max(few_labels(noise[:150], y[:150], noise[150:], y[150:], classes=3)) < 0.5


def test_the_few_label_probe_is_scikit_learn_s_logistic_regression() -> None:
    """Whose C is 1 / (2 · decay · examples) for the mean loss that is minimised here."""
    from sklearn.linear_model import LogisticRegression

    generator = torch.Generator().manual_seed(3)
    y = torch.arange(400) % 4
    h = 1.5 * torch.eye(6)[y] + torch.randn(400, 6, generator=generator)
    bank, bank_y = h[:20], y[:20]  # five of each: every draw is all of them
    ours, _ = few_labels(bank, bank_y, h[20:], y[20:], classes=4, draws=1)
    standard = (bank - bank.mean(0)) / bank.std(0)
    peer = LogisticRegression(C=1 / (2 * 1e-2 * 20), max_iter=1000, tol=1e-8)
    peer.fit(standard.numpy(), bank_y.numpy())
    theirs = peer.score(((h[20:] - bank.mean(0)) / bank.std(0)).numpy(), y[20:].numpy())
    assert ours == pytest.approx(theirs, abs=0.011)


def test_fine_tuning_leaves_the_encoder_alone() -> None:
    model, data = classifier(), make_images(240)
    before = to_vector(model.encoder)
    accuracy = fine_tune(
        model.encoder,
        data,
        make_images(60, seed=9),
        share=0.1,
        epochs=20,
        augment=lambda x: x,
        compute=CPU,
    )
    assert accuracy > 0.9
    assert torch.equal(to_vector(model.encoder), before)


def test_embedding_is_in_eval_mode_and_in_order() -> None:
    model, data = classifier(dropout=0.5), make_images(1100)
    h = embed(model.encoder.train(), data.x, CPU)
    assert h.shape == (1100, 8)
    torch.testing.assert_close(h[700], model.encoder.eval()(data.x[700:701])[0].detach())
