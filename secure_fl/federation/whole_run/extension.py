"""A run goes on for more rounds than it was made for: nothing but lengths changes, the ledger goes
on, and no budget grows.

Noise stays what it was calibrated to when the run began, so more rounds cost more, and the gate
refuses the round that would pass the budget.

**Guarantee.** The ledger, its marks and the run's name are not touched: what was charged stays
charged, and a round that was answered is not asked again, since a phase that had ended goes on
after its last round.

**Assumes.** As the gate: ledger, records and state directory are not all put back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from secure_fl.config import FederationConfig
from secure_fl.data.partitions import ClientData
from secure_fl.errors import RunFolderError
from secure_fl.federation.factory.example_plan import chooses_by_loss
from secure_fl.federation.factory.factory import Factory
from secure_fl.federation.releases.budget import BudgetGate
from secure_fl.federation.run_folder.folder import RunFolder
from secure_fl.federation.run_folder.metrics import Metrics
from secure_fl.federation.state import Place, State
from secure_fl.federation.whole_run.rounds_to_come import LENGTHS, RoundsToCome, length_of
from secure_fl.files import listed
from secure_fl.privacy.events import Event

_BEFORE_POOLS = ("pretrain", "measure")
CENTRAL_ROUNDS = "central.rounds"
"""Fact of the state: rounds of pre-training at a server, which come before the program's steps."""


def go_on(
    folder: RunFolder,
    factory: Factory,
    gate: BudgetGate,
    clients: Sequence[ClientData],
    digest_of: Callable[[FederationConfig], str],
    names: Sequence[str],
) -> tuple[State | None, Factory]:
    """The state that a run goes on from, if there is one, and its factory. Where its lengths are
    others than it was made with, the folder says so from here on. Raises RunFolderError: something
    else was changed, or the lengths cannot be; PrivacyError: the budget does not hold so many.

    Args:
        factory: of the configuration as it is asked for now.
        digest_of: a configuration -> what the first lines of its file must say.
        names: of the program's steps, in order.
    """
    config, begun = factory.facts.config, folder.begun_as()
    changed = begun[-1][0] != config
    if changed:
        check_lengths_only(begun[-1][0], config)
    if any(digest_of(earlier) != digest for earlier, digest in begun):
        raise folder.of_another_run()
    digests = [digest for _, digest in begun]
    state = folder.restore(*digests)
    if not changed and len(begun) == 1:
        return state, factory
    factory = replace(factory, facts=replace(factory.facts, begun_as=begun[0][0]))
    lines, begins = folder.read_metrics(), state or State(Place(0, 0))
    back, kept = rewound(begins, names, [line.phase for line in lines], config)
    if changed:
        _check_coming(folder, factory, gate, clients, back, names)
        folder.change(config, digest_of(config))
        digests.append(digest_of(config))
    if back is not begins:
        folder.rewind(back, digests[-1], kept)
        state = folder.restore(*digests)
    return state, factory


def _check_coming(
    folder: RunFolder,
    factory: Factory,
    gate: BudgetGate,
    clients: Sequence[ClientData],
    state: State,
    names: Sequence[str],
) -> None:
    """Refuse more rounds than the budget holds, before the folder says that they will come."""
    phase, number = _under_way(state, names, factory.facts.config)
    if phase not in LENGTHS:
        return
    known = bool(last_choices(line.metrics for line in folder.read_metrics()))
    sizes = {client.id: (len(client.train), client.train.labels) for client in clients}
    again = _released_again(folder, factory, state, names, known)
    RoundsToCome(factory, gate, phase, number, sizes, again, known).check_budget()


def _under_way(state: State, names: Sequence[str], config: FederationConfig) -> tuple[str, int]:
    """The phase whose rounds come next, and how many of them are done."""
    if config.pretrain.mode == "centralized" and "encoder" not in state.tensors:
        return "pretrain", int(state.facts.get(CENTRAL_ROUNDS, 0))
    place = state.place
    return (names[place.step], place.round) if place.step < len(names) else ("", 0)


def last_choices(rounds: Iterable[Metrics]) -> Mapping[str, int]:
    """The pool that each client used last, by its number, as far as the metrics of a run's rounds
    tell; empty where they do not.
    """
    found: Mapping[str, int] = {}
    for metrics in rounds:
        found = found if metrics.choices is None else metrics.choices
    return found


def _released_again(
    folder: RunFolder, factory: Factory, state: State, phases: Sequence[str], known: bool
) -> Sequence[Event]:
    """Sketches that clients need and that a finished run has deleted: they are made and
    charged anew.
    """
    sketch, made = factory.sketch.released, "sketch" in phases[: state.place.step]
    needed = needs_sketches(factory.facts.config, state, phases, known)
    if sketch is None or not made or not needed or listed(folder.results):
        return ()
    return sketch.events()


