"""What a client or authority must not lose of a round: secrets, answers, how far it is."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from secure_fl.crypto.envelope import Seen
from secure_fl.crypto.shares import SHARE_BYTES
from secure_fl.crypto.strict_json import (
    canonical,
    fields,
    from_base64,
    malformed,
    parse_object,
    to_base64,
)
from secure_fl.errors import SecureSumError
from secure_fl.secure_sum.blocks import Integers
from secure_fl.secure_sum.digests import Applied
from secure_fl.secure_sum.messages import Advertise
from secure_fl.secure_sum.plan import RoundPlan
from secure_fl.secure_sum.steps import ClientStep

_VERSION = 1
_NAME = "round state"
_TEXT = dict.fromkeys(("sealing", "masking", "seeds", "view", "mine", "question"), str)
_LISTS = dict.fromkeys(("keys", "dealers", "survivors", "head", "seen", "answers"), list)
_TYPES = {"version": int, "step": int, "rows": dict, "headed": int, **_TEXT, **_LISTS}


@dataclass
class RoundState:
    """One party in one round, as it would go on after a kill; of an authority's most is empty.

    A secret stays as long as something depends on it: keys and seeds until the upload, shares of
    others' secrets until the last opening.

    Args:
        step: how far it is.
        sealing, masking: its private keys of this round; None once they are spent.
        self_seeds: one of each block; empty once they are spent.
        keys: everybody's public ones, by name.
        rows: shares that it holds, by owner: of the mask key, then of each block's seed; boxes that
            do not open have none.
        dealers: positions of those who stay.
        survivors: U, once it was signed.
        view: 32 bytes of the set it signed.
        head: the opened counts, once they were proved.
        mine: its own claim of what the sums are.
        seen: the server's messages that it took.
        question: digest of the last of them, with the answers to it.
        answers: what it answered, byte for byte.
    """

    step: ClientStep = ClientStep.NEW
    sealing: X25519PrivateKey | None = field(default=None, repr=False)
    masking: X25519PrivateKey | None = field(default=None, repr=False)
    self_seeds: list[bytes] = field(default_factory=list, repr=False)
    keys: dict[str, Advertise] = field(default_factory=dict)
    rows: dict[int, list[bytes]] = field(default_factory=dict, repr=False)
    dealers: tuple[int, ...] = ()
    survivors: tuple[int, ...] = ()
    view: bytes = b""
    head: Integers | None = field(default=None, repr=False)
    mine: Applied | None = None
    seen: Seen = field(default_factory=Seen)
    question: bytes = b""
    answers: tuple[bytes, ...] = field(default=(), repr=False)

    def spend(self) -> None:
        """Forget what nothing depends on any more."""
        if self.step >= ClientStep.UPLOADED:
            self.sealing, self.masking, self.self_seeds = None, None, []
        if self.step >= ClientStep.OPENED:
            self.rows = {}

    def encode(self) -> bytes:
        """One spelling, secrets included: it is to be sealed."""
        head = [] if self.head is None else self.head.tolist()
        seen = [[*place, digest.hex()] for place, digest in sorted(self.seen.digests.items())]
        value = {
            "version": _VERSION,
            "step": int(self.step),
            "sealing": _private(self.sealing),
            "masking": _private(self.masking),
            "seeds": to_base64(b"".join(self.self_seeds)),
            "keys": [[name, to_base64(key.encode())] for name, key in sorted(self.keys.items())],
            "rows": {str(owner): to_base64(b"".join(row)) for owner, row in self.rows.items()},
            "dealers": list(self.dealers),
            "survivors": list(self.survivors),
            "view": self.view.hex(),
            "head": head,
            "headed": int(self.head is not None),
            "mine": to_base64(self.mine.encode() if self.mine else b""),
            "seen": seen,
            "question": self.question.hex(),
            "answers": [to_base64(answer) for answer in self.answers],
        }
        return canonical(value)

    @classmethod
    def decode(cls, data: bytes) -> RoundState:
        """The inverse. Raises RefusedError: `malformed` for anything else."""
        value = fields(parse_object(data, _NAME), _NAME, _TYPES)
        try:
            if value["version"] != _VERSION:
                raise malformed(_NAME, "of another version")
            mine = from_base64(value["mine"], _NAME)
            seen = {
                (str(name), int(number), int(phase), int(chunk)): bytes.fromhex(digest)
                for name, number, phase, chunk, digest in value["seen"]
            }
            return cls(
                ClientStep(value["step"]),
                _key(value["sealing"]),
                _key(value["masking"]),
                _parts(value["seeds"], 32),
                {name: Advertise.decode(from_base64(key, _NAME)) for name, key in value["keys"]},
                {int(owner): _parts(row, SHARE_BYTES) for owner, row in value["rows"].items()},
                tuple(map(int, value["dealers"])),
                tuple(map(int, value["survivors"])),
                bytes.fromhex(value["view"]),
                np.array(value["head"], np.int64) if value["headed"] else None,
                Applied.decode(mine) if mine else None,
                Seen(seen),
                bytes.fromhex(value["question"]),
                tuple(from_base64(answer, _NAME) for answer in value["answers"]),
            )
        except (SecureSumError, ValueError, TypeError, OverflowError):
            raise malformed(_NAME, "a field is not what it must be") from None


def state_context(plan: RoundPlan, name: str) -> bytes:
    """What a sealed state is for: this party, in this round, under this plan and roster."""
    number = plan.round.to_bytes(8, "big")
    facts = plan.digest + plan.roster.digest + plan.key_fingerprint + number + name.encode()
    return b"secure-fl round state 1|" + facts


def question_of(data: bytes) -> bytes:
    """32 bytes that name a message, whole."""
    return blake3(data).digest()


def _private(key: X25519PrivateKey | None) -> str:
    return to_base64(b"" if key is None else key.private_bytes_raw())


def _key(text: str) -> X25519PrivateKey | None:
    raw = from_base64(text, _NAME)
    return X25519PrivateKey.from_private_bytes(raw) if raw else None


def _parts(text: str, size: int) -> list[bytes]:
    raw = from_base64(text, _NAME)
    if len(raw) % size:
        raise malformed(_NAME, "cut in the middle of a secret")
    return [raw[start : start + size] for start in range(0, len(raw), size)]
