"""Settings of differential privacy that cannot hold, or would be of no use."""

from __future__ import annotations

from typing import Any

import pytest
from helpers import make_images, tiny_config
from wrong_turns.turns import Turn, named

from secure_fl import Federation

IMAGES = make_images(120)
MASKED = {"security": {"protection": "masked"}, "pools": {"enabled": False}}
CLIENTS = {"unit": "client", "min_clients": 3}


def private(**privacy: Any) -> Any:
    """A client-level run over four clients, as far as its plan."""
    return lambda _: (
        Federation(
            tiny_config(privacy={**CLIENTS, **privacy}, **MASKED), data=IMAGES
        ).factory.client_plan
    )


PRIVATE = [
    Turn(
        "more noise than is drawn",
        private(noise=1000.0),
        "privacy.noise",
        "1000.0",
        r"at most 5\.66",
        mended=private(noise=5.6),
    ),
    Turn(
        "noise for a coarser grid",
        private(noise=50.0),
        "privacy.noise",
        "50.0",
        "fewer privacy.scale_bits",
        mended=private(noise=50.0, scale_bits=10),
    ),
    Turn(
        "next to no noise",
        private(noise=1e-6),
        "privacy.noise",
        "1e-06",
        r"at least 0\.000977",
        mended=private(noise=1e-3),
    ),
    Turn(
        "a budget beyond reach",
        private(epsilon=1e-4),
        "privacy.epsilon",
        "0.0001",
        r"at least 1\.02",
        mended=private(epsilon=1.02),
    ),
    Turn("a budget that nothing fits", private(epsilon=-1), "privacy.epsilon", "-1", "above 0"),
    Turn(
        "all others collude",
        private(min_clients=None, colluders=3),
        "privacy.min_clients",
        "None",
        "lower privacy.colluders",
    ),
    Turn(
        "nobody honest",
        private(colluders=3),
        "privacy.min_clients",
        "3",
        "at least 4",
        mended=private(min_clients=4, colluders=3),
    ),
    Turn(
        "more survivors than clients",
        private(min_clients=5),
        "privacy.min_clients",
        "5",
        "at most 4",
        mended=private(min_clients=4),
    ),
]


@pytest.mark.parametrize(**named(PRIVATE))
def test_private_settings(turn: Turn) -> None:
    error = turn.taken(None)
    assert "levels" not in str(error)
    assert "fitted" not in str(error)


def test_counts_noised_beyond_use() -> None:
    tables = {
        "partition": {"clients": 12},
        "pools": {"start": "pretrained"},
        "security": {"protection": "masked"},
    }

    def plan(count_noise: float | None) -> Any:
        return Federation(
            tiny_config(
                privacy={"unit": "client", "noise": 1.0, "count_noise": count_noise}, **tables
            ),
            data=IMAGES,
        ).factory.client_plan

    remedy = r"leave it out, .* privacy\.false_pass or security\.min_pool_clients"
    Turn(
        "",
        lambda _: plan(100.0),
        "privacy.count_noise",
        "100.0",
        remedy,
        mended=lambda _: plan(None),
    ).taken(None)


def test_the_budget_of_a_run_that_would_pass_it_is_named_as_it_is_set() -> None:
    federation = Federation(
        tiny_config(privacy={"unit": "example", "noise": 1e-9}, pools={"enabled": False}),
        data=IMAGES,
    )
    Turn("", lambda _: federation.run(), "privacy.epsilon", "inf", "more noise").taken(None)