def changed_settings(
    old: FederationConfig, new: FederationConfig
) -> dict[str, tuple[object, object]]:
    """Settings that differ: dotted name -> (old, new)."""
    before, after = _flat(old.model_dump(mode="json")), _flat(new.model_dump(mode="json"))
    names = dict.fromkeys([*before, *after])
    return {
        name: (before.get(name), after.get(name))
        for name in names
        if before.get(name) != after.get(name)
    }


def check_lengths_only(old: FederationConfig, new: FederationConfig) -> None:
    """Refuse a run that would go on with anything changed but its lengths. Raises RunFolderError:
    it names every other setting that differs, or a schedule that follows the length.
    """
    changed = changed_settings(old, new)
    others = [name for name in changed if name not in LENGTHS.values()]
    if others:
        raise RunFolderError(
            f"was made with another configuration, which differs in {', '.join(others)}; only "
            f"{' and '.join(LENGTHS.values())} may change",
            others[0],
            {name: changed[name][1] for name in others},
            "leave the rest as the run's config.toml has it, or start a new run",
        )
    for table, name in (("pretrain", "pretrain.rounds"), ("pools", "pools.rounds")):
        if name in changed and getattr(new, table).schedule == "cosine":
            problem = (
                f'{table}.schedule = "cosine" spread the learning rate over {changed[name][0]} '
                "rounds, and it has come to its end"
            )
            remedy = "start a new run, or choose a constant schedule there"
            raise RunFolderError(problem, name, changed[name][1], remedy)


def rewound(
    state: State, names: Sequence[str], lines: Sequence[str], config: FederationConfig
) -> tuple[State, int]:
    """The state from which a run has all rounds before it that its configuration asks for, and the
    lines of `metrics.jsonl` up to there. Raises RunFolderError: fewer rounds are asked for than
    there have been, or more of a phase after which others have begun.

    Args:
        names: of the program's steps in order.
        lines: the phase of each line that belongs to the state.
    """
    done, central = Counter(lines), config.pretrain.mode == "centralized"
    for name, field in LENGTHS.items():
        at_a_server = central and name == "pretrain"
        if name not in names and not at_a_server:
            continue
        asked, step = length_of(config, name), 0 if at_a_server else names.index(name)
        if asked < done[name]:
            remedy = f"at least {done[name]}, the rounds that there have been"
            raise RunFolderError(f"{done[name]} rounds are done", field, asked, remedy)
        ended = "encoder" in state.tensors if at_a_server else state.place.step > step
        if not ended or asked == done[name]:
            continue
        _check_nothing_begun(name, field, asked, lines)
        kept = max(number for number, line in enumerate(lines, 1) if line == name)
        return _back(state, name, 0 if at_a_server else done[name], step), kept
    return state, len(lines)


def _check_nothing_begun(name: str, field: str, asked: int, lines: Sequence[str]) -> None:
    """Refuse more rounds of pre-training where later steps have begun from its encoder."""
    done = lines.count(name)
    later = [each for each in lines if each not in (*_BEFORE_POOLS, "evaluate")]
    if name == "pretrain" and later:
        remedy = (
            f"leave it at {done}; a new run with more rounds can begin its "
            "pools from a better encoder"
        )
        raise RunFolderError(f"{later[0]} has begun from this encoder", field, asked, remedy)


def _back(state: State, name: str, rounds: int, step: int) -> State:
    """The state at the end of a step's last round; of one before the pools, without what they were
    to begin with.
    """
    place = Place(step, rounds)
    if name != "pretrain":
        return state.at(place)
    facts = {
        fact: state.facts[fact]
        for fact in ("pretrain.bound", "pretrain.difference", CENTRAL_ROUNDS)
        if fact in state.facts
    }
    return State(place, {"model": state.tensors["model"]}, facts)


def needs_sketches(
    config: FederationConfig, state: State, phases: Sequence[str], known: bool
) -> bool:
    """Whether clients will still ask which group their sketch belongs to: during the warm-up, or
    where they choose by it and have forgotten.

    Args:
        known: whether the pools that they used are known: then they keep to these.
    """
    by_sketch = config.privacy.unit == "example" and not chooses_by_loss(config)
    step = phases.index("cluster") if "cluster" in phases else 0
    warm = state.place >= Place(step, config.pools.warmup_rounds)
    return not warm or (not known and (by_sketch or config.data.labelled_clients < 1))


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in table.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
