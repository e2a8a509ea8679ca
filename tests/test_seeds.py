"""Seeds: stable over platforms and versions, and independent by purpose."""

from __future__ import annotations

from secure_fl.seeds import derive_seed


def test_seeds_are_what_they_were() -> None:
    assert derive_seed(0, "partition") == 6712963682098796405


def test_purposes_differ() -> None:
    seeds = {
        derive_seed(master, purpose, number)
        for master in range(5)
        for purpose in ("a", "b")
        for number in range(20)
    }
    assert len(seeds) == 200
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(1, 23) != derive_seed(12, 3)
