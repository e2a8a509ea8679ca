"""Sketches in runs: noised, charged and made once wherever sums are protected; exact, and said in
red, in the open.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from federation.parts import engine_of, state_at
from helpers import StopAfter, make_images, tiny_config
from torch import Tensor, nn

from secure_fl import Dataset, Federation, FederationConfig, run
from secure_fl.engines import embedded
from secure_fl.errors import ConfigError, PrivacyError
from secure_fl.federation.client import Client
from secure_fl.federation.factory.sketch_form import shortened
from secure_fl.federation.local import workbench as bench
from secure_fl.federation.local.sketches import OpenSketch, ReleasedSketch
from secure_fl.federation.state import State
from secure_fl.federation.steps.step import Answer
from secure_fl.finished.assign import assign_pool
from secure_fl.finished.summary import unprotected
from secure_fl.pools.sketch import sketch_of
from secure_fl.privacy import private_sketch
from secure_fl.privacy.events import GaussianEvent
from secure_fl.privacy.ledger import PrivacyLedger
from secure_fl.privacy.noise import NoiseSource, NoiseStream
from secure_fl.privacy.private_sketch import GRID, PrivateSketch, on_grid
from secure_fl.secure_sum.grid import Blocks

SHORT: dict[str, dict[str, Any]] = {
    "partition": {"clients": 6, "groups": 2},
    "pretrain": {"mode": "none"},
    "pools": {"rounds": 2, "local_epochs": 1},
    "evaluate": {"enabled": False},
    "security": {"protection": "masked"},
}


@pytest.fixture(autouse=True)
def _repeatable_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """A statistical test that passes once passes always."""
    monkeypatch.setattr(embedded, "new_noise", lambda: NoiseSource.for_tests(11))


def protected(**tables: dict[str, Any]) -> FederationConfig:
    """Six clients in two groups of three, no differential privacy, sums under masks."""
    return tiny_config(
        **{name: {**SHORT.get(name, {}), **tables.get(name, {})} for name in SHORT | tables}
    )


def test_sketches_of_a_protected_run_are_charged_and_nothing_reads_as_if_the_rest_were_private(
    tmp_path: Path, images: Dataset
) -> None:
    result = Federation(protected(), data=images).run(tmp_path / "run")
    ledger = PrivacyLedger.load(tmp_path / "run" / "ledger.json")
    assert ledger.verify().ok
    assert sorted((release.phase, release.subjects) for release in ledger.releases) == [
        (p, (c,)) for p in ("centre", "sketch") for c in range(6)
    ]
    assert ledger.budget is not None
    assert 0.999 < ledger.maximum(ledger.budget) <= ledger.budget.epsilon == 1.0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert "privacy" not in summary
    assert not any(record.metrics.privacy for record in result.records)
    assert summary["sketches"]["epsilon"] == pytest.approx(1.0)
    assert summary["sketches"]["unit"] == "example"
    assert summary["sketches"]["claims"]
    assert all(
        "no differential privacy" in claim["not_covered"][0]
        for claim in summary["sketches"]["claims"]
    )
    assert any(
        "no differential privacy" in line and "sketches alone" in line
        for line in summary["unprotected"]
    )


class Watched:
    """What clients release and what enters the sums of a run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.centres: list[tuple[Tensor, Tensor, int]] = []
        self.sketches: list[tuple[Tensor, Tensor, int]] = []
        self.summed: list[Blocks] = []
        release_mean, release = PrivateSketch.release_mean, PrivateSketch.release
        answered = Client.answered

        def mean(sketch: PrivateSketch, features: Tensor, size: int, stream: NoiseStream) -> Tensor:
            made = release_mean(sketch, features, size, stream)
            self.centres.append((made, on_grid(features).sum(0).double() / (GRID * size), size))
            return made

        def whole(
            sketch: PrivateSketch,
            features: Tensor,
            labels: Tensor | None,
            size: int,
            centre: Tensor | None,
            stream: NoiseStream,
        ) -> Tensor:
            made = release(sketch, features, labels, size, centre, stream)
            total = sketch.contributions(features, labels, centre).sum(0)
            self.sketches.append((made, total.double() / (GRID * size), size))
            return made

        def watched(client: Client, state: State, position: int) -> Answer:
            answer = answered(client, state, position)
            self.summed.append(answer.blocks)
            return answer

        monkeypatch.setattr(PrivateSketch, "release_mean", mean)
        monkeypatch.setattr(PrivateSketch, "release", whole)
        monkeypatch.setattr(Client, "answered", watched)

    def deviations(self, events: dict[str, GaussianEvent]) -> Tensor:
        """All noise of the run `[clients, numbers]`, in the deviations that the ledger charges for:
        standard normal if charge and noise agree.
        """
        parts = []
        for released, name in ((self.centres, "centre"), (self.sketches, "sketch")):
            parts.append(
                torch.stack(
                    [
                        (made - exact) * size / events[name].noise_multiplier
                        for made, exact, size in released
                    ]
                )
            )
        return torch.cat(parts, dim=1)


