"""Training that diverges or learns nothing says so, and no alert advises what is set already."""

from __future__ import annotations

import re
from dataclasses import replace
from io import StringIO
from typing import Any

import pytest
import torch
from helpers import make_images, tiny_config
from rich.console import Console

from secure_fl import Federation, FederationConfig
from secure_fl.callbacks.progress import PlainProgress
from secure_fl.config.advice import Lower, Raise, Setting, advise, value_of
from secure_fl.data.dataset import Dataset
from secure_fl.data.partitions import ClientData
from secure_fl.errors import TrainingError
from secure_fl.federation.run_folder.metrics import Metrics, RoundRecord
from secure_fl.federation.run_folder.summary import Alerted
from secure_fl.federation.whole_run.alerts import alerts_of, listed, majority_accuracy, watched
from secure_fl.pools.monitor import pool_health
from secure_fl.training.fit import LocalSpec, has_exploded

CONFIGS: list[dict[str, Any]] = [
    {},
    {"pools": {"start": "random"}},
    {"pools": {"start": "random"}, "pretrain": {"mode": "none"}},
    {"pools": {"start": "restarts"}},
    {"pools": {"start": "pretrained", "count": 2}},
    {"pools": {"encoder": "frozen", "warmup_rounds": 9, "keep_margin": 1.0}},
    {"security": {"protection": "plain"}, "data": {"labelled_clients": 0.5}},
    {"privacy": {"unit": "client"}, "runtime": {"precision": "mixed"}},
    {"privacy": {"unit": "example"}},
    {
        "privacy": {"unit": "example", "choice": "exponential"},
        "pretrain": {"mode": "load", "load_from": "runs/x"},
    },
]
METRICS = [
    ("pretrain", Metrics(loss=1e9, exploded={"3": 5, "4": 0})),
    ("cluster", Metrics(loss=float("inf"))),
    ("measure", Metrics(initial={"knn": 0.9}, pretrained={"knn": 0.8})),
    ("evaluate", Metrics(accuracy=0.2, accuracies={"0": 0.2})),
]


@pytest.mark.parametrize("tables", CONFIGS)
def test_no_alert_advises_what_is_set_already(tables: dict[str, Any]) -> None:
    config = FederationConfig(**tables)
    first = [
        RoundRecord(phase, 1, 0, 0, 0, metrics=Metrics(loss=1.0))
        for phase in ("pretrain", "cluster")
    ]
    records = [
        watched(RoundRecord(phase, 2, 0, 0, 0, metrics=metrics), first, config, {"0": 0.5})
        for phase, metrics in METRICS
    ]
    alerts = [alert for record in records for alert in alerts_of(record)]
    alerts += [
        pool_health(counts, config=config).alert or ""
        for counts in ([8] + [0] * (config.pools.count - 1), [39, 1])
    ]
    assert len(alerts) == 7
    for alert in alerts:
        assert "; " in alert, "a remedy"
        for field, value in re.findall(r"set (\w+\.\w+) = (\"?[\w.]+\"?)", alert):
            assert str(value_of(config, field)) != value.strip('"'), alert
        for field, value in re.findall(
            r"(?:raise|lower) (\w+\.\w+) (?:above|below) ([\w.+-]+)", alert
        ):
            assert value_of(config, field) == float(value), "names where it stands"


def test_advice_is_what_the_configuration_leaves_open() -> None:
    config = FederationConfig()
    assert (
        advise(config, Setting("pools.start", "sketch"), Lower("pools.count"))
        == "lower pools.count below 3"
    )
    assert (
        advise(
            config, Setting("pools.start", "pretrained"), Raise("data.labelled_clients", limit=1)
        )
        == 'set pools.start = "pretrained"'
    )
    assert (
        advise(FederationConfig(privacy={"unit": "client"}), Setting("pools.start", "sketch")) == ""
    ), "refused at client level"
    assert "sketch_epsilon" in (pool_health([8, 0, 0], config=config).alert or "")


@pytest.mark.parametrize("phase", ["pretrain", "pools"])
@pytest.mark.parametrize("protection", ["plain", "masked"])
def test_training_that_diverges_names_client_phase_round_and_step(
    phase: str, protection: str
) -> None:
    config = tiny_config(
        **{phase: {"lr": 1e18}}, security={"protection": protection}, partition={"clients": 6}
    )
    where = "pretrain" if phase == "pretrain" else "cluster"
    with pytest.raises(
        TrainingError,
        match=rf"client 0, phase {where}, round 1: step \d+: .*not finite.*below 1e\+18",
    ) as caught:
        Federation(config, data=make_images(250)).run()
    assert "float32" not in str(caught.value), "it is set already"


def test_a_server_that_diverges_is_named(tmp_path: Any) -> None:
    import numpy as np

    images = make_images(60)
    np.savez(tmp_path / "set.npz", x=images.x.numpy())
    source = {"name": "npz", "path": str(tmp_path / "set.npz"), "kind": "image"}
    config = tiny_config(pretrain={"mode": "centralized", "source": source, "lr": 1e18})
    with pytest.raises(TrainingError, match="server, phase pretrain, round 1: step"):
        Federation(config, data=make_images(250)).run()


