"""A run goes on for more rounds than it was made for: nothing but lengths changes, the ledger goes on, and no budget grows.

Noise stays what it was calibrated to when the run began, so more rounds cost more, and the gate refuses the round that would pass the budget.

**Guarantee.** The ledger, its marks and the run's name are not touched: what was charged stays charged, and a round that was answered is not asked
again, since a phase that had ended goes on after its last round.
**Assumes.** As the gate: ledger, records and state directory are not all put back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from secure_fl.config import FederationConfig
from secure_fl.data.partitions import ClientData
from secure_fl.errors import PrivacyError, RunFolderError
from secure_fl.federation.blueprint import Blueprint
from secure_fl.federation.budget import BudgetGate
from secure_fl.federation.cluster import Cluster
from secure_fl.federation.example_plan import choice_of, chooses_by_loss, chooses_in, plan_examples
from secure_fl.federation.folder import RunFolder
from secure_fl.federation.phase import Metrics, Phase, ServerState
from secure_fl.federation.pretrain import Pretrain
from secure_fl.files import listed
from secure_fl.privacy.accounting import Charge, within
from secure_fl.privacy.events import Event
from secure_fl.privacy.ledger import Charges

LENGTHS = {"pretrain": "pretrain.rounds", "cluster": "pools.rounds"}
"""Settings that may differ where a run goes on, by the phase whose rounds they count."""
_BEFORE_POOLS = ("pretrain", "measure", "hand_out")


def go_on(
    folder: RunFolder,
    blueprint: Blueprint,
    gate: BudgetGate,
    clients: Sequence[ClientData],
    digest_of: Callable[[FederationConfig], str],
    phases_of: Callable[[ServerState], Iterable[Phase]],
) -> tuple[ServerState, Blueprint]:
    """The state that a run goes on from, and its blueprint; where its lengths are others than it was made with, the folder says so from here on.

    Args:
        blueprint: of the configuration as it is asked for now.
        digest_of: a configuration -> what the first lines of its file must say.
        phases_of: the run's phases, in order.

    Raises:
        RunFolderError: something else was changed, or the lengths cannot be.
        PrivacyError: the budget does not hold so many rounds.
    """
    config, begun = blueprint.config, folder.begun_as()
    changed = begun[-1][0] != config
    if changed:
        check_lengths_only(begun[-1][0], config)
    if any(digest_of(earlier) != digest for earlier, digest in begun):
        raise folder.of_another_run()
    digests = [digest for _, digest in begun]
    state = folder.restore(*digests)
    if not changed and len(begun) == 1:
        return state, blueprint
    blueprint = replace(blueprint, begun_as=begun[0][0])
    names = [phase.name for phase in phases_of(replace(state, tensors=dict(state.tensors), facts=dict(state.facts)))]
    lines = folder.read_metrics()
    back, kept = rewound(state, names, [line["phase"] for line in lines], config)
    if changed:
        if names[back.phase :] and names[back.phase] in LENGTHS:
            known = bool(last_choices(line.get("metrics", {}) for line in lines))
            sizes = {client.id: (len(client.train), client.train.labels) for client in clients}
            again = _released_again(folder, blueprint, back, names, known)
            check_budget(gate, blueprint, back, sizes, again, names[back.phase], chosen=known)
        folder.change(config, digest_of(config))
        digests.append(digest_of(config))
    if back.phase != state.phase:
        folder.rewind(back, digests[-1], kept)
        state = folder.restore(*digests)
    return state, blueprint


def last_choices(rounds: Iterable[Metrics]) -> Mapping[str, int]:
    """The pool that each client used last, by its number, as far as the metrics of a run's rounds tell; empty where they do not."""
    found: Mapping[str, int] = {}
    for metrics in rounds:
        found = metrics.get("choices", found)
    return found


def _released_again(folder: RunFolder, blueprint: Blueprint, state: ServerState, phases: Sequence[str], known: bool) -> Sequence[Event]:
    """Sketches that clients need and that a finished run has deleted: they are made and charged anew."""
    sketch, needed = blueprint.private_sketch, needs_sketches(blueprint.config, state, phases, known)
    if sketch is None or "sketch" not in phases[: state.phase] or not needed or listed(folder.results):
        return ()
    return sketch.events()


def changed_settings(old: FederationConfig, new: FederationConfig) -> dict[str, tuple[object, object]]:
    """Settings that differ: dotted name -> (old, new)."""
    before, after = _flat(old.model_dump(mode="json")), _flat(new.model_dump(mode="json"))
    names = dict.fromkeys([*before, *after])
    return {name: (before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)}


def check_lengths_only(old: FederationConfig, new: FederationConfig) -> None:
    """Refuse a run that would go on with anything changed but its lengths.

    Raises:
        RunFolderError: it names every other setting that differs, or a schedule that follows the length.
    """
    changed = changed_settings(old, new)
    others = [name for name in changed if name not in LENGTHS.values()]
    if others:
        told = {name: changed[name][1] for name in others}
        problem = f"was made with another configuration, which differs in {', '.join(others)}; only {' and '.join(LENGTHS.values())} may change"
        raise RunFolderError(problem, field=others[0], value=told, remedy="leave the rest as the run's config.toml has it, or start a new run")
    for table, name in (("pretrain", "pretrain.rounds"), ("pools", "pools.rounds")):
        if name in changed and getattr(new, table).schedule == "cosine":
            problem = f'{table}.schedule = "cosine" spread the learning rate over {changed[name][0]} rounds, and it has come to its end'
            raise RunFolderError(problem, field=name, value=changed[name][1], remedy="start a new run, or choose a constant schedule there")


