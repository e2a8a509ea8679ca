"""What a draw of noise costs: Skellam, discrete Gaussian and Gaussian from the cryptographic
source, against named peers.

    python -m bench.integer_noise [--rounds 15] [--results FOLDER]

All samplers draw in turn in one process and one thread, so that a busy machine slows them alike;
figures are nanoseconds a draw, quantiles over rounds. Rows go to `results/integer_noise.csv`.
Tables are built before the clock starts; what that takes is a column.

Claims: an integer draw takes at most 500 ns at deviation 4096, a Gaussian one 60 ns, both with the
AES keystream they consume. The peers' generators are not cryptographic (PCG64, Mersenne Twister),
but for OpenDP's, which is exact and draws one at a time.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from bench.harness import RESULTS, append_row, provenance
from secure_fl.privacy.integer_noise import IntegerNoise, discrete_gaussian, skellam
from secure_fl.privacy.noise import NoiseSource

CSV = "integer_noise.csv"
DEVIATIONS = (64.0, 4096.0, 65536.0)
DRAWS, FEW = 1 << 20, 1000
CLAIMS = {("skellam", 4096.0): 500, ("discrete gaussian", 4096.0): 500, ("gaussian", 1.0): 60}


@dataclass(frozen=True)
class Sampler:
    """A law, who draws it, and how: `draw()` makes `draws` of them."""

    law: str
    provider: str
    deviation: float
    draws: int
    draw: Callable[[], object]
    build_ms: float = 0.0


def samplers() -> Iterator[Sampler]:
    """Everything that is measured."""
    stream = NoiseSource.fresh().stream(client=0, round=0, purpose="bench")
    generator = np.random.default_rng()
    yield Sampler("word", "secure_fl", 0, DRAWS, partial(stream.words, DRAWS))
    yield Sampler("gaussian", "secure_fl", 1, DRAWS, partial(stream.gaussian, (DRAWS,), 1.0))
    yield Sampler("gaussian", "torch.randn", 1, DRAWS, partial(torch.randn, DRAWS))
    yield Sampler(
        "gaussian", "numpy standard_normal", 1, DRAWS, partial(generator.standard_normal, DRAWS)
    )
    for deviation in DEVIATIONS:
        laws: tuple[tuple[str, Callable[[], IntegerNoise]], ...] = (
            ("skellam", partial(skellam, deviation**2)),
            ("discrete gaussian", partial(discrete_gaussian, deviation)),
        )
        for law, make in laws:
            began = time.perf_counter()
            noise = make()
            yield Sampler(
                law,
                "secure_fl",
                deviation,
                DRAWS,
                partial(noise.sample, stream, DRAWS),
                1e3 * (time.perf_counter() - began),
            )
        yield Sampler(
            "skellam",
            "numpy poisson difference",
            deviation,
            DRAWS,
            partial(_poisson_difference, generator, deviation),
        )
        yield from _opendp(deviation)


def _poisson_difference(generator: np.random.Generator, deviation: float) -> object:
    mean = deviation**2 / 2
    return generator.poisson(mean, DRAWS) - generator.poisson(mean, DRAWS)


def _opendp(deviation: float) -> Iterator[Sampler]:
    try:
        import opendp.prelude as opendp
    except ImportError:
        return
    opendp.enable_features("contrib")
    domain, distance = (
        opendp.vector_domain(opendp.atom_domain(T="i64")),
        opendp.l2_distance(T="f64"),
    )
    measurement = opendp.m.make_gaussian(domain, distance, scale=deviation)
    yield Sampler("discrete gaussian", "OpenDP", deviation, FEW, partial(measurement, [0] * FEW))


def measure(found: list[Sampler], rounds: int) -> list[list[float]]:
    """Nanoseconds a draw, by sampler and round; every other round in reverse order."""
    taken: list[list[float]] = [[] for _ in found]
    order = list(range(len(found)))
    for number in range(rounds + 1):
        for index in order if number % 2 else reversed(order):
            began = time.perf_counter()
            found[index].draw()
            if number:  # the first round only warms up
                taken[index].append(1e9 * (time.perf_counter() - began) / found[index].draws)
    return taken


def run(rounds: int, folder: Path) -> None:
    """Measure all samplers, record and print them."""
    torch.set_num_threads(1)
    where, load = provenance(("cryptography", "opendp")), os.getloadavg()[0]
    found = list(samplers())
    for sampler, taken in zip(found, measure(found, rounds), strict=True):
        low, middle, high = np.quantile(taken, (0.2, 0.5, 0.8))
        most = (
            CLAIMS.get((sampler.law, sampler.deviation))
            if sampler.provider == "secure_fl"
            else None
        )
        row: dict[str, object] = {
            "law": sampler.law,
            "provider": sampler.provider,
            "deviation": f"{sampler.deviation:g}",
            "draws": sampler.draws,
            "rounds": rounds,
            "ns20": f"{low:.4g}",
            "ns50": f"{middle:.4g}",
            "ns80": f"{high:.4g}",
            "build_ms": f"{sampler.build_ms:.3g}" if sampler.build_ms else "",
            "target": f"<= {most}" if most else "",
            "verdict": ("met" if middle <= most else "NOT MET") if most else "",
            "threads": 1,
            "load": f"{load:.2f}",
        }
        append_row(CSV, row, where, folder)
        print(
            f"{sampler.law:18} {sampler.provider:25} {sampler.deviation:8g} {middle:9.1f} ns a "
            f"draw  {row['target']} {row['verdict']}",
            flush=True,
        )


def share_of_a_round(folder: Path) -> None:
    """What part of a client's round its noise is, at client level: default digits, four pools of
    the default encoder, one local epoch.
    """
    noise, whole, fields = _noise_and_round()
    # the first client's round also loads what is loaded once
    share = float(np.median(noise[1:]) / np.median(whole[1:]))
    milliseconds = 1e3 * float(np.median(whole[1:]))
    row: dict[str, object] = dict.fromkeys(
        ("law", "provider", "deviation", "draws", "rounds", "ns20", "ns50", "ns80", "build_ms"), ""
    )
    row |= {
        "law": "skellam",
        "provider": "secure_fl",
        "draws": fields,
        "rounds": len(whole) - 1,
        "target": "share of a client's round",
    }
    row |= {"verdict": f"{share:.2%}", "threads": 1, "load": f"{os.getloadavg()[0]:.2f}"}
    append_row(CSV, row, provenance(("cryptography", "opendp")), folder)
    print(
        f"noise on {fields:,} fields: {share:.1%} of a client's round of {milliseconds:.0f} "
        "ms, one epoch of training and sending"
    )


def _noise_and_round() -> tuple[list[float], list[float], int]:
    """Seconds of every client's noise and of its whole round, and how many fields are noised."""
    from secure_fl import Federation, FederationConfig
    from secure_fl.engines.embedded import EmbeddedEngine
    from secure_fl.federation.state import Place, State
    from secure_fl.federation.steps.order import steps_of
    from secure_fl.federation.steps.program import StepProgram
    from secure_fl.models.state import to_vector

    tables = {
        "pools": {"local_epochs": 1},
        "privacy": {"unit": "client", "noise": 1.0},
        "security": {"min_pool_clients": 3},
    }
    federation = Federation(FederationConfig.model_validate(tables))
    factory = federation.factory
    program = StepProgram(factory, steps_of(factory))
    place = Place(program.names.index("cluster"), 0)
    state = program.entered(State(place, {"encoder": to_vector(factory.encoder())}))
    assert factory.client_plan is not None
    level, source = factory.client_plan.of("cluster"), NoiseSource.fresh()
    noise, whole = [], []
    for number, client in enumerate(EmbeddedEngine(federation.clients, program).clients):
        began = time.perf_counter()
        level.share(source.stream(client=number, round=0, purpose="bench"), level.fields)
        noise.append(time.perf_counter() - began)
        began = time.perf_counter()
        client.answer(state, number)
        whole.append(time.perf_counter() - began)
    return noise, whole, level.fields


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rounds", type=int, default=15, help="times that each sampler draws (default 15)"
    )
    parser.add_argument(
        "--results", type=Path, default=RESULTS, help="folder of the CSV (default bench/results)"
    )
    arguments = parser.parse_args()
    run(arguments.rounds, arguments.results)
    share_of_a_round(arguments.results)


if __name__ == "__main__":
    main()
