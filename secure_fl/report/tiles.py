"""The first screen: four questions about one run, each answered in a few lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from secure_fl.federation.run_folder.metrics import Metrics
from secure_fl.federation.run_folder.summary import FinalPools, Privacy
from secure_fl.quantities import duration, size
from secure_fl.report.audited import badge, in_words
from secure_fl.report.findings import (
    by_epsilon,
    closed_pools,
    has_minimum,
    is_plain,
    largest,
    protection,
)
from secure_fl.report.names import brief
from secure_fl.report.runs import Run
from secure_fl.report.tables import Mark, epsilon, share, some, spans

LEFT_OUT = (
    "not in this record: the run left out what only its experimenter knows "
    "(evaluate.enabled = false)"
)
_NO_GLOBAL = "no run with one pool to compare with: one more run, with pools.count = 1, gives it"
_MOST_POOLS = 6


@dataclass(frozen=True)
class Line:
    """One line of a tile; `pool` is whose colour stands before it."""

    text: str
    mark: Mark = ""
    pool: int | None = None


@dataclass(frozen=True)
class Tile:
    """One question and its answer.

    Attributes:
        question: what is asked.
        answer: in a word or a number.
        mark: `bad` for what is not protected, `quiet` for what is not known.
        lines: the rest.
        more: the part of the run's section that has all of it.
    """

    question: str
    answer: str
    mark: Mark
    lines: tuple[Line, ...]
    more: str


def subject(runs: Sequence[Run]) -> Run:
    """The run that the first screen is about: the first with several pools, or the first."""
    return next((run for run in runs if run.pool_count > 1), runs[0])


def tiles(run: Run, runs: Sequence[Run]) -> tuple[Tile, ...]:
    """The four tiles of a run, among the runs on the page."""
    return (_how_good(run, runs), _how_private(run), _who_is_where(run), _what_it_cost(run))


def global_model(run: Run, runs: Sequence[Run]) -> Run | None:
    """A measured run with one pool, on the same data, clients and seed; of several, one of the
    same privacy.
    """
    same = [other for other in _single(run, runs) if other.setting == run.setting]
    same = [other for other in same if other.pools and other.pools.accuracy is not None]
    alike = [other for other in same if other.config.privacy.unit == run.config.privacy.unit]
    return next(iter([*alike, *same]), None)


def _single(run: Run, runs: Sequence[Run]) -> list[Run]:
    """The other runs with one pool."""
    return [other for other in runs if other is not run and other.pool_count == 1]


def _tests(run: Run) -> list[tuple[int, int]]:
    """How many test examples each client has."""
    members = () if run.partition is None else run.partition.clients
    return [(member.client, member.test) for member in members]


def _how_good(run: Run, runs: Sequence[Run]) -> Tile:
    question, pools = "How good, against one global model?", run.pools
    if pools is None and not run.pool_count:
        alone = Line("this run trains an encoder only (pools.enabled = false)")
        more = "encoder" if run.summary.representation else "pools"
        return Tile(question, "no pools", "quiet", (*_encoder(run), alone), more)
    if pools is None:
        return Tile(question, "not measured", "quiet", (Line(LEFT_OUT),), "pools")
    if pools.accuracy is None:
        loss = pools.test_loss
        answer = "no accuracy" if loss is None else f"test loss {loss:.3f}"
        unknown = Line("pools were trained without labels: accuracies are not known")
        return Tile(question, answer, "quiet", (unknown,), "pools")
    lines = (*_accuracies(run, pools), *_against_global(run, runs, pools))
    return Tile(question, share(pools.accuracy), "", lines, "pools")


def _accuracies(run: Run, pools: FinalPools) -> list[Line]:
    """How clients differ, who is served worst, and what stands beside the accuracy."""
    worst = [
        brief(run.client(int(client)))
        for client, value in pools.accuracies.items()
        if value == pools.accuracy_min
    ]
    noun = "" if run.client_names else "client " if len(worst) == 1 else "clients "
    between = f"± {share(pools.accuracy_std)} between them"
    lines = [
        Line(f"accuracy, mean over {run.clients} clients, {between}"),
        Line(f"the worst served: {share(pools.accuracy_min)}, {noun}{some(worst, 3)}"),
    ]
    beside = {
        "balanced accuracy": pools.balanced_accuracy,
        "who always says the most frequent class": pools.majority,
    }
    told = {name: value for name, value in beside.items() if value is not None}
    return [*lines, *(Line(f"{name}: {share(value)}") for name, value in told.items())]


def _encoder(run: Run) -> list[Line]:
    measured = run.summary.representation or Metrics()
    initial, pretrained = measured.initial or {}, measured.pretrained or {}
    return [
        Line(
            f"{said}: {initial[name]:.3f} with a random encoder, {pretrained[name]:.3f} pre-trained"
        )
        for name, said in (("linear_probe", "linear probe"), ("knn", "kNN"))
        if name in pretrained
    ]


def _against_global(run: Run, runs: Sequence[Run], pools: FinalPools) -> list[Line]:
    if run.pool_count == 1:
        return [Line("this is the global model: one pool for all clients")]
    other = global_model(run, runs)
    if other is None:
        others = [other.name for other in _single(run, runs)]
        unlike = (
            f"no run to compare with: {some(others, 2)} has one pool, but other "
            "data, clients or seed, or was not measured"
        )
        return [Line(unlike if others else _NO_GLOBAL, "quiet")]
    base = other.pools or pools
    gain = (pools.accuracy or 0.0) - (base.accuracy or 0.0)
    worst = (pools.accuracy_min or 0.0) - (base.accuracy_min or 0.0)
    found = f"{share(base.accuracy)}, so {gain:+.3f} with pools; {worst:+.3f} for the worst client"
    lines = [Line(f"one global model ({other.name}): {found}")]
    if other.config.privacy.unit != run.config.privacy.unit:
        lines.append(Line("the two differ in differential privacy too", "quiet"))
    if _tests(other) != _tests(run):
        lines.append(Line("clients were tested on other examples there", "quiet"))
    return lines


def _how_private(run: Run) -> Tile:
    question, said = "How private, against whom?", run.summary.charged
    sums = Line(protection(run), "bad" if is_plain(run) else "")
    open_ends = len(run.summary.unprotected)
    named = f"{open_ends} {'thing' if open_ends == 1 else 'things'} not protected, named below"
    audit = badge(run)
    rest = Line(named, "bad" if open_ends else "quiet"), Line(audit.text, audit.mark)
    if not isinstance(said, Privacy):
        unbounded = "no differential privacy: what models and sums show of an example has no bound"
        lines = [Line(unbounded, "bad"), sums]
        if said is not None:
            one = f"ε = {epsilon(said.epsilon)} for one {said.unit}, and they alone"
            lines.append(Line(f"sketches that start the pools: {one}"))
        return Tile(question, "no ε", "bad", (*lines, *rest), "privacy")
    worst = largest(said)
    answer = "no bound" if worst is None else f"ε ≤ {epsilon(worst)}"
    lines = [*_claims(said), *_meant(said, worst), sums, *rest]
    return Tile(question, answer, "bad" if worst is None else "", tuple(lines), "privacy")


def _meant(said: Privacy, worst: float | None) -> list[Line]:
    """What the largest ε leaves to whoever guesses."""
    return [] if worst is None else [Line(in_words(said.unit, worst, said.delta))]


def _claims(said: Privacy) -> list[Line]:
    """The budget, and ε against each adversary."""
    unit, budget = said.unit, f"budget {said.budget:g}"
    lines = [Line(f"for one {unit} at δ = {said.delta:g}, over the whole run; {budget}")]
    for other, value, who in by_epsilon(said.claims):
        against = "; ".join(who) if other == unit else f"{len(who)} of the same"
        of = "" if other == unit else f" for one {other}"
        mark: Mark = "bad" if value is None else ""
        lines.append(Line(f"{epsilon(value)}{of} against {against}", mark))
    return lines


def _who_is_where(run: Run) -> Tile:
    question, pools = "Who is in which pool?", run.pools
    least = run.config.security.min_pool_clients
    if not run.pool_count:
        alone = Line("this run trains an encoder only")
        return Tile(question, "no pools", "quiet", (alone,), "pools")
    rule = f"a pool with fewer than {least} clients in a round is not opened"
    small = [Line(rule, "quiet")] if has_minimum(run) else []
    if pools is None:
        answer = "1 pool" if run.pool_count == 1 else f"{run.pool_count} pools"
        lines = (Line(f"who uses which is {LEFT_OUT}"), *small)
        return Tile(question, answer, "quiet", lines, "clients")
    members = members_of(pools)
    lines = (*_occupied(run, members), *_unused(run, members), *small)
    return Tile(question, f"{pools.active} of {len(members)} in use", "", lines, "clients")


def _occupied(run: Run, members: Sequence[Sequence[int]]) -> list[Line]:
    """Who is in each pool that somebody uses, of the first few."""
    lines = []
    for pool, ids in list(enumerate(members))[:_MOST_POOLS]:
        who = some([brief(run.client(client)) for client in ids], 4)
        noun = "client" if len(ids) == 1 else "clients"
        if ids:
            lines.append(Line(f"pool {pool}: {len(ids)} {noun} ({who})", pool=pool))
    return lines


def _unused(run: Run, members: Sequence[Sequence[int]]) -> list[Line]:
    """Pools without a line of their own, without a client, and those that stayed closed."""
    lines = []
    if len(members) > _MOST_POOLS:
        lines.append(Line(f"and {len(members) - _MOST_POOLS} more pools below"))
    if empty := [str(pool) for pool, ids in enumerate(members) if not ids]:
        noun = "pool" if len(empty) == 1 else "pools"
        lines.append(Line(f"nobody in {noun} {some(empty)}", "bad"))
    for pool, rounds in closed_pools(run).rounds.items():
        lines.append(Line(f"pool {pool} not opened in {spans(rounds)}: too few clients", "bad"))
    return lines


def members_of(pools: FinalPools) -> list[list[int]]:
    """Clients of each pool at the end of a run."""
    found: list[list[int]] = [[] for _ in pools.counts]
    for client, pool in pools.choices.items():
        found[pool].append(int(client))
    return found


def _what_it_cost(run: Run) -> Tile:
    costs = run.summary.costs
    seconds, down, up = totals(run)
    rounds = ", ".join(
        f"{costs[name].rounds} of {said}"
        for name, said in (("pretrain", "pre-training"), ("cluster", "clustering"))
        if name in costs
    )
    lines = [
        Line(f"{size(down)} to the clients, {size(up)} to the server"),
        Line(f"a client: {size(down / run.clients)} in, {size(up / run.clients)} out"),
    ]
    lines += [Line(f"rounds: {rounds}")] if rounds else []
    sums = [cost.sum_seconds for cost in costs.values() if cost.sum_seconds is not None]
    if seconds is not None and len(sums) == len(costs):
        within = f"{duration(sum(sums))} of it the secure sum"
        lines.append(Line(f"all parties in one process; {within}"))
    parameters = run.summary.encoder_parameters
    lines += [] if parameters is None else [Line(f"{parameters:,} parameters in the encoder")]
    answer = size(down + up) if seconds is None else duration(seconds)
    return Tile("What did it cost?", answer, "", tuple(lines), "costs")


def totals(run: Run) -> tuple[float | None, int, int]:
    """Seconds, where they are recorded, bytes to the clients and to the server."""
    costs = run.summary.costs.values()
    seconds = [cost.seconds for cost in costs if cost.seconds is not None]
    return (
        sum(seconds) if len(seconds) == len(costs) else None,
        sum(cost.bytes_down for cost in costs),
        sum(cost.bytes_up for cost in costs),
    )