def check_noise(z: Tensor) -> None:
    """Mean, deviation, and independence between clients, within five standard errors; halved noise
    is 8 away.
    """
    clients, numbers = z.shape
    assert abs(float(z.mean())) < 5 / z.numel() ** 0.5
    assert abs(float(z.square().mean()) - 1) < 5 * (2 / z.numel()) ** 0.5
    assert abs(float(z.sum(0).square().mean()) / clients - 1) < 5 * (2 / numbers) ** 0.5


def run_watched(
    images: Dataset, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Watched, Federation, Tensor]:
    watched, made = Watched(monkeypatch), Federation(protected(), data=images)
    made.run(folder)
    events = {
        release.phase: release.event
        for release in PrivacyLedger.load(folder / "ledger.json").releases
    }
    return watched, made, watched.deviations(events)  # type: ignore[arg-type]


def test_what_is_summed_is_the_released_sketch_with_the_noise_that_is_charged(
    tmp_path: Path, images: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched, made, z = run_watched(images, tmp_path / "run", monkeypatch)
    assert len(watched.centres) == len(watched.sketches) == 6
    check_noise(z)
    width = made.factory.sketch.width
    grid = made.factory.unit_grid(width + 3)
    first = [blocks for blocks in watched.summed if blocks.pools.shape == (1, width + 3)]
    assert len(first) == 6
    for blocks, (sketch, exact, _) in zip(first, watched.sketches, strict=True):
        sent = grid.codec.dequantise(blocks.pools[0, :width])
        assert float((sent - shortened(sketch)).abs().max()) < 1.1 / grid.codec.scale
        assert float((sent - exact).norm()) > 0.1, (
            "a difference of two sums would show the exact sketch"
        )


@pytest.mark.parametrize("fault", ["none at all", "half", "one stream for all"])
def test_a_wrong_noise_in_the_client_is_noticed(
    fault: str, tmp_path: Path, images: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest: Callable[..., Tensor] = private_sketch._released

    def planted(
        contributions: Tensor, size: int, noise_multiplier: float, stream: NoiseStream
    ) -> Tensor:
        if fault == "one stream for all":
            deviates = torch.randn(
                len(contributions[0]),
                generator=torch.Generator().manual_seed(5),
                dtype=torch.float64,
            )
            return (contributions.sum(0) + deviates * noise_multiplier * GRID) / (GRID * size)
        return honest(
            contributions,
            size,
            noise_multiplier * (1e-12 if fault == "none at all" else 0.5),
            stream,
        )

    monkeypatch.setattr(private_sketch, "_released", planted)
    _, _, z = run_watched(images, tmp_path / "run", monkeypatch)
    with pytest.raises(AssertionError):
        check_noise(z)


def test_only_an_open_experiment_sends_exact_sketches_and_it_says_so(images: Dataset) -> None:
    made = Federation(protected(security={"protection": "plain"}), data=images)
    sketch = engine_of(made).clients[0].sketch
    assert isinstance(sketch, OpenSketch)
    expected = sketch_of(
        torch.nn.functional.avg_pool2d(made.clients[0].train.x, 2).flatten(1),
        made.clients[0].train.y,
        3,
    )
    torch.testing.assert_close(sketch.own(), expected)
    assert any("sketches too: the server reads" in line for line in unprotected(made.config))
    assert made.run().summary.sketches is None
    for tables in (
        {},
        {"privacy": {"unit": "example", "epsilon": 60.0, "noise": 2.0}},
        {"pools": {"sketch_of": "encoder"}},
    ):
        other = Federation(protected(**tables), data=images)
        assert isinstance(engine_of(other).clients[0].sketch, ReleasedSketch)
        assert not any("sketches too" in line for line in unprotected(other.config))


def test_a_stopped_protected_run_releases_its_sketches_once(
    tmp_path: Path, images: Dataset
) -> None:
    whole = Federation(protected(), data=images).run()
    sketch_rounds = 1 + sum(record.phase in ("centre", "sketch") for record in whole.records)
    for stop in range(1, sketch_rounds):
        out = tmp_path / f"stopped-{stop}"
        with pytest.raises(KeyboardInterrupt):
            Federation(
                protected(),
                data=images,
                callbacks=[StopAfter(stop, midway=stop % 2 == 1, at_end=True)],
            ).run(out)
        Federation(protected(), data=images).run(out, resume=True)
        assert len(PrivacyLedger.load(out / "ledger.json").releases) == 12, f"stopped after {stop}"


def test_a_sketch_that_is_gone_is_not_made_again(tmp_path: Path, images: Dataset) -> None:
    """The two releases use up what is allowed for sketches: a second noisy one would protect less
    than one.
    """
    with pytest.raises(KeyboardInterrupt):
        Federation(
            protected(), data=images, callbacks=[StopAfter(1, midway=True, at_end=True)]
        ).run(tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "private-results")
    with pytest.raises(PrivacyError, match=r"is gone|would pass"):
        Federation(protected(), data=images).run(tmp_path / "run", resume=True)


class Combining(nn.Module):
    """An encoder that standardises by the batch by hand, in eval mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 64))

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.layers(x)
        return (h - h.mean(0)) / (h.std(0, correction=0) + 1e-3)


@pytest.mark.parametrize("privacy", [{}, {"unit": "example", "noise": 2.0, "epsilon": 60.0}])
def test_an_encoder_that_combines_rows_makes_no_sketch(
    privacy: dict[str, Any], tmp_path: Path, images: Dataset
) -> None:
    config = protected(pools={"sketch_of": "encoder", "encoder": "frozen"}, privacy=privacy)
    with pytest.raises(PrivacyError, match="depends on the other rows"):
        Federation(config, data=images, encoder=Combining()).run(tmp_path / "run")
    assert not (tmp_path / "run" / "ledger.json").exists(), (
        "something was charged, and perhaps released, before the check"
    )


def test_it_is_the_checks_that_refuse_it(images: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    config = protected(pools={"sketch_of": "encoder", "encoder": "frozen"})
    monkeypatch.setattr(run, "check_paths", lambda *_: None)
    with pytest.raises(PrivacyError, match="depends on the other rows"):
        Federation(config, data=images, encoder=Combining()).run()
    monkeypatch.setattr(bench, "check_rows_alone", lambda *_, **__: None)
    Federation(config, data=images, encoder=Combining()).run()


def test_batch_normalisation_is_no_hindrance_in_eval_mode(images: Dataset) -> None:
    result = Federation(
        protected(pools={"sketch_of": "encoder"}, model={"norm": "batch"}), data=images
    ).run()
    assert result.summary.sketches.epsilon == pytest.approx(1.0)


def test_sketches_of_examples_need_no_encoder(images: Dataset) -> None:
    """Clients that need one take it from the replicated state: nothing is handed out."""
    assert not Federation(protected(), data=images).config.keeps_encoder
    of_encoder = Federation(protected(pools={"sketch_of": "encoder"}), data=images)
    assert of_encoder.config.keeps_encoder
    client, (_, state) = engine_of(of_encoder).clients[0], state_at(of_encoder, "sketch")
    client.recalled(state)
    assert client.local.bench.kept is state.tensors["encoder"]


def test_groups_are_found_and_clients_and_newcomers_without_labels_join_theirs(
    tmp_path: Path,
) -> None:
    """Under a large budget: what noise costs is measured in `bench/`."""
    tables: dict[str, Any] = {
        "partition": {"clients": 12, "groups": 2},
        "data": {"labelled_clients": 0.67},
        "privacy": {"sketch_epsilon": 100.0},
    }
    made = Federation(protected(**tables), data=make_images(960))
    result = made.run(tmp_path / "run")
    assert [each.train.labelled for each in made.clients].count(False) == 4
    warm_up = next(record for record in result.records if record.phase == "cluster")
    assert warm_up.metrics.pools.ari == 1
    for turns in (0, 1):
        x = torch.rot90(make_images(200, seed=3).x, 2 * turns, (-2, -1))
        np.savez(tmp_path / "new.npz", x=x.numpy())
        found = assign_pool(tmp_path / "run", tmp_path / "new.npz")
        assert found.by == "sketch distance"
        assert found.pool == warm_up.metrics.choices[str(turns)]


def test_a_run_whose_sketches_alone_are_private_is_no_start_of_a_private_one(
    tmp_path: Path, images: Dataset
) -> None:
    """It has a ledger, which says nothing of its encoder."""
    first = protected(pretrain={"mode": "federated", "rounds": 1}, model={"features": 64})
    Federation(first, data=images).run(tmp_path / "first")
    assert (tmp_path / "first" / "ledger.json").exists()
    load = {"mode": "load", "load_from": str(tmp_path / "first")}
    private = protected(
        privacy={"unit": "example", "noise": 2.0, "epsilon": 60.0},
        pretrain=load,
        model={"features": 64},
    )
    with pytest.raises(PrivacyError, match="without privacy"):
        Federation(private, data=images).run()
    Federation(protected(pretrain=load, model={"features": 64}), data=images).run()


def test_a_round_of_k_means_sends_less_than_sketches_of_embeddings_did() -> None:
    factory = Federation().factory
    config = factory.facts.config.pools
    assert (
        config.sketch_starts * config.count * (factory.sketch.width + 2)
        < 32 * config.count * (10 * 64 + 2) / 2
    )
    assert FederationConfig(security={"protection": "plain"}).pools.sketch_starts == 32


def test_sketches_leave_something_of_an_example_level_budget() -> None:
    with pytest.raises(ConfigError, match=r"privacy\.epsilon") as caught:
        FederationConfig(privacy={"unit": "example", "epsilon": 1.0})
    assert caught.value.field == "privacy.sketch_epsilon"
    FederationConfig(privacy={"unit": "example", "epsilon": 1.0, "sketch_epsilon": 0.5})
    FederationConfig(privacy={"unit": "example", "epsilon": 1.0}, pools={"start": "pretrained"})
    with pytest.raises(ConfigError, match="number of examples"):
        FederationConfig(privacy={"adjacency": "add-remove"})


def test_what_differences_of_sums_show_is_said(images: Dataset) -> None:
    assert FederationConfig().pools.weights == FederationConfig().pretrain.weights == "uniform"
    assert not any(
        "difference" in line or "counts of several" in line
        for line in unprotected(FederationConfig())
    )
    weighted = FederationConfig(pretrain={"weights": "examples"})
    assert any("shows its number" in line for line in unprotected(weighted))
    sampled = FederationConfig(partition={"clients": 24}, pools={"participation": 0.5})
    assert any("counts of several rounds" in line for line in unprotected(sampled))
