"""What a plan says of the one that it goes on from, where it follows another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from secure_fl.crypto.strict_json import fields, from_hex
from secure_fl.federation.place import Place
from secure_fl.federation.wire import read_place, shown


@dataclass(frozen=True)
class Predecessor:
    """The end of a federation, by which another one of the same program begins.

    Attributes:
        plan: digest of its plan, 32 bytes.
        place: where its program had come.
        head: of its server's transcript, after the last line; 32 bytes.
    """

    plan: bytes
    place: Place
    head: bytes

    def document(self) -> dict[str, Any]:
        """JSON values."""
        return {"plan": self.plan.hex(), "place": shown(self.place), "head": self.head.hex()}

    @classmethod
    def read(cls, found: Mapping[str, Any]) -> Predecessor:
        """What `document` gave. Raises RefusedError: `malformed`."""
        facts = fields(found, "follows", {"plan": str, "place": list, "head": str})
        plan, head = (from_hex(facts[name], name, 32) for name in ("plan", "head"))
        return cls(plan, read_place(facts["place"]), head)
