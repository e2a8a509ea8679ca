"""Why a message or a ciphertext is turned away: one stable word for each reason."""

from __future__ import annotations

from enum import StrEnum

from secure_fl.errors import SecureSumError


class Reason(StrEnum):
    """Stable codes, recorded with every refusal; `docs/errors.md` explains them."""

    MALFORMED = "malformed"
    TRUNCATED = "truncated"
    WRONG_LENGTH = "wrong-length"
    BIT_FLIPPED = "bit-flipped"
    WRONG_SIGNATURE = "wrong-signature"
    UNKNOWN_CLIENT = "unknown-client"
    REVOKED_CLIENT = "revoked-client"
    WRONG_ROLE = "wrong-role"
    WRONG_ROSTER = "wrong-roster"
    WRONG_SUITE = "wrong-suite"
    WRONG_PARAMETERS = "wrong-parameters"
    WRONG_FEDERATION = "wrong-federation"
    WRONG_PHASE = "wrong-phase"
    WRONG_POOLS = "wrong-pools"
    WRONG_CHUNK = "wrong-chunk"
    STALE = "stale"
    FUTURE = "future"
    REPLAYED = "replayed"
    DUPLICATE = "duplicate"
    RE_KEYED = "re-keyed"
    WRONG_KEY = "wrong-key"
    NOISE_BUDGET = "noise-budget"
    OUT_OF_RANGE = "out-of-range"
    NOT_ON_GRID = "not-on-grid"
    ROLLED_BACK = "rolled-back"
    OTHER_PLAN = "other-plan"
    AGAINST_POLICY = "against-policy"
    OTHER_START = "other-start"
    OLDER_PLACE = "older-place"
    REPEATED = "repeated"
    NO_KEY = "no-key"
    OVER_BUDGET = "over-budget"
    NO_ANSWER = "no-answer"


class RefusedError(SecureSumError):
    """A message, ciphertext or key that is refused; `reason` says why in one stable word."""

    def __init__(
        self, reason: Reason, problem: str, field: str, value: object, remedy: str
    ) -> None:
        self.reason = reason
        super().__init__(f"{problem} [{reason}]", field, value, remedy)
