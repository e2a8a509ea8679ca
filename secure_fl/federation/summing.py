"""The sum of one round: client by client, in the open or by the secure sum's protocol, all of whose parties are simulated here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from secure_fl.config import SecurityConfig
from secure_fl.errors import SecureSumError
from secure_fl.federation.messages import payload_bytes
from secure_fl.privacy.client_level import Blocks
from secure_fl.secure_sum.envelope import Phase
from secure_fl.secure_sum.robust import draw_groups
from secure_fl.secure_sum.round_plan import BlockShape, BlockVector
from secure_fl.secure_sum.secure_sum import EmbeddedFederation, EmbeddedRound, Outcome


@dataclass(frozen=True)
class Summed:
    """What was opened.

    Attributes:
        total: summed blocks; a pool that stayed closed is zero.
        survivors: clients in the sum.
        bytes_down, bytes_up: of the protocol's messages, over all parties; 0 in the open, where replies are counted as they are.
        seconds: per phase and party.
        refused: messages that were turned away, as `sender phase: reason`; sender and phase are what the message claimed. The first of them,
            then how many more there were.
        groups: what each group's sum gave that was opened, where clients were summed in groups; `total` is the sum of theirs.
        left_out: why each group whose sum was refused is not among them, in one stable word.
    """

    total: Blocks
    survivors: int
    bytes_down: int = 0
    bytes_up: int = 0
    seconds: dict[str, dict[str, float]] = field(default_factory=dict)
    refused: tuple[str, ...] = ()
    groups: tuple[Summed, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def total_seconds(self) -> float:
        """Of all phases and parties: what one process spends on what many machines would do side by side."""
        return sum(sum(parties.values()) for parties in self.seconds.values())


@dataclass(frozen=True)
class Opening:
    """When a sum may be opened.

    There must be `fewest` clients in it, beside what `security` asks for, and `minimum` in a pool whose count goes up by `count_unit` a member.
    An opened field lies within `bound` for each client in it, in the head within `head_bound`, and `margin` for their noise; a sum beyond that
    is refused. With a `group_size`, groups of so many clients or more are drawn by `group_seed` and summed apart, and this holds for each.
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

    refused: tuple[str, ...] = ()

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
        return Summed(self._total, self._count, bytes_up=self._bytes)


class ProtectedSum:
    """One round of the protocol; vectors are protected and added as they come."""

    def __init__(self, running: EmbeddedRound, names: list[str]) -> None:
        self._round, self._names = running, names

    def add(self, client: int, blocks: Blocks) -> None:
        """Protect one client's vector and give the upload to the server; nothing where the round goes on without this client."""
        if self._round.silent(self._names[client], Phase.UPLOAD):
            return
        pools = [row.numpy() for row in blocks.pools]
        shared = blocks.shared.numpy() if len(blocks.shared) else None
        self._round.add(self._round.protect(self._names[client], BlockVector(blocks.head.numpy(), pools, shared)))

    def open(self) -> Summed:
        """Run the round to its end."""
        outcome = self._round.open()
        total, seconds = _blocks(outcome, self._round.plan.shape), {phase: dict(parties) for phase, parties in outcome.seconds.items()}
        return Summed(total, len(outcome.survivors), *_bytes(outcome), seconds, self.refused)

    @property
    def refused(self) -> tuple[str, ...]:
        """`Summed.refused` so far; there also where the sum cannot be opened."""
        kept = self._round.refusals
        more = self._round.server.refused.total() - len(self._round.server.refusals)
        listed = tuple(f"{refusal.sender} {refusal.phase}: {refusal.reason}" for refusal in kept)
        return (*listed, f"and {more} more") if more else listed


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

        A group whose sum is refused is left out: what one of its clients sends, or holds back, must not end the round for the others.

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
        total, seconds = groups[0].total, dict[str, dict[str, float]]()
        for group in groups[1:]:
            total = total + group.total
        for group in groups:
            for phase, parties in group.seconds.items():
                row = seconds.setdefault(phase, {})
                row |= {party: row.get(party, 0.0) + spent for party, spent in parties.items()}
        down, up = sum(group.bytes_down for group in groups), sum(group.bytes_up for group in groups)
        refused = tuple(each for part in self._parts for each in part.refused)
        return Summed(total, sum(group.survivors for group in groups), down, up, seconds, refused, tuple(groups), left_out)


RunningSum = OpenSum | ProtectedSum | GroupedSum


class Summing:
    """The run's sums. Under protection it holds all parties' identities and keys: in this process, which the record says in red."""

    def __init__(self, config: SecurityConfig, clients: int, colluders: int = 1) -> None:
        self._config, self._colluders = config, colluders
        self._parties: EmbeddedFederation | None = None
        if config.protection != "plain":
            self._parties = EmbeddedFederation(
                clients, protection=config.protection, key_holder=config.key_holder, rotation_rounds=config.rotation_rounds
            )
        self._rounds = 0

    def begin(self, first: Blocks, cohort: tuple[int, ...], opening: Opening) -> RunningSum:
        """A new sum over the cohort; `first` shows the shape that every client's blocks have.

        Raises:
            SecureSumError: too few clients for the protocol, or for one group.
        """
        if opening.group_size is None:
            return self._begin(first, cohort, opening)
        names = {str(client): client for client in cohort}
        drawn = draw_groups(list(names), opening.group_size, opening.group_seed)
        groups = [tuple(sorted(names[name] for name in group)) for group in drawn]
        return GroupedSum({group: self._begin(first, group, opening) for group in groups})

    def _begin(self, first: Blocks, cohort: tuple[int, ...], opening: Opening) -> OpenSum | ProtectedSum:
        if self._parties is None:
            return OpenSum()
        names, rules = list(self._parties.clients), self._config.sums(len(cohort), self._colluders)
        head = len(first.head)
        shape = BlockShape(len(first.pools), first.pools.shape[1], len(first.shared), head, counted=len(first.pools) > 1)
        running = self._parties.begin(
            self._rounds,
            shape,
            cohort=[names[client] for client in cohort],
            fewest=max(opening.fewest, rules.survivors),
            minimum=opening.minimum,
            count_unit=opening.count_unit,
            bound=opening.bound,
            head_bound=opening.head_bound,
            margin=opening.margin,
            threshold=rules.threshold,
            degree=rules.degree,
            colluders=rules.colluders,
        )
        self._rounds += 1
        return ProtectedSum(running, names)


def _blocks(outcome: Outcome, shape: BlockShape) -> Blocks:
    opened = outcome.opened
    pools = torch.zeros(shape.pools, shape.width, dtype=torch.int64)
    for pool, values in opened.pools.items():
        pools[pool] = torch.from_numpy(values)
    shared: Tensor = torch.zeros(0, dtype=torch.int64) if opened.shared is None else torch.from_numpy(opened.shared)
    return Blocks(torch.from_numpy(opened.head), shared, pools)


def _bytes(outcome: Outcome) -> tuple[int, int]:
    return sum(outcome.down.values()), sum(outcome.up.values())
