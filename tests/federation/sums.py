"""A round's sum for tests: in the open, or by the secure sum's own parties, also in groups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from bench.secure_sum.embedded import EmbeddedFederation
from bench.secure_sum.embedded_round import EmbeddedRound
from secure_fl.config import SecurityConfig
from secure_fl.config.security import SumRules
from secure_fl.crypto.envelope import Phase
from secure_fl.errors import SecureSumError
from secure_fl.federation.parties.replica import summed, summed_of
from secure_fl.federation.program import SumForm
from secure_fl.federation.summing import Cost, Summed
from secure_fl.secure_sum.blocks import BlockShape
from secure_fl.secure_sum.grid import Blocks
from secure_fl.secure_sum.robust import draw_groups


class OpenSum:
    """`plain`: a running sum that the server reads, and refuses nothing of."""

    def __init__(self) -> None:
        self._total: Blocks | None = None
        self._count = 0

    def add(self, client: int, blocks: Blocks) -> None:
        """Add one client's vector."""
        self._total = blocks if self._total is None else self._total + blocks
        self._count += 1

    def open(self) -> Summed:
        """The sum so far."""
        assert self._total is not None
        return Summed(self._total, self._count)


class ProtectedSum:
    """One round of the protocol; vectors are protected and added as they come."""

    def __init__(self, running: EmbeddedRound, names: list[str]) -> None:
        self._round, self._names = running, names

    def add(self, client: int, blocks: Blocks) -> None:
        """Protect one client's vector and give the upload to the server; nothing where the round
        goes on without this client.
        """
        if self._round.silent(self._names[client], Phase.UPLOAD):
            return
        self._round.add(self._round.protect(self._names[client], blocks.vector))

    def open(self) -> Summed:
        """Run the round to its end."""
        outcome = self._round.open()
        assert outcome.opened.survivors == len(outcome.survivors)
        return summed_of(outcome.opened, self._round.plan.shape)

    @property
    def cost(self) -> Cost:
        """So far; there also where the sum cannot be opened."""
        running, server = self._round, self._round.server
        refused = tuple(
            f"{refusal.sender} {refusal.phase}: {refusal.reason}" for refusal in running.refusals
        )
        more = server.refused.total() - len(server.refusals)
        seconds = sum(sum(parties.values()) for parties in running.seconds.values())
        return Cost(
            sum(running.down.values()),
            sum(running.up.values()),
            seconds,
            (*refused, f"and {more} more") if more else refused,
        )


class GroupedSum:
    """A sum for each of several groups of clients: rounds of the protocol side by side."""

    def __init__(self, parts: Mapping[tuple[int, ...], ProtectedSum]) -> None:
        self._parts = tuple(parts.values())
        self._part_of = {client: part for group, part in parts.items() for client in group}

    def add(self, client: int, blocks: Blocks) -> None:
        """Add one client's vector to its group's sum."""
        self._part_of[client].add(client, blocks)

    def open(self) -> Summed:
        """Open every group's sum.

        A group whose sum is refused is left out: what one of its clients sends, or holds back, must
        not end the round for the others.

        Raises:
            SecureSumError: the sums of all groups are refused.
        """
        groups, failed = list[Summed](), list[SecureSumError]()
        for part in self._parts:
            try:
                groups.append(part.open())
            except SecureSumError as error:
                failed.append(error)
        if not groups:
            raise failed[0]
        left_out = tuple(str(getattr(error, "reason", "error")) for error in failed)
        return summed(groups, left_out)

    @property
    def cost(self) -> Cost:
        """Of all groups so far."""
        costs = [part.cost for part in self._parts]
        return Cost(
            sum(cost.bytes_down for cost in costs),
            sum(cost.bytes_up for cost in costs),
            sum(cost.seconds for cost in costs),
            tuple(word for cost in costs for word in cost.refused),
        )


RunningSum = OpenSum | ProtectedSum | GroupedSum


class Summing:
    """Sums of the secure sum's own parties, without a federation around them."""

    def __init__(self, config: SecurityConfig, clients: int, colluders: int = 1) -> None:
        self._config, self._colluders = config, colluders
        self._parties: EmbeddedFederation | None = None
        if config.protection != "plain":
            self._parties = EmbeddedFederation(
                clients,
                protection=config.protection,
                key_holder=config.key_holder,
                rotation_rounds=config.rotation_rounds,
            )
        self._rounds = 0

    def begin(
        self, form: SumForm, without: frozenset[int] = frozenset(), question: bytes = b""
    ) -> RunningSum:
        """A new sum, set up: keys are agreed on, and nothing depends on what clients will answer.

        Args:
            form: of the round's sum.
            without: of the cohort, clients left out from the start; thresholds are the whole
                cohort's all the same.
            question: names what is answered; clients open no second sum of the answers to it.

        Raises:
            SecureSumError: too few clients for the protocol, or for one group.
        """
        cohort, opening = form.cohort, form.opening
        if opening.group_size is None:
            return self._begin(form, cohort, without, question)
        names = {str(client): client for client in cohort}
        drawn = draw_groups(list(names), opening.group_size, opening.group_seed)
        groups = [tuple(sorted(names[name] for name in group)) for group in drawn]
        parts = {group: self._begin(form, group, without, question) for group in groups}
        return GroupedSum(cast("dict[tuple[int, ...], ProtectedSum]", parts))

    def _rules(self, cohort: tuple[int, ...]) -> SumRules:
        return self._config.sums(len(cohort), self._colluders)

    @property
    def _names(self) -> list[str]:
        return [] if self._parties is None else list(self._parties.clients)

    def _begin(
        self, form: SumForm, cohort: tuple[int, ...], without: frozenset[int], question: bytes
    ) -> OpenSum | ProtectedSum:
        if self._parties is None:
            return OpenSum()
        names, rules, opening = self._names, self._rules(cohort), form.opening
        number, self._rounds = self._rounds, self._rounds + 1
        running = self._parties.begin(
            number,
            form.shape,
            cohort=[names[client] for client in cohort if client not in without],
            fewest=max(opening.fewest, rules.survivors),
            minimum=opening.minimum,
            count_unit=opening.count_unit,
            bound=opening.bound,
            head_bound=opening.head_bound,
            margin=opening.margin,
            threshold=rules.threshold,
            degree=rules.degree,
            colluders=rules.colluders,
            question=question,
        )
        return ProtectedSum(running, names)


def shape_of(blocks: Blocks) -> BlockShape:
    """The shape of a client's integers, read off these."""
    pools, width = blocks.pools.shape
    return BlockShape(pools, width, len(blocks.shared), len(blocks.head), counted=pools > 1)
