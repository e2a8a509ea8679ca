"""Every program of the private step's benchmark takes a step on the same rows."""

from __future__ import annotations

import warnings

from bench.private_step import AGAINST, PROGRAMS, Setting, measure_time


def test_every_program_is_timed_in_every_round() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Opacus' backward hooks
        seconds = measure_time(Setting(8), rounds=2)
    assert set(seconds) == set(PROGRAMS)
    assert all(len(samples) == 2 and min(samples) > 0 for samples in seconds.values())
    assert set(AGAINST.values()) <= set(PROGRAMS)
