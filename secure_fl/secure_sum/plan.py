"""What every party of a round must agree on before it begins: protection, people, block
shape, thresholds.

The plan's digest is part of every header's parameter text, so a message made under another plan is
refused as `wrong-parameters`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

from secure_fl.crypto.envelope import NO_KEY, Expected, Header, Phase
from secure_fl.crypto.roster import Roster
from secure_fl.crypto.shares import check_threshold
from secure_fl.crypto.strict_json import canonical
from secure_fl.errors import SecureSumError
from secure_fl.he.parameters import ParameterSet
from secure_fl.odds import default_threshold, smallest_degree, withstands
from secure_fl.secure_sum.blocks import BlockShape, Integers
from secure_fl.secure_sum.layout import FieldLayout
from secure_fl.secure_sum.protections import KEY_HOLDERS, layout_of, parameters_of

_GUARD = 1
"""Numbers after a block's fields that are 0 in every upload: an opened sum with masks left in it
shows there, but for 1 in 2^40.
"""
LARGEST_CUT = 4095
"""Slots that one ciphertext holds beside the guard."""


@dataclass(frozen=True)
class RoundPlan:
    """Everything public about a round, equal at all parties.

    Args:
        protection: `plain`, `masked` or `bfv+masked`.
        roster: in force.
        round: counted from 0.
        shape: blocks of an upload.
        server: its name on the roster.
        cohort: clients asked to take part; empty for all on the roster.
        key_holder: who can decrypt, `clients` or `authority`; of no concern where nothing
            is encrypted.
        authority: its name on the roster, under `authority`.
        key_fingerprint: 32 bytes of the encryption key in force.
        parameters: of the encryption; None for the default of protection and key holder.
        fewest: n_min, clients without whom no list of keys is accepted and nothing is opened. None
            for t where all mask with all, for ⌊2n/3⌋ + 1 of the cohort in a sparse graph, for 2
            without masks. Never below t. Read it as `survivors_needed`.
        minimum: members without whom a pool is not opened.
        count_unit: what one member adds to its pool's count.
        threshold: t, shares that open a secret; None for ⌊2m/3⌋ + 1 of the m in a neighbourhood of
            this cohort. Read it as `shares_needed`.
        degree: neighbours that a client masks with, None for everybody.
        colluders: clients that a sparse graph must withstand; None for a twentieth of the cohort.
        bound, head_bound: largest magnitude of one client's field outside the head and in it, None
            for no check of opened sums.
        margin: what the noise of all may add to their sum.
        whole: whether a field fills its slot, for integers that small fields do not hold.
        appliers: how many survivors open the sums where clients do; None for all. A simulation in
            one process needs one.
        question: names what the vectors answer, alike in every round that sums the same answers; a
            client opens one of them. Empty where each round's answers are new, or may be known one
            by one.
        context: names what the round is a part of, so that no message of it passes in another;
            empty for nothing.

    Guarantee: thresholds follow from the cohort that is signed, never from a list that the
    server shows.
    Assumes: all parties are given the same plan; its digest in every header refuses messages
    of another.
    Not covered: whether the cohort that is signed is worth trusting.

    Raises:
        SecureSumError: rules that contradict each other, or a sparse graph that colluders could
            bend by trying keys.
    """

    protection: str
    roster: Roster
    round: int
    shape: BlockShape
    server: str
    cohort: tuple[str, ...] = ()
    key_holder: str = "clients"
    authority: str = ""
    key_fingerprint: bytes = NO_KEY
    parameters: ParameterSet | None = None
    fewest: int | None = None
    minimum: int = 2
    count_unit: int = 1
    threshold: int | None = None
    degree: int | None = None
    colluders: int | None = None
    bound: int | None = None
    head_bound: int | None = None
    margin: int = 0
    whole: bool = False
    appliers: int | None = None
    question: bytes = b""
    context: bytes = b""

    def __post_init__(self) -> None:
        clients = self.roster.names("client")
        object.__setattr__(self, "cohort", tuple(sorted(self.cohort)) or clients)
        default = parameters_of(self.protection, self.key_holder)
        found = (self.parameters or default) if self.encrypted else None
        object.__setattr__(self, "parameters", found)
        self._check_cohort()
        self._check_counts()
        if self.masked:
            check_threshold(self.shares_needed, self.neighbourhood)
            self._check_graph()
        self._check_roles()

    def _check_cohort(self) -> None:
        size, strangers = len(self.cohort), set(self.cohort) - set(self.roster.names("client"))
        twice = size != len(set(self.cohort))
        if strangers or twice or not self.survivors_needed <= size < 2**16:
            problem, remedy = "clients that cannot take part", "n_min or more of the roster"
            raise SecureSumError(problem, "cohort", sorted(strangers), remedy)

    def _check_counts(self) -> None:
        counts = {"minimum": self.minimum, "count_unit": self.count_unit}
        for name, value in {"fewest": self.survivors_needed, **counts}.items():
            if value < 1:
                raise SecureSumError("too small", name, value, "at least 1")

    def _check_roles(self) -> None:
        if self.key_holder not in KEY_HOLDERS:
            remedy = f"one of {KEY_HOLDERS}"
            raise SecureSumError("unknown", "security.key_holder", self.key_holder, remedy)
        if self.roster.member(self.server).role != "server" or (
            self.opener == "authority" and self.roster.member(self.authority).role != "authority"
        ):
            remedy = "name them as the roster does"
            raise SecureSumError(
                "has another role", "server, authority", (self.server, self.authority), remedy
            )

    def _check_graph(self) -> None:
        size, colluders, shown = len(self.cohort), self.colluders_allowed, self.survivors_needed
        degree = self.neighbourhood - 1
        if self.neighbourhood >= size or withstands(
            shown, degree, self.shares_needed, colluders=colluders
        ):
            return
        least = smallest_degree(size, colluders=colluders, dropouts=0, shown=shown)
        problem = f"{colluders} colluders who try keys surround a client with too good odds"
        remedy = "leave it out: all mask with all"
        if least < size - 1:
            remedy = f"at least {least}, with the default threshold; or leave it out"
        raise SecureSumError(problem, "degree", self.degree, remedy)

    @cached_property
    def longest(self) -> dict[tuple[int, bool], int]:
        """Lengths of messages that were computed of this plan already; see `most_bytes`."""
        return {}

    @cached_property
    def members(self) -> frozenset[str]:
        """The cohort, for looking names up."""
        return frozenset(self.cohort)

    @property
    def neighbourhood(self) -> int:
        """m: holders of one client's shares, itself among them, when the whole cohort is there."""
        return len(self.cohort) if self.degree is None else min(len(self.cohort), self.degree + 1)

    @property
    def shares_needed(self) -> int:
        """t: how many of the m shares of a secret give it back."""
        return default_threshold(self.neighbourhood) if self.threshold is None else self.threshold

    @property
    def survivors_needed(self) -> int:
        """n_min: t at least, where there are masks."""
        if not self.masked:
            return 2 if self.fewest is None else self.fewest
        sparse, least = self.neighbourhood < len(self.cohort), self.fewest or 0
        if self.fewest is None and sparse:
            least = default_threshold(len(self.cohort))
        return max(least, self.shares_needed)

    @property
    def colluders_allowed(self) -> int:
        """Colluding clients that a sparse graph withstands."""
        return -(-len(self.cohort) // 20) if self.colluders is None else self.colluders

    @property
    def masked(self) -> bool:
        """Whether masks lie under the encryption, or alone."""
        return self.protection != "plain"

    @property
    def encrypted(self) -> bool:
        """Whether a key is needed to open sums."""
        return self.protection == "bfv+masked"

    @property
    def opener(self) -> str:
        """Who opens sums: `authority`, or `clients`, also where nothing is encrypted."""
        return self.key_holder if self.encrypted else "clients"

    @cached_property
    def layout(self) -> FieldLayout:
        """How fields lie in the slots of a block."""
        return layout_of(self.protection, whole=self.whole)

    def numbers(self, block: int) -> int:
        """Slots of a block, guard and padding included; whole ciphertexts where there are any."""
        return self._numbers[min(block, 2)]

    @cached_property
    def _numbers(self) -> tuple[int, ...]:
        """Of the head, of the block after it, and of each further one."""
        blocks, given = range(min(3, self.shape.blocks)), self.parameters
        plain = [_GUARD + self.layout.slots(self.shape.fields(block)) for block in blocks]
        if given is None:
            return tuple(plain)
        return tuple(
            slots if self.cut(block) else given.ciphertexts(slots) * given.capacity
            for block, slots in enumerate(plain)
        )

    def cut(self, block: int) -> bool:
        """Whether a ciphertext is cut to what it needs: the head's, which all openers get."""
        slots = self.layout.slots(self.shape.head_fields)
        return block == 0 and self.encrypted and slots < LARGEST_CUT

    @property
    def exact_counts(self) -> bool:
        """Whether the head is one exact count a pool, so that they sum to the survivors."""
        only_counts = self.shape.counted and self.shape.head_fields == self.shape.pools
        return only_counts and self.head_bound == self.count_unit and not self.margin

    @property
    def noised_head(self) -> bool:
        """Whether noise hides the head: then it may be opened once, as a pool may."""
        return self.margin > 0 and self.shape.head_fields > 0

    def passing(self, head: Integers, survivors: int) -> tuple[int, ...]:
        """Pools whose opened count reaches the minimum."""
        if not self.shape.counted:
            return (0,) if survivors >= self.minimum else ()
        least = self.minimum * self.count_unit
        return tuple(pool for pool in range(self.shape.pools) if int(head[pool]) >= least)

    @cached_property
    def digest(self) -> bytes:
        """32 bytes over all of it but the round and the roster, which headers name themselves."""
        shape = self.shape
        base = self.parameters.digest.hex() if self.parameters else ""
        authority = self.authority if self.opener == "authority" else ""
        shares = self.shares_needed if self.masked else 0
        graph = [shares, self.degree, self.colluders_allowed]
        named = [self.question.hex(), self.context.hex()]
        facts = [
            [self.protection, self.opener, self.server, authority, base, list(self.cohort)],
            [shape.pools, shape.width, shape.shared, shape.head_fields, shape.counted],
            [self.layout.bits, self.layout.fields_per_slot, str(self.layout.modulus)],
            [self.survivors_needed, self.minimum, self.count_unit, *graph],
            [self.bound, self.head_bound, self.margin, self.appliers, *named],
        ]
        return hashlib.sha256(b"secure-fl round plan 4|" + canonical(facts)).digest()

    @cached_property
    def parameter_text(self) -> str:
        """What headers carry for parameters: the encryption's or the layout, and the digest."""
        fields = f"fields-{self.layout.bits}x{self.layout.fields_per_slot}"
        base = self.parameters.identifier if self.parameters else fields
        return f"{base}/{self.digest.hex()[:32]}"

    def header(self, phase: Phase, sender: str, *, chunk: int = 0, chunks: int = 1) -> Header:
        """The header of a message of this round; nothing in it depends on a client's data."""
        keys = (self.key_fingerprint, self._roster_digest)
        return Header(*self._context, phase, self.shape.pools, sender, *keys, chunk, chunks)

    @cached_property
    def _roster_digest(self) -> bytes:
        return self.roster.digest

    def expect(
        self, phase: Phase, role: str, *, sender: str | None = None, chunks: int = 1
    ) -> Expected:
        """What a receiver of this round's messages waits for, in a phase and from a role."""
        place = (*self._context, phase, self.shape.pools, self.key_fingerprint)
        return Expected(*place, chunks=chunks, sender=sender, role=role)

    @property
    def _context(self) -> tuple[str, str, str, int]:
        return self.protection, self.parameter_text, self.roster.federation, self.round