def rewound(state: ServerState, phases: Sequence[str], lines: Sequence[str], config: FederationConfig) -> tuple[ServerState, int]:
    """The state from which a run has all rounds before it that its configuration asks for, and the lines of `metrics.jsonl` up to there.

    Args:
        phases: names of the run's phases in order.
        lines: the phase of each line that belongs to the state.

    Raises:
        RunFolderError: fewer rounds are asked for than there have been, or more of a phase after which others have begun.
    """
    done = Counter(lines)
    for name, field in LENGTHS.items():
        if name not in phases:
            continue
        asked, place = _length(config, name), phases.index(name)
        if asked < done[name]:
            remedy = f"at least {done[name]}, the rounds that there have been"
            raise RunFolderError(f"{done[name]} rounds are done", field=field, value=asked, remedy=remedy)
        if state.phase <= place or asked == done[name]:
            continue
        later = [each for each in phases[place + 1 :] if done[each] and each not in (*_BEFORE_POOLS, "evaluate")]
        if name == "pretrain" and later:
            remedy = f"leave it at {done[name]}; a new run with more rounds can begin its pools from a better encoder"
            raise RunFolderError(f"{later[0]} has begun from this encoder", field=field, value=asked, remedy=remedy)
        kept = max(number for number, line in enumerate(lines, 1) if line == name)
        return replace(state, phase=place, round=done[name]), kept
    return state, len(lines)


def needs_sketches(config: FederationConfig, state: ServerState, phases: Sequence[str], known: bool) -> bool:
    """Whether clients will still ask which group their sketch belongs to: during the warm-up, or where they choose by it and have forgotten.

    Args:
        known: whether the pools that they used are known: then they keep to these.
    """
    by_sketch = config.privacy.unit == "example" and not chooses_by_loss(config)
    place = phases.index("cluster") if "cluster" in phases else 0
    warm = state.phase > place or (state.phase == place and state.round >= config.pools.warmup_rounds)
    return not warm or (not known and (by_sketch or config.data.labelled_clients < 1))


def check_budget(
    gate: BudgetGate,
    blueprint: Blueprint,
    state: ServerState,
    sizes: Mapping[int, tuple[int, int]],
    again: Sequence[Event],
    phase: str,
    *,
    chosen: bool,
) -> None:
    """Refuse more rounds than the budget holds, before any of them begins.

    Args:
        state: from which the run will go on.
        sizes: examples, and those with labels, of every client.
        again: what has to be released anew before, because what was stored of it is gone.
        phase: that goes on.
        chosen: whether clients know the pools that they chose; otherwise those who choose by loss do so in the first round to come.

    Raises:
        PrivacyError: naming the length, and how many rounds still fit.
    """
    budget, ledger = gate.budget, gate.ledger
    if budget is None or ledger is None:
        return
    asked, calls = _length(blueprint.config, phase), _calls(blueprint, state, phase)
    each = _events_of(blueprint, gate, sizes, phase, None if chosen else state.round)

    def fits(rounds: int) -> bool:
        tried = set[Charges]()
        for client in sizes:
            called = [number for number in range(state.round, rounds) if client in calls[number]]
            coming = [*again, *(event for number in called for event in each(client, number))] if rounds > state.round else []
            for history in ledger.histories(budget.unit, client, budget.adjacency):
                charges = (*history, *(Charge(event, budget.adjacency) for event in coming))
                if charges not in tried and not within(charges, budget.delta, budget.epsilon):
                    return False
                tried.add(charges)
        return True

    if fits(asked):
        return
    low, high = state.round, asked
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    problem = f"the budget ε = {budget.epsilon:g} holds {low - state.round} more rounds, with the noise that the run was made with"
    raise PrivacyError(problem, field=LENGTHS[phase], value=asked, remedy=f"at most {low}, or a new run whose noise is made for more")


def _length(config: FederationConfig, phase: str) -> int:
    return config.pretrain.rounds if phase == "pretrain" else config.pools.rounds


def _calls(blueprint: Blueprint, state: ServerState, phase: str) -> dict[int, tuple[int, ...]]:
    """Who is called in each round to come."""
    kind: Callable[..., Phase] = Pretrain if phase == "pretrain" else Cluster
    settings = blueprint.config.pretrain if phase == "pretrain" else blueprint.config.pools
    rounds = range(state.round, _length(blueprint.config, phase))
    return {number: kind(blueprint, ServerState(0, number), ()).sampled(settings) for number in rounds}


def _events_of(
    blueprint: Blueprint, gate: BudgetGate, sizes: Mapping[int, tuple[int, int]], phase: str, anew: int | None
) -> Callable[[int, int], list[Event]]:
    """(client, round) -> what it will release in that round; in round `anew` also a choice out of turn."""
    if not gate.covers_run:
        return lambda *_: []
    if blueprint.client_plan is not None:
        event = blueprint.client_plan.of(phase).event(1)
        return lambda *_: [event]
    plans = {client: plan_examples(blueprint, *size, gate.already(client)) for client, size in sizes.items()}

    def each(client: int, number: int) -> list[Event]:
        steps = plans[client].pretrain if phase == "pretrain" else plans[client].pools
        made: list[Event] = [] if steps is None else [steps.planned(plans[client].noise)]
        out_of_turn = number == anew and chooses_by_loss(blueprint.config)
        if phase == "cluster" and (chooses_in(blueprint.config, number) or out_of_turn):
            made.append(choice_of(blueprint.config, 1).event(1))
        return made

    return each


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in table.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