def test_client_level_runs_go_on_and_tell_the_experimenter() -> None:
    config = tiny_config(
        privacy={"unit": "client", "epsilon": 50},
        pretrain={"lr": 1e18, "rounds": 1},
        pools={"enabled": False},
        partition={"clients": 6},
        security={"protection": "masked"},
    )
    result = Federation(config, data=make_images(250)).run()
    assert result.records[0].metrics.exploded == {str(client): 0 for client in range(6)}
    assert "exploding loss" in result.summary.alerts[0].alert


def test_an_exploding_loss_is_told_and_no_error() -> None:
    assert has_exploded(30.0, 2.3)
    assert not has_exploded(20.0, 2.3)
    assert has_exploded(float("nan"), 2.3)
    assert not has_exploded(-3.0, -1.0)
    config = tiny_config(pools={"lr": 30.0, "rounds": 2}, pretrain={"mode": "none"})
    result = Federation(config, data=make_images(250)).run()
    found = [
        alert
        for alert in result.summary.alerts
        if alert.alert.startswith("exploding loss within a round")
    ]
    assert found
    assert found[0].phase == "cluster"
    assert re.search(r"client \d at step \d+", str(found[0].alert))
    assert "lower pools.lr below 30" in str(found[0].alert)


def test_learning_nothing_is_told_and_learning_is_not() -> None:
    nothing = Federation(
        tiny_config(pools={"lr": 1e-9}, pretrain={"lr": 1e-9}), data=make_images(250)
    ).run()
    final = nothing.summary.pools
    assert any(
        alert.phase == "evaluate" and "no better than the majority class" in alert.alert
        for alert in nothing.summary.alerts
    )
    assert final.accuracy <= final.majority
    learnt = Federation(tiny_config(pools={"rounds": 4}), data=make_images(400)).run().summary
    assert learnt.pools.accuracy > 0.8 > 0.5 > learnt.pools.majority
    assert not any(alert.phase == "evaluate" for alert in learnt.alerts)


def test_lowered_knn_is_told_and_raised_is_not() -> None:
    record = RoundRecord(
        "measure", 1, 0, 0, 0, metrics=Metrics(initial={"knn": 0.9}, pretrained={"knn": 0.8})
    )
    assert alerts_of(watched(record, [], tiny_config(), {}))[0].startswith(
        "pre-training lowered kNN: accuracy 0.900 by the random encoder, 0.800"
    )
    better = replace(record, metrics=Metrics(initial={"knn": 0.8}, pretrained={"knn": 0.9}))
    assert alerts_of(watched(better, [], tiny_config(), {})) == []


def test_majority_and_balanced_accuracy_by_hand() -> None:
    x = torch.zeros(4, 1, 8, 8)
    train, test = (
        Dataset.from_arrays(x, torch.tensor(y), classes=3) for y in ([2, 2, 1, -1], [2, 1, 1, -1])
    )
    client = ClientData(0, train, train, test, None, "")
    assert majority_accuracy(client) == pytest.approx(1 / 3)
    assert majority_accuracy(replace(client, train=train.unlabelled())) is None
    assert majority_accuracy(replace(client, test=test.unlabelled())) is None

    from secure_fl.training.device import Compute
    from secure_fl.training.tasks import Supervised

    class First(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.eye(3)[torch.ones(len(x), dtype=torch.long)]

    skewed = Dataset.from_arrays(
        torch.zeros(10, 1, 8, 8), torch.tensor([1] * 8 + [0, 2]), classes=3
    )
    score = Supervised(Compute(torch.device("cpu"))).score(First(), skewed, 0)
    assert score.accuracy == pytest.approx(0.8)
    assert score.balanced_accuracy == pytest.approx(1 / 3)


def test_an_alert_is_printed_and_listed_once() -> None:
    heard = StringIO()
    progress = PlainProgress(Console(file=heard, width=200))
    progress.on_phase("cluster", 3, 0)
    crowded = pool_health([9, 1])
    records = [
        RoundRecord(
            "cluster",
            number,
            4,
            0,
            0,
            1.0,
            Metrics(pools=replace(crowded, alert=f"near collapse: {number}%; lower it")),
        )
        for number in (1, 2, 3)
    ]
    for record in records:
        progress.on_round(record)
    progress.on_round(replace(records[0], phase="evaluate"))
    assert heard.getvalue().count("near collapse") == 1
    progress.on_round(
        replace(
            records[1],
            phase="evaluate",
            metrics=Metrics(alerts=("no better than the majority class: x; y",)),
        )
    )
    assert heard.getvalue().count("warning") == 2
    assert listed(records) == (Alerted("cluster", 1, "near collapse: 1%; lower it"),)


def test_nothing_of_it_is_written_without_evaluation(tmp_path: Any) -> None:
    config = tiny_config(pools={"lr": 1e-9}, pretrain={"lr": 1e-9}, evaluate={"enabled": False})
    result = Federation(config, data=make_images(250)).run(tmp_path / "run")
    assert result.summary.alerts, "the process knows"
    written = (tmp_path / "run" / "summary.json").read_text() + (
        tmp_path / "run" / "metrics.jsonl"
    ).read_text()
    assert not re.search("alerts|majority|balanced|exploded", written)


def test_local_specification_is_named_in_the_remedy() -> None:
    from secure_fl.training.fit import advice

    spec = LocalSpec(1, 16, 0.1, 0, 0)
    assert "float32" in advice(spec, mixed=True)
    assert "float32" not in advice(spec, mixed=False)
