"""Which private encoder is worth having: view moments beside fixed features, public whitening and
private training, judged by many labels and by few.

    python -m bench.private_encoders [run] [--seeds 5]    measure what is missing, cheapest first,
                                                          then write the page
    python -m bench.private_encoders bytes                what a client sends, by estimate
    python -m bench.private_encoders page                 write docs/private-accuracy.md's tables

Rows go to `results/private_encoders.csv` as they are measured; rows already there are not measured
again. Moments of a split are kept in the temporary folder.

Claims: ε is an example's, at δ = 1e-5 under zero-out, for the encoder. It does not cover the
judges, which read labels in the clear. Noise is drawn from a seeded source at the deviation that
the run's own integer noise has, so that a row can be repeated; nothing of a row is private.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from bench.harness import append_row, command_line, measure_missing, provenance, read_rows
from bench.judging import judged
from bench.private_accuracy_page import write_page
from bench.private_encoders_cells import (
    BYTES_CSV,
    CSV,
    ENCODERS,
    FEDERATION,
    MAKES,
    RUNS,
    TRAINED,
    Cell,
    cells,
)
from bench.private_encoders_federated import bytes_up, federated
from bench.private_encoders_moments import BANK, Level, head, measured, plain_whitening, prior
from bench.private_encoders_sets import split
from bench.private_encoders_trained import trained
from secure_fl.config import ModelConfig
from secure_fl.models.build import build_encoder
from secure_fl.models.scattering import Scattering
from secure_fl.seeds import derive_seed


def embedded(cell: Cell) -> tuple[Tensor, Tensor]:
    """Features of the bank and of the test examples, `[N, F]`."""
    drawn = split(cell.data, cell.seed)
    bank, test = drawn.train.x[:BANK], drawn.test.x
    if cell.encoder in MAKES:
        kind, beside_prior = MAKES[cell.encoder]
        level = Level(float(cell.epsilon), cell.placed)
        made = head(cell.data, cell.seed, level, kind, beside_prior=beside_prior).float()
        return _under(cell, made)
    if cell.encoder == FEDERATION or cell.encoder in RUNS:
        return federated(cell.encoder, float(cell.epsilon), cell.seed, drawn)
    if cell.encoder in TRAINED:
        return trained(cell.encoder, cell.epsilon, cell.seed, drawn)
    with torch.no_grad():
        return _FREE[cell.encoder](cell, bank, test)


def _under(cell: Cell, made: Tensor) -> tuple[Tensor, Tensor]:
    found = measured(cell.data, cell.seed)
    return found.bank @ made, found.test @ made


def _passed(model: nn.Module, *parts: Tensor) -> tuple[Tensor, Tensor]:
    bank, test = (torch.cat([model.eval()(each) for each in part.split(500)]) for part in parts)
    return bank, test


def _random(cell: Cell, *parts: Tensor) -> tuple[Tensor, Tensor]:
    shape = tuple(parts[0].shape[1:])
    model = build_encoder(ModelConfig(norm="group"), shape, derive_seed(cell.seed, "encoder"))
    return _passed(model, *parts)


def _public(cell: Cell) -> tuple[Tensor, Tensor]:
    return _under(cell, plain_whitening(prior(cell.data), 1000).float())


def _zca(cell: Cell) -> tuple[Tensor, Tensor]:
    bank = measured(cell.data, cell.seed).bank.double()
    return _under(cell, plain_whitening(bank.T.cov(), len(bank)).float())


_FREE: dict[str, Callable[[Cell, Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "random encoder": _random,
    "untrained scattering": lambda _, *parts: _passed(Scattering(parts[0].shape[1:]), *parts),
    "untrained features": lambda cell, *_: _under(cell, torch.eye(512)),
    "whitened by synthetic": lambda cell, *_: _public(cell),
    "ZCA": lambda cell, *_: _zca(cell),
}


def measure(cell: Cell) -> dict[str, object]:
    """The row of one cell."""
    if cell.encoder in MAKES:
        measured(cell.data, cell.seed), prior(cell.data)
    began = time.process_time()
    bank, test = embedded(cell)
    seconds, drawn = time.process_time() - began, split(cell.data, cell.seed)
    y, classes = drawn.train.y[:BANK], drawn.train.classes
    return {
        **vars(cell),
        **judged(bank, y, test, drawn.test.y, classes=classes, seed=cell.seed, epochs=20),
        "head_seconds": round(seconds, 1),
        "sum_seconds": _summed(cell),
    }


def _summed(cell: Cell) -> object:
    made = cell.encoder in MAKES
    return round(measured(cell.data, cell.seed).seconds, 1) if made else ""


def run(seeds: int, only: Sequence[str] | None = None) -> Iterator[dict[str, object]]:
    """Measure the cells that have no row yet, in order; of the encoders named, if any is."""
    wanted = (cell for cell in cells(seeds) if only is None or cell.encoder in only)
    return measure_missing(CSV, Cell, wanted, measure, ["dp-accounting", "opacus"])


def sent() -> Iterator[dict[str, object]]:
    """What a client sends in each kind of run that has a row, where that is not written yet."""
    where, names = provenance(), ("data", "encoder", "epsilon")
    done = {tuple(row[name] for name in names) for row in read_rows(BYTES_CSV)}
    for row in read_rows(CSV):
        key = tuple(row[name] for name in names)
        summed = row["encoder"] in MAKES and row["placed"] == "sum"
        if key not in done and (summed or row["encoder"] in RUNS):
            done.add(key)
            drawn = split(row["data"], 0)
            up = bytes_up(row["encoder"], float(row["epsilon"]), drawn)
            made = {**dict(zip(names, key, strict=True)), "bytes_up": up}
            append_row(BYTES_CSV, made, where)
            yield made


def main() -> None:
    """Command line."""
    parser = command_line(__doc__, "run", "bytes", "page", seeds=5)
    parser.add_argument("--encoder", action="append", choices=ENCODERS, help="only these")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    made = {"run": run(arguments.seeds, arguments.encoder), "bytes": sent()}.get(arguments.what, ())
    for row in made:
        print(*list(row.values())[:11], sep=" | ", flush=True)
    print(write_page())


if __name__ == "__main__":
    main()
