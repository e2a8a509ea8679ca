"""The sum of one round: client by client, in the open or by the secure sum's protocol, all of whose
parties are simulated here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from secure_fl.config import SecurityConfig
from secure_fl.config.security import SumRules
from secure_fl.crypto.envelope import Phase
from secure_fl.errors import SecureSumError
from secure_fl.federation.asks import payload_bytes
from secure_fl.secure_sum.blocks import BlockShape, BlockVector
from secure_fl.secure_sum.embedded import EmbeddedFederation
from secure_fl.secure_sum.embedded_round import EmbeddedRound, Outcome
from secure_fl.secure_sum.grid import Blocks
from secure_fl.secure_sum.messages import RoundRefusedError
from secure_fl.secure_sum.robust import draw_groups

if TYPE_CHECKING:
    from secure_fl.federation.program import SumForm


@dataclass(frozen=True)
class Cost:
    """What a sum has taken so far, also one that could not be opened.

    Attributes:
        bytes_down, bytes_up: of the protocol's messages, over all parties; 0 down in the open,
            where requests are counted as they are.
        seconds: over all phases and parties: what one process spends on what many machines would do
            side by side.
        refused: messages that were turned away, as `sender phase: reason`; sender and phase are
            what the message claimed. The first of them, then how many more there were.
    """

    bytes_down: int = 0
    bytes_up: int = 0
    seconds: float = 0.0
    refused: tuple[str, ...] = ()

    def __add__(self, other: Cost) -> Cost:
        down, up = self.bytes_down + other.bytes_down, self.bytes_up + other.bytes_up
        return Cost(down, up, self.seconds + other.seconds, self.refused + other.refused)


@dataclass(frozen=True)
class Summed:
    """What was opened.

    Attributes:
        total: summed blocks; a pool that stayed closed is zero.
        survivors: clients in the sum.
        groups: what each group's sum gave that was opened, where clients were summed in groups;
            `total` is the sum of theirs.
        left_out: why each group whose sum was refused is not among them, in one stable word.
    """

    total: Blocks
    survivors: int
    groups: tuple[Summed, ...] = ()
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Opening:
    """When a sum may be opened.

    There must be `fewest` clients in it, beside what `security` asks for, and `minimum` in a pool
    whose count goes up by `count_unit` a member. An opened field lies within `bound` for each
    client in it, in the head within `head_bound`, and `margin` for their noise; a sum beyond that
    is refused. With a `group_size`, groups of so many clients or more are drawn by `group_seed` and
    summed apart, and this holds for each.
    """

    bound: int
    head_bound: int = 1
    margin: int = 0
    fewest: int = 2
    minimum: int = 1
    count_unit: int = 1
    group_size: int | None = None
    group_seed: bytes = b""


class OpenSum:
    """`plain`: a running sum that the server reads, and refuses nothing of."""

    def __init__(self) -> None:
        self._total: Blocks | None = None
        self._count, self._bytes = 0, 0

    def add(self, client: int, blocks: Blocks) -> None:
        """Add one client's vector."""
        self._total = blocks if self._total is None else self._total + blocks
        self._count += 1
        self._bytes += payload_bytes(blocks)

    def open(self) -> Summed:
        """The sum so far."""
        assert self._total is not None
        return Summed(self._total, self._count)

    @property
    def cost(self) -> Cost:
        """So far."""
        return Cost(bytes_up=self._bytes)


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
        pools = [row.numpy() for row in blocks.pools]
        shared = blocks.shared.numpy() if len(blocks.shared) else None
        self._round.add(
            self._round.protect(
                self._names[client], BlockVector(blocks.head.numpy(), pools, shared)
            )
        )

    def open(self) -> Summed:
        """Run the round to its end."""
        outcome = self._round.open()
        return Summed(_blocks(outcome, self._round.plan.shape), len(outcome.survivors))

    @property
    def closed(self) -> bool:
        """Whether no client has sent what opens a pool, or counts that noise hides."""
        return self._round.closed

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

    def __init__(self, parts: Mapping[tuple[int, ...], OpenSum | ProtectedSum]) -> None:
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
        total = groups[0].total
        for group in groups[1:]:
            total = total + group.total
        return Summed(total, sum(group.survivors for group in groups), tuple(groups), left_out)

    @property
    def cost(self) -> Cost:
        """Of all groups so far."""
        return sum((part.cost for part in self._parts), Cost())


RunningSum = OpenSum | ProtectedSum | GroupedSum


class Summing:
    """The run's sums. Under protection it holds all parties' identities and keys: in this process,
    which the record says in red.
    """

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
        return GroupedSum({group: self._begin(form, group, without, question) for group in groups})

    def blamed(self, error: RoundRefusedError) -> frozenset[int]:
        """The clients whose messages made a round fail, as far as they can be told."""
        return frozenset(client for client, name in enumerate(self._names) if name in error.blamed)

    def suffices(self, cohort: tuple[int, ...], opening: Opening, without: frozenset[int]) -> bool:
        """Whether a cohort of one sum has enough clients left without some of them."""
        fewest = max(opening.fewest, self._rules(cohort).survivors)
        return opening.group_size is None and len(set(cohort) - without) >= fewest

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
    """The shape of a client's integers."""
    pools, width = blocks.pools.shape
    return BlockShape(pools, width, len(blocks.shared), len(blocks.head), counted=pools > 1)


def _blocks(outcome: Outcome, shape: BlockShape) -> Blocks:
    opened = outcome.opened
    pools = torch.zeros(shape.pools, shape.width, dtype=torch.int64)
    for pool, values in opened.pools.items():
        pools[pool] = torch.from_numpy(values)
    shared: Tensor = (
        torch.zeros(0, dtype=torch.int64)
        if opened.shared is None
        else torch.from_numpy(opened.shared)
    )
    return Blocks(torch.from_numpy(opened.head), shared, pools)
