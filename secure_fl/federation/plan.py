"""The plan of a federation: public facts only, signed once by its coordinator.

Shapes, bounds, margins, thresholds and opening rules of every round follow from it and from the
place in the program; nothing about them is ever taken from a message. Its digest is in the header
of every message around rounds and in the plan of every round.

**Guarantee**: two parties that hold plans of one digest agree on all of it.

**Assumes**: SHA-256; the coordinator's key is known from the roster.

**Not covered**: whether the plan is worth accepting. Each site judges that by its own policy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Literal

from secure_fl.config import FederationConfig
from secure_fl.config.security import SumRules
from secure_fl.crypto.envelope import (
    NO_KEY,
    Expected,
    Phase,
    open_envelope,
    read_header,
    sign_envelope,
)
from secure_fl.crypto.identities import Identity
from secure_fl.crypto.refusals import Reason, RefusedError
from secure_fl.crypto.roster import Roster
from secure_fl.crypto.strict_json import canonical, fields, from_hex, malformed, parse_object
from secure_fl.errors import ConfigError
from secure_fl.federation.facts import PublicFacts
from secure_fl.federation.place import Place
from secure_fl.federation.predecessor import Predecessor
from secure_fl.federation.wire import SUITE, plain_header
from secure_fl.he.ceremony import Epoch
from secure_fl.he.parameters import ParameterSet
from secure_fl.secure_sum.protections import parameters_of
from secure_fl.secure_sum.sizes import check_size

MOST_PLAN = 1 << 24
"""Bytes of the largest signed plan that is looked at."""
MOST_LINES = 1 << 26
"""Bytes of the transcript that a call brings along, at the most."""
_FORMAT = "secure-fl plan 1"
_TYPES = {
    "format": str,
    "configuration": dict,
    "shape": list,
    "classes": int,
    "clients": list,
    "roster": str,
    "largest": int,
    "layout": str,
    "start": str,
    "largest_state": int,
    "server": str,
    "authority": str,
    "first_day": str,
    "last_day": str,
    "code": dict,
    "publish_models": int,
}
_FOLLOWS = "follows"
"""Stands in a plan only where it follows another."""


@dataclass(frozen=True)
class Plan:
    """What everybody in a federation agrees to before it begins.

    Attributes:
        configuration: the resolved configuration as JSON values.
        shape: of one example.
        classes: number of classes; 0 without labels.
        clients: their names on the roster; a client's number is its place here.
        roster: digest of the roster in force, 32 bytes.
        layout: digest of the encoder's layout (names, types and shapes of its tensors), 32 bytes.
        start: digest of the state before the first round, 32 bytes; where the plan follows another,
            of the state that the one before had come to.
        largest_state: bytes of the largest state that the program comes to, when encoded.
        server: its name on the roster.
        authority: the key holder's name on the roster; empty where the clients hold the key.
        largest: training examples of the largest client, weight 1 of weighted averages.
        first_day, last_day: of the study, as `2026-01-31`; empty for no limit.
        code: digest in hex of each part of the software that clients are to run, by name.
        publish_models: whether the server is given the models, which it must then say wherever it
            says what it learns.
        follows: the federation that this one goes on from; None where it begins anew.
    """

    configuration: Mapping[str, Any] = field(repr=False)
    shape: tuple[int, ...]
    classes: int
    clients: tuple[str, ...]
    roster: bytes
    layout: bytes
    start: bytes
    largest_state: int
    server: str
    authority: str = ""
    largest: int = 1
    first_day: str = ""
    last_day: str = ""
    code: Mapping[str, str] = field(default_factory=dict)
    publish_models: bool = False
    follows: Predecessor | None = None

    @cached_property
    def config(self) -> FederationConfig:
        """The configuration, with all its rules.

        Raises:
            RefusedError: `malformed`: it breaks one of them.
        """
        try:
            return FederationConfig(**self.configuration)
        except ConfigError as error:
            raise malformed("plan", f"{error.field} {error.problem}") from None

    @cached_property
    def facts(self) -> PublicFacts:
        """What steps, models and noise follow from."""
        return PublicFacts(self.config, self.shape, self.classes, len(self.clients), self.largest)

    @property
    def begins(self) -> Place:
        """Where the program is before the first round."""
        return Place(0, 0) if self.follows is None else self.follows.place

    @property
    def protection(self) -> str:
        """How sums are protected."""
        return self.config.security.protection

    @property
    def key_holder(self) -> Literal["clients", "authority"]:
        """Who can decrypt sums."""
        return self.config.security.key_holder

    @property
    def by_authority(self) -> bool:
        """Whether an authority holds the key and the models, and seals these for the clients."""
        return self.parameters is not None and self.key_holder == "authority"

    @property
    def parameters(self) -> ParameterSet | None:
        """The parameters of the encryption; None where nothing is encrypted."""
        return parameters_of(self.protection, self.key_holder)

    @property
    def holders(self) -> tuple[str, ...]:
        """Who gets the federation's key, under which models are sealed."""
        more = (self.authority,) if self.by_authority else ()
        return (*self.clients, *more, *((self.server,) if self.publish_models else ()))

    @property
    def key_makers(self) -> tuple[str, ...]:
        """Who may make keys, the first that is there before the others."""
        return (self.authority,) if self.by_authority else self.clients

    def rules(self, cohort: int) -> SumRules | None:
        """Thresholds of a cohort of so many clients; None in the open.

        Raises:
            ConfigError: a cohort that is too small for the settings.
        """
        if self.protection == "plain":
            return None
        return self.config.security.sums(cohort, self.config.privacy.colluders)

    def epoch(self, number: int, roster: Roster) -> Epoch:
        """Rounds that the encryption key of round `number` serves."""
        return Epoch.of(number, roster)

    @cached_property
    def digest(self) -> bytes:
        """32 bytes that name the plan: a hash of all that it says."""
        return hashlib.sha256(b"secure-fl plan 1|" + self.encode()).digest()

    def encode(self) -> bytes:
        """The plan as canonical JSON, which is the same at every party."""
        document = asdict(self) | {"configuration": dict(self.configuration), "format": _FORMAT}
        document |= {name: getattr(self, name).hex() for name in ("roster", "layout", "start")}
        document |= {"code": dict(self.code), "publish_models": int(self.publish_models)}
        del document[_FOLLOWS]
        if self.follows is not None:
            document[_FOLLOWS] = self.follows.document()
        return canonical(document)

    @classmethod
    def decode(cls, data: bytes) -> Plan:
        """What `encode` wrote, its configuration checked.

        Raises:
            RefusedError: `malformed`.
        """
        content = parse_object(data, "plan")
        more: dict[str, type] = {_FOLLOWS: dict} if _FOLLOWS in content else {}
        found = fields(content, "plan", _TYPES | more)
        names, shape = found["clients"], found["shape"]
        texts = [*names, *found["code"].values()]
        right = found.pop("format") == _FORMAT and all(isinstance(text, str) for text in texts)
        right = right and all(type(size) is int and 0 < size < 1 << 31 for size in shape)
        right = right and 0 <= found["largest_state"] < 1 << 40
        if not right or len(set(names)) != len(names) or found["publish_models"] not in (0, 1):
            raise malformed("plan", "unknown format, or a value out of range")
        found |= {name: from_hex(found[name], name, 32) for name in ("roster", "layout", "start")}
        found |= {"clients": tuple(names), "shape": tuple(shape)}
        found |= {name: Predecessor.read(found[name]) for name in more}
        plan = cls(**found | {"publish_models": bool(found["publish_models"])})
        _ = plan.config
        if plan.follows is not None and plan.by_authority:
            raise malformed("plan", "follows another, and an authority holds the models")
        return plan

    def sign(self, coordinator: Identity, roster: Roster) -> bytes:
        """The plan as its coordinator sends it."""
        header = plain_header(coordinator.name, roster, Phase.PLAN, self.digest.hex())
        return sign_envelope(coordinator, header, self.encode())

    @classmethod
    def open(cls, data: bytes | memoryview, roster: Roster) -> Plan:
        """A signed plan, checked against the roster in force.

        Raises:
            RefusedError: the envelope's reasons; `malformed`; `wrong-roster` for a plan of another
                roster, or whose people are not on it in their roles.
        """
        check_size(data, MOST_PLAN)
        header = read_header(data)
        expected = Expected(
            SUITE,
            header.parameters,
            roster.federation,
            0,
            Phase.PLAN,
            0,
            NO_KEY,
            role="coordinator",
        )
        plan = cls.decode(open_envelope(bytes(data), roster, expected)[1])
        if plan.digest.hex() != header.parameters:
            raise malformed("plan", "its digest is not the one that the header names")
        people = {plan.server: "server", **dict.fromkeys(plan.clients, "client")}
        people |= {plan.authority: "authority"} if plan.by_authority else {}
        known = {member.name: member.role for member in roster.members}
        if plan.roster != roster.digest or any(known.get(n) != role for n, role in people.items()):
            raise RefusedError(
                Reason.WRONG_ROSTER,
                "a plan of another roster",
                field="plan",
                value=plan.roster.hex()[:16],
                remedy="fetch the roster that the plan was made for",
            )
        return plan

    def most(self, phase: Phase) -> int:
        """Bytes that a message around rounds may have."""
        clients = len(self.clients)
        signed, keys, names = 1 << 10, 1 << 20, 100 * clients
        sizes = {
            Phase.BEGIN: names + MOST_LINES,
            Phase.END: MOST_LINES,
            Phase.PREPARE: names,
            Phase.SECRET: 300 * clients,
            Phase.KEYS: keys + 300 * clients,
            Phase.PART: self.largest_state,
            Phase.PARTS: self.largest_state * max(1, clients // 2) + signed * clients,
            Phase.RESULTS: signed * clients,
            Phase.STATE: self.largest_state + signed * clients + names,
        }
        return (1 << 13) + sizes.get(phase, names if phase == Phase.REFUSE else 0)
