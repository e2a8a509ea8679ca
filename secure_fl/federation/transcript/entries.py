"""What each kind of transcript entry says: typed records of public facts, read strictly.

An entry of an unknown kind, with a field too many or too few, or with a value of another form is
refused. Digests, heads and fingerprints are 64 lower-case hex digits.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, get_args

from pydantic import Field, TypeAdapter, ValidationError

from secure_fl import __version__
from secure_fl.crypto.strict_json import canonical, malformed

if TYPE_CHECKING:
    from secure_fl.crypto.roster import Roster
    from secure_fl.federation.plan import Plan

Hex32 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Name = Annotated[str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Word = Annotated[str, Field(max_length=200)]
Count = Annotated[int, Field(ge=0, le=1 << 32)]
Place = tuple[Count, Count]
"""Step of the program, and rounds finished in it."""


@dataclass(frozen=True)
class PlanEntry:
    """What everybody agreed to.

    It is the first entry, and comes again where a run goes on under other identities or for longer.
    Evidence: the coordinator's identity card, the signed roster, the signed plan; none where a
    simulation says what it will go by, before it has parties that sign.

    Attributes:
        digest: of the signed plan; None before there is one.
        configuration: SHA-256 of a simulation's `config.toml`; None where there is none.
        roster: digest of the roster in force; None where there is none.
        revision: of that roster.
        clients: names on the roster, in the order of their numbers.
        fewest: survivors that every round must have, n_min; a round may ask for more.
        colluders: that the noise was sized for.
        versions: of the software that matters for the results.
    """

    kind: ClassVar = "plan"
    digest: Hex32 | None
    federation: Name
    protection: Word
    key_holder: Word
    clients: tuple[Name, ...]
    fewest: Count
    colluders: Count
    roster: Hex32 | None = None
    revision: Count = 0
    versions: dict[Word, Word] | None = None
    configuration: Hex32 | None = None


@dataclass(frozen=True)
class JoinedEntry:
    """A client takes part. Evidence: its signed acceptance, where there is one.

    Attributes:
        fingerprint: of its identity.
        policy: digest of the policy that it checked the plan against.
    """

    kind: ClassVar = "joined"
    client: Name
    fingerprint: Hex32
    policy: Hex32 | None = None


@dataclass(frozen=True)
class RefusedEntry:
    """A message, a plan or a round that somebody turned away.

    Attributes:
        sender: who sent it, as the message claims.
        phase: of the round, as the message claims; `plan` for a plan that a site refuses.
        reason: one stable word.
        by: who refused.
        round: number of the round; None outside of rounds.
    """

    kind: ClassVar = "refused"
    sender: Word
    phase: Word
    reason: Word
    by: Word
    round: Count | None = None


@dataclass(frozen=True)
class KeysEntry:
    """An encryption key is in force from now on.

    Attributes:
        fingerprint: of the key.
        maker: who made it.
        first, last: rounds that it serves, both included.
    """

    kind: ClassVar = "keys"
    fingerprint: Hex32
    maker: Name
    first: Count
    last: Count


@dataclass(frozen=True)
class RoundEntry:
    """A sum begins. Several of one place and attempt are sums over groups of clients.

    Attributes:
        round: number, used by no other attempt in the whole federation; sums over groups share it.
        place: step of the program, and rounds finished in it.
        step: name of that step.
        attempt: from 1; a later one is made only where nothing of the earlier was opened.
        cohort: clients asked, ascending.
        left_out: clients that are left out from the start.
        plan: digest of the round's plan; None where nothing is signed.
        fewest: survivors without whom nothing is opened; 0 where nobody sees to it (`plain`).
        threshold: signatures on the survivors without which no secret is opened; 0 without masks.
        minimum: members without whom a pool stays closed.
        unit: what each member adds to its pool's count.
        pools: counts that the sum begins with; 0 where there are none.
        exact: whether these counts are free of noise, so that they come to `unit` times the
            survivors.
        key: fingerprint of the encryption key; zeros without one.
    """

    kind: ClassVar = "round"
    round: Count
    place: Place
    step: Word
    attempt: Annotated[int, Field(ge=1, le=1000)]
    cohort: tuple[Name, ...]
    left_out: tuple[Name, ...]
    plan: Hex32 | None
    fewest: Count
    threshold: Count
    minimum: Count
    unit: Count
    pools: Count
    exact: bool
    key: Hex32


@dataclass(frozen=True)
class SumEntry:
    """A sum was opened.

    Evidence: signed key advertisements, signed agreements on the survivors, signed digests of what
    was opened (whole messages), and the signed heads of uploads (without bodies), in any order.

    Attributes:
        round: the round's number.
        plan: digest of the round's plan, which tells sums over groups apart.
        view: binds plan, keys, who dealt shares, and survivors; None where nothing is signed.
        survivors: clients in the sum, ascending.
        uploads: client -> SHA-256 over the headers of its upload, which hold their bodies' hashes.
        missed: client -> the first phase that it was silent in.
        counts: the opened counts of pools, with their noise where there is any; None where who
            writes this does not know them.
        passing: pools that were opened.
        digest: of everything that was opened.
    """

    kind: ClassVar = "sum"
    round: Count
    plan: Hex32 | None
    view: Hex32 | None
    survivors: tuple[Name, ...]
    uploads: dict[Name, Hex32]
    missed: dict[Name, Word]
    counts: tuple[int, ...] | None
    passing: tuple[Count, ...]
    digest: Hex32


@dataclass(frozen=True)
class StateEntry:
    """The models that follow from the sums so far.

    Evidence: signatures over it of those who applied the sums; none for a checkpoint.

    Attributes:
        place: step of the program, and rounds finished in it.
        digest: of the state.
        checkpoint: of the checkpoint that holds it, its own; None where the entry tells of none.
    """

    kind: ClassVar = "state"
    place: Place
    digest: Hex32
    checkpoint: Hex32 | None = None


@dataclass(frozen=True)
class LedgerEntry:
    """How far a privacy ledger had come. Evidence: its owner's signature.

    Attributes:
        client: whose; None for a simulation's, which holds all clients' releases.
        length: releases in it.
        head: hash of the last.
    """

    kind: ClassVar = "ledger"
    client: Name | None
    length: Count
    head: Hex32


@dataclass(frozen=True)
class EndEntry:
    """The federation ended.

    Attributes:
        reason: `done`, or why it ended early, in one stable word.
        files: SHA-256 of files of the folder that it lies in, by path.
    """

    kind: ClassVar = "end"
    reason: Word
    files: dict[Word, Hex32]


Entry = (
    PlanEntry
    | JoinedEntry
    | RefusedEntry
    | KeysEntry
    | RoundEntry
    | SumEntry
    | StateEntry
    | LedgerEntry
    | EndEntry
)

KINDS: dict[str, type[Entry]] = {each.kind: each for each in get_args(Entry)}
"""Every kind that there is."""


def entry_of(kind: str, facts: object) -> Entry:
    """The typed record of an entry's facts, which are JSON values: `facts_of` is the inverse.

    Raises:
        RefusedError: `malformed`: an unknown kind; a field that is missing, unknown or of another
            form, which is named.
    """
    if kind not in KINDS:
        raise malformed("transcript", "unknown kind of entry")
    names = sorted(field.name for field in fields(KINDS[kind]))
    try:
        said = canonical(facts)
        found: Entry = _adapter(kind).validate_json(said, strict=True)
    except ValidationError as problem:
        first = problem.errors(include_input=False, include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"][:2] if part in names)
        raise malformed("transcript", f"{kind}: {where or 'facts'}: {first['type']}") from None
    except (ValueError, TypeError, RecursionError):
        raise malformed("transcript", f"{kind}: facts are no JSON") from None
    if canonical(facts_of(found)) != said:
        raise malformed("transcript", f"{kind}: must have exactly the fields {names}")
    return found


def facts_of(entry: Entry) -> dict[str, Any]:
    """An entry's facts as JSON values."""
    return asdict(entry)


@lru_cache(maxsize=len(KINDS))
def _adapter(kind: str) -> TypeAdapter[Entry]:
    return TypeAdapter(KINDS[kind])


def plan_facts(plan: Plan, roster: Roster, configuration: str | None = None) -> dict[str, Any]:
    """What everybody agreed to; `configuration` is a digest of the file that it was read from."""
    rules = [plan.rules(cohort) for cohort in plan.config.cohorts(len(plan.clients))]
    return {
        "digest": plan.digest.hex(),
        "federation": roster.federation,
        "protection": plan.protection,
        "key_holder": plan.key_holder,
        "clients": list(plan.clients),
        "fewest": min((each.survivors for each in rules if each), default=0),
        "colluders": plan.config.privacy.colluders,
        "roster": roster.digest.hex(),
        "revision": roster.revision,
        "versions": {"secure-fl": __version__},
        "configuration": configuration,
    }
