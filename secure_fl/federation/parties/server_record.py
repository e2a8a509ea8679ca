"""What a server writes of rounds and sums: public facts, in the words of the transcript."""

from __future__ import annotations

from typing import Any

from secure_fl.federation.calling import Call
from secure_fl.federation.program import SumForm
from secure_fl.federation.wire import shown
from secure_fl.secure_sum.round_plan import RoundPlan
from secure_fl.secure_sum.round_server import RoundServer


def call_facts(plan: RoundPlan, call: Call, form: SumForm) -> dict[str, Any]:
    """A sum that begins."""
    return {
        "round": call.number,
        "place": shown(call.place),
        "step": form.name,
        "attempt": call.attempt,
        "cohort": list(plan.cohort),
        "left_out": list(call.left_out),
        "plan": plan.digest.hex(),
        "fewest": plan.survivors_needed,
        "minimum": plan.minimum,
        "unit": plan.count_unit,
        "pools": plan.shape.pools if plan.shape.counted else 0,
        "key": plan.key_fingerprint.hex(),
    }


def sum_facts(one: RoundServer, number: int) -> dict[str, Any]:
    """A sum that was opened: what a server knows about it, which is not what is in it."""
    digests = [said.digest for said in one.applied.values()]
    return {
        "round": number,
        "view": one.view.hex(),
        "survivors": list(one.survivors),
        "uploads": {name: digest.hex() for name, digest in one.uploads.items()},
        "digest": max(set(digests), key=digests.count).hex(),
    }
