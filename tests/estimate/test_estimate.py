"""Estimates held against runs: bytes nearly exact, time within a factor."""

from __future__ import annotations

from typing import Any

import pytest
from helpers import make_images, tiny_config

from secure_fl import Federation
from secure_fl.estimate import Estimate, PhaseCost, estimate
from secure_fl.report.costs import lines

CASES: dict[str, dict[str, dict[str, Any]]] = {
    "plain": {},
    "masked": {"security": {"protection": "masked"}, "partition": {"clients": 6}},
    "bfv": {
        "security": {"protection": "bfv+masked"},
        "partition": {"clients": 6},
        "pools": {"encoder": "shared"},
    },
    "authority": {
        "security": {"protection": "bfv+masked", "key_holder": "authority"},
        "partition": {"clients": 6},
        "pools": {"start": "pretrained"},
    },
    "frozen": {"pools": {"encoder": "frozen"}},
    "more than the small round": {
        "security": {"protection": "masked"},
        "partition": {"kind": "iid", "clients": 20},
        "pools": {"enabled": False},
        "objective": {"assign": "modulo"},
    },
    "a few of all clients": {
        "security": {"protection": "masked"},
        "partition": {"kind": "iid", "clients": 12},
        "pretrain": {"participation": 0.5, "rounds": 6},
        "pools": {"enabled": False},
        "objective": {"assign": "modulo"},
    },
    "in groups": {
        "security": {"protection": "masked", "robust": "median", "group_size": 6},
        "partition": {"kind": "iid", "clients": 18},
        "pools": {"enabled": False},
        "objective": {"assign": "modulo"},
    },
}


@pytest.mark.parametrize("tables", CASES.values(), ids=CASES)
def test_bytes_are_what_a_run_sends(tables: dict[str, dict[str, Any]]) -> None:
    config = tiny_config(**tables)
    federation = Federation(config, data=make_images(30 * config.partition.clients))
    told = {phase.name: phase for phase in estimate(federation, timed=False).phases}
    records = federation.run().records
    for name in dict.fromkeys(record.phase for record in records):
        rounds = [record for record in records if record.phase == name]
        if any(
            count < 3
            for record in rounds
            if record.metrics.pools is not None
            for count in record.metrics.pools.counts
        ):
            continue  # a pool stayed closed
        down, up = (
            sum(getattr(record, f"bytes_{way}") for record in rounds) / len(rounds)
            for way in ("down", "up")
        )
        near = 0.5 if name == "sketch" else 0.03
        assert told[name].down == pytest.approx(down, rel=near), name
        assert told[name].up == pytest.approx(up, rel=near), name


def test_client_level_noise_is_sent_too() -> None:
    tables: dict[str, dict[str, Any]] = {
        "privacy": {"unit": "client", "epsilon": 500.0, "min_clients": 4},
        "security": {"protection": "masked"},
        "partition": {"kind": "iid", "clients": 6},
        "pools": {"enabled": False, "start": "random"},
    }
    federation = Federation(tiny_config(**tables), data=make_images(180))
    told = estimate(federation, timed=False).phases[0]
    record = federation.run().records[0]
    assert told.up == pytest.approx(record.bytes_up, rel=0.03)


def test_time_is_of_the_right_order() -> None:
    federation = Federation(
        tiny_config(pretrain={"rounds": 8, "local_epochs": 4}, pools={"enabled": False}),
        data=make_images(400),
    )
    told = {phase.name: phase for phase in estimate(federation).phases}["pretrain"]
    assert told.seconds is not None
    took = [
        record.seconds or 0.0 for record in federation.run().records if record.phase == "pretrain"
    ]
    # the machine is shared; docs give figures of a quiet one
    assert sum(took) / 5 < told.seconds * 8 < sum(took) * 5


@pytest.mark.parametrize("width", [40, 60, 66, 80, 100])
def test_a_page_keeps_to_its_columns(width: int) -> None:
    phases = (
        PhaseCost("pretrain", 1_000_000, 1000, 10**12, 10**12, 1e5),
        PhaseCost("sketch", 6, 1000, 10**9, 10**9, 3.0, most=10001),
        PhaseCost("measure", 1, 0, seconds=1.0),
    )
    told = lines(Estimate(phases, 10**10, 10**9), width)
    assert max(map(len, told)) <= width
    assert "measure" in "\n".join(told)
    assert "estimates" in " ".join(told)
