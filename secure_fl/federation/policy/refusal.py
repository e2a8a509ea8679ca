"""A site's signed refusal of a plan: which plan, and in which respects it asks for too much.

**Guarantee**: `open_refusal` returns only what the member named signed, of the plan named,
unchanged.

**Assumes**: Ed25519 and SHA-256; the member's key is from an authentic roster.

**Not covered**: whether the reasons are true; a site may refuse for any. A refusal shows the
coordinator the limits that were passed, and none of those that were met.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from secure_fl.crypto.identities import Identity, Member
from secure_fl.crypto.refusals import Reason, RefusedError
from secure_fl.crypto.strict_json import canonical, fields, from_hex, malformed, parse_object
from secure_fl.errors import ConfigError
from secure_fl.federation.policy.rules import Objection, ObjectionWord

_FORMAT = "secure-fl refusal 1"
_PURPOSE = b"refusal"
_NAME = "refusal"
_LONGEST = 2**16
_OUTER = {"refusal": dict, "signature": str}
_INNER = {"format": str, "name": str, "plan": str, "objections": list}
_OBJECTION = {"field": str, "asked": str, "allowed": str, "reason": str}


@dataclass(frozen=True)
class Refusal:
    """What a site says of a plan that it does not join.

    Attributes:
        name: of the site, as on the roster.
        plan_digest: 32 bytes.
        objections: at least one.
    """

    name: str
    plan_digest: bytes
    objections: tuple[Objection, ...]


def refusal(identity: Identity, plan_digest: bytes, objections: Sequence[Objection]) -> bytes:
    """The signed document, canonical JSON. Raises ConfigError: nothing is objected to, or the
    digest is none.

    Args:
        identity: of the site.
        plan_digest: 32 bytes, of the plan that is refused.
        objections: as `Policy.check` found them.
    """
    if not objections:
        remedy = "refuse only what the policy objects to"
        raise ConfigError("a refusal without a reason", "objections", 0, remedy)
    if len(plan_digest) != 32:
        raise ConfigError("not 32 bytes", "plan_digest", len(plan_digest), "pass the plan's")
    document = {
        "format": _FORMAT,
        "name": identity.name,
        "plan": plan_digest.hex(),
        "objections": [asdict(each) for each in objections],
    }
    signature = identity.sign(_PURPOSE, canonical(document))
    return canonical({"refusal": document, "signature": signature.hex()})


def open_refusal(data: bytes, member: Member, plan_digest: bytes) -> Refusal:
    """Check and read a refusal.

    Args:
        data: what arrived.
        member: whose it should be.
        plan_digest: of the plan that was sent.

    Raises:
        RefusedError: `wrong-length`, `malformed`, `wrong-signature`, `unknown-client` where it
            names somebody else, or `wrong-parameters` where it is about another plan.
    """
    if len(data) > _LONGEST:
        raise _refuse(Reason.WRONG_LENGTH, f"longer than {_LONGEST} bytes", "refusal", len(data))
    outer = fields(parse_object(data, _NAME), _NAME, _OUTER)
    signature = from_hex(outer["signature"], "signature", 64)
    member.verify(_PURPOSE, canonical(outer["refusal"]), signature)
    found = fields(outer["refusal"], _NAME, _INNER)
    if found["format"] != _FORMAT or not found["objections"]:
        raise malformed(_NAME, "unknown format, or no objection")
    if found["name"] != member.name:
        raise _refuse(Reason.UNKNOWN_CLIENT, f"not {member.name}'s", "name", found["name"])
    if from_hex(found["plan"], "plan", 32) != plan_digest:
        raise _refuse(Reason.WRONG_PARAMETERS, "about another plan", "plan", found["plan"])
    return Refusal(member.name, plan_digest, tuple(map(_objection, found["objections"])))


def _objection(value: Any) -> Objection:
    found = fields(value, "objection", _OBJECTION)
    if found["reason"] not in set(ObjectionWord):
        raise malformed("objection", "unknown reason")
    return Objection(**{**found, "reason": ObjectionWord(found["reason"])})


def _refuse(reason: Reason, problem: str, field: str, value: object) -> RefusedError:
    remedy = "send the refusal as the site wrote it, of the plan that it was sent"
    return RefusedError(reason, problem, field, value, remedy)
