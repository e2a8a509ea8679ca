"""Who signed which state: what a holder of the models says follows from a round's sums.

Guarantee: a state that `enough` appliers signed is the one that honest appliers came to, as long as
fewer than that many lie together. `enough` is the plan's threshold t for the round's cohort; the
authority alone where it holds the key, for nobody else opens sums there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from secure_fl.crypto.envelope import Phase, Seen, read_header
from secure_fl.crypto.refusals import Reason, RefusedError
from secure_fl.crypto.strict_json import from_hex
from secure_fl.federation.parties.calling import Call, round_plans
from secure_fl.federation.place import Place
from secure_fl.federation.plan import Plan
from secure_fl.federation.program import Schedule, SumForm
from secure_fl.federation.wire import Post, Wire
from secure_fl.secure_sum.digests import Applied
from secure_fl.secure_sum.framing import unframe
from secure_fl.secure_sum.key_directory import check_cohort
from secure_fl.secure_sum.messages import RoundReason, RoundRefusedError, accept
from secure_fl.secure_sum.plan import RoundPlan


@dataclass(frozen=True)
class Claim:
    """A state, by digest and place."""

    state: bytes
    place: Place


def handed_on(plan: Plan) -> Claim | None:
    """The state that a plan goes on from; None where it begins anew."""
    return None if plan.follows is None else Claim(plan.start, plan.begins)


def read_claims(
    wire: Wire, plan: Plan, form: SumForm, call: Call, envelopes: Sequence[bytes]
) -> Mapping[str, Claim]:
    """What each applier of that round signed, by name. Raises RefusedError: a message that is not a
    signed claim of this round, `duplicate` for two of one sender.
    """
    plans = round_plans(plan, wire.roster, form, call)
    seen, found = Seen(), dict[str, Claim]()
    for data in envelopes:
        if read_header(data).phase == Phase.APPLY and len(plans) == 1:
            name, claim = _applied(plans[0], data, seen)
        else:
            name, claim = read_result(wire, plan, plans, call, data)
        if name in found:
            remedy = "send one of each"
            raise RefusedError(Reason.DUPLICATE, "two claims of one", "claim", name, remedy)
        found[name] = claim
    return found


def read_joined(wire: Wire, plan: Plan, envelopes: Sequence[bytes]) -> Mapping[str, Claim]:
    """Where each client signed that it was when it joined, by name: of a plan that follows another.
    Raises RefusedError: a message that says no such thing, `duplicate` for two of one sender.
    """
    found = dict[str, Claim]()
    for data in envelopes:
        post = wire.open(data, most=plan.most(Phase.JOIN), role="client")
        if post.header.phase != Phase.JOIN or post.sender not in plan.clients:
            word, remedy = post.header.phase.name, "send what clients of the plan joined with"
            raise RefusedError(Reason.WRONG_PHASE, "no client's word", "phase", word, remedy)
        if post.sender in found:
            remedy = "send one of each"
            raise RefusedError(Reason.DUPLICATE, "two claims of one", "claim", post.sender, remedy)
        found[post.sender] = Claim(from_hex(post.facts["state"], "state", 32), post.place)
    return found


def read_result(
    wire: Wire, plan: Plan, plans: Sequence[RoundPlan], call: Call, data: bytes | memoryview
) -> tuple[str, Claim]:
    """What one applier of a round in groups signed. Raises RefusedError: the message's reasons,
    `stale`, or `unknown-client`.
    """
    role = "authority" if plan.by_authority else "client"
    post = wire.open(data, most=plan.most(Phase.RESULT), role=role)
    if post.header.phase != Phase.RESULT or post.header.round != call.number:
        problem = f"round {call.number} is asked of"
        raise RefusedError(Reason.STALE, problem, "round", post.header.round, "none")
    cohort = {name for one in plans for name in one.cohort}
    if not plan.by_authority and post.sender not in cohort:
        raise RefusedError(Reason.UNKNOWN_CLIENT, "was not asked", "sender", post.sender, "wait")
    return post.sender, Claim(from_hex(post.facts["state"], "state", 32), post.place)


def enough(plan: Plan, form: SumForm) -> int:
    """Signatures that a state needs for whoever did not apply the sums."""
    if plan.by_authority:
        return 1
    rules = plan.rules(len(form.cohort))
    return rules.threshold if rules else min(form.opening.fewest, len(form.cohort))


def check_enough(plan: Plan, form: SumForm, found: int) -> None:
    """Refuse a state that fewer than `enough` signed: whoever lists the signatures chooses them.
    Raises RoundRefusedError: `not-agreed`.
    """
    needed = enough(plan, form)
    if found < needed:
        problem, remedy = "too few signed this state", f"{needed} signatures of appliers are needed"
        raise RoundRefusedError(RoundReason.NOT_AGREED, problem, "signatures", found, remedy)


def check_claimed(wire: Wire, plan: Plan, program: Schedule, post: Post) -> Claim:
    """Which state a message brings, signed by enough: of those who came to it in a round of this
    plan; or, of the state that the plan goes on from, of those who had come to it before.

    Args:
        wire, plan: of whoever is to take it.
        program: of the plan.
        post: with the sealed state, and what shows it to be the right one.

    Raises:
        RoundRefusedError: `not-agreed`.
        RefusedError: as `read_claims`.
    """
    claim = Claim(from_hex(post.facts["state"], "state", 32), post.place)
    envelopes, before = unframe(post.rest)[1:], handed_on(plan)
    if not post.facts["call"] and before is not None:
        found, form = read_joined(wire, plan, envelopes), program.form(before.place)
        right = claim == before
    else:
        call = Call.read(post.facts["call"])
        form = program.form(call.place)
        found, right = read_claims(wire, plan, form, call, envelopes), call.place < claim.place
    check_enough(plan, form, list(found.values()).count(claim) if right else 0)
    return claim


def majority(claims: Mapping[str, Claim]) -> Claim | None:
    """What more than half of them say; None where there is no such thing."""
    if not claims:
        return None
    [(claim, count)] = Counter(claims.values()).most_common(1)
    return claim if 2 * count > len(claims) else None


def _applied(plan: RoundPlan, data: bytes, seen: Seen) -> tuple[str, Claim]:
    role = "authority" if plan.opener == "authority" else "client"
    expected = plan.expect(Phase.APPLY, role)
    header, applied = accept(data, plan.roster, expected, seen, Applied.decode)
    if role == "client":
        check_cohort(plan, header.sender)
    return header.sender, Claim(applied.state, Place(*applied.place))
