"""What an implementation of the parties could get wrong while every honest sum stays right."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from hashlib import sha256
from typing import Any
from unittest.mock import PropertyMock, patch

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from torch import Tensor

from secure_fl.audit.check import Fault
from secure_fl.config import FederationConfig
from secure_fl.crypto import shares
from secure_fl.crypto.envelope import Phase, sign_envelope
from secure_fl.errors import SecureSumError
from secure_fl.privacy.client_level import ClientLevel
from secure_fl.secure_sum import client as round_client
from secure_fl.secure_sum import counts, graph, key_directory, store
from secure_fl.secure_sum import opener as holders
from secure_fl.secure_sum import plan as round_plan
from secure_fl.secure_sum.block_codec import open_sum
from secure_fl.secure_sum.blocks import BlockVector
from secure_fl.secure_sum.client import RoundClient
from secure_fl.secure_sum.fixed_point import Codec, rounded
from secure_fl.secure_sum.framing import frames, unframe
from secure_fl.secure_sum.masks import UsedSeeds, pair_seeds
from secure_fl.secure_sum.messages import Advertise, RoundReason
from secure_fl.secure_sum.plan import RoundPlan
from secure_fl.secure_sum.setup import ClientSetup
from secure_fl.secure_sum.steps import ClientStep

Planting = Callable[[], AbstractContextManager[object]]


def masked() -> FederationConfig:
    """Seven clients and two pools; sums under masks alone, which is quickest."""
    return FederationConfig.model_validate(
        {
            "partition": {"clients": 7, "kind": "iid"},
            "pools": {"count": 2, "start": "random"},
            "security": {"protection": "masked"},
        }
    )


def client_level() -> FederationConfig:
    """Clients whose whole updates are clipped and noised together."""
    return FederationConfig.model_validate(
        {
            "partition": {"clients": 12, "kind": "iid"},
            "pools": {"enabled": False},
            "privacy": {"unit": "client", "noise": 4.0, "epsilon": 10_000.0},
            "security": {"protection": "masked"},
        }
    )


def noised_pools() -> FederationConfig:
    """Two pools whose counts are noised, in sums under masks."""
    return FederationConfig.model_validate(
        {
            "partition": {"clients": 12, "kind": "iid"},
            "pools": {"count": 2, "start": "random"},
            "privacy": {"unit": "client", "noise": 2.0, "epsilon": 10_000.0},
            "security": {"protection": "masked"},
        }
    )


@contextmanager
def _all_of(*plantings: AbstractContextManager[Any]) -> Iterator[None]:
    with ExitStack() as stack:
        for each in plantings:
            stack.enter_context(each)
        yield


def mask_off() -> AbstractContextManager[object]:
    """Vectors are uploaded as they are."""
    return patch.object(RoundClient, "_mask_terms", lambda *_: ())


def mask_again() -> AbstractContextManager[object]:
    """Seeds and keys come again in every round, and nothing of a round is in what follows them."""
    honest, pairs = ClientSetup.advertise, pair_seeds

    def again(self: ClientSetup) -> bytes:
        honest(self)
        name, state = self.name.encode(), self._state
        state.self_seeds = [
            sha256(b"self %d " % block + name).digest() for block in range(len(state.self_seeds))
        ]
        state.masking = X25519PrivateKey.from_private_bytes(sha256(b"pair " + name).digest())
        state.answers = (self._sign(Phase.ADVERTISE, self._public().encode()),)
        return state.answers[0]

    def any_round(own: Any, theirs: Any, **facts: Any) -> list[bytes]:
        return pairs(own, theirs, **facts | {"round_number": 0})

    return _all_of(
        patch.object(ClientSetup, "advertise", again),
        patch.object(key_directory, "pair_seeds", any_round),
        patch.object(UsedSeeds, "spend", lambda *_: None),
    )


def _uploads(change: Callable[[RoundClient, int, list[bytes]], list[bytes]]) -> Planting:
    honest = RoundClient.upload

    def planted(self: RoundClient, vector: BlockVector) -> memoryview:
        choice = int(np.argmax(vector.head))
        parts = [bytes(part) for part in unframe(bytes(honest(self, vector)))]
        return memoryview(frames(change(self, choice, parts)))

    return lambda: patch.object(RoundClient, "upload", planted)


def _in_header(client: RoundClient, choice: int, parts: list[bytes]) -> list[bytes]:
    header = client.plan.header(Phase.UPLOAD, client.name, chunk=0, chunks=len(parts))
    named = replace(header, parameters=f"pool-{choice}")
    return [sign_envelope(client._identity, named, parts[0]), *parts[1:]]


def _in_length(_: RoundClient, choice: int, parts: list[bytes]) -> list[bytes]:
    return [*parts[:-1], parts[-1] + bytes(choice)]


def _chosen_first(client: RoundClient, choice: int, parts: list[bytes]) -> list[bytes]:
    first = client.plan.shape.first_pool + choice
    return [
        parts[0],
        parts[first],
        *(each for at, each in enumerate(parts) if at not in (0, first)),
    ]


def truncated_cohort() -> AbstractContextManager[object]:
    """Thresholds follow the list that the server shows."""
    two = partial(PropertyMock, return_value=2)
    return _all_of(
        *(patch.object(each, "check_threshold", lambda *_: None) for each in _CHECKED),
        patch.object(RoundPlan, "survivors_needed", new_callable=two),
        patch.object(RoundPlan, "shares_needed", new_callable=two),
    )


_CHECKED = (round_plan, graph, shares)


def counts_believed() -> AbstractContextManager[object]:
    """Whoever opens takes anybody's word for the counts: every pool has members enough."""

    def believed(book: Any, *_: Any) -> Any:
        return np.full(book.plan.shape.head_fields, book.plan.minimum * book.plan.count_unit)

    return patch.object(round_client, "proved_head", believed)


def minimum_ignored() -> AbstractContextManager[object]:
    """Every pool passes that has a member."""

    def passing(self: RoundPlan, head: Any, _: int) -> tuple[int, ...]:
        return tuple(pool for pool in range(self.shape.pools) if int(head[pool]) >= 1)

    return patch.object(RoundPlan, "passing", passing)


def survivors_switched() -> AbstractContextManager[object]:
    """Clients reveal what the request names, whatever they signed."""
    honest = RoundClient._reveal

    def unchecked(self: RoundClient, request: Any) -> None:
        self._gullible = [(round_client.MASK_KEY, owner) for owner in request.dropped]  # type: ignore[attr-defined]

    def reveal(self: RoundClient, phase: Phase, passing: tuple[int, ...], wanted: Any) -> bytes:
        asked = dict.fromkeys([*wanted, *getattr(self, "_gullible", [])])
        return honest(self, phase, passing, list(asked))

    return _all_of(
        patch.object(RoundClient, "_same_sets", unchecked),
        patch.object(RoundClient, "_reveal", reveal),
    )


def one_share_fewer() -> AbstractContextManager[object]:
    """One share less than the settings say opens a client's secrets."""
    honest = vars(RoundPlan)["shares_needed"].fget
    fewer = property(lambda plan: honest(plan) - 1)
    return patch.object(RoundPlan, "shares_needed", fewer)


def signed_again() -> AbstractContextManager[object]:
    """A client signs whatever set of survivors it is shown, as often as it is shown one."""
    honest = RoundClient._agree

    def agree(self: RoundClient, data: bytes) -> bytes:
        state = self._state
        state.seen = type(state.seen)()
        if state.step > ClientStep.UPLOADED:
            state.step = ClientStep.UPLOADED
        return honest(self, data)

    return patch.object(RoundClient, "_agree", agree)


def signatures_unread() -> AbstractContextManager[object]:
    """Nobody counts who signed the set of survivors."""
    return patch.object(round_client, "check_agreed", lambda *_: None)


def forks_unseen() -> AbstractContextManager[object]:
    """Nobody compares what was opened."""
    return patch.object(RoundClient, "_confirm", lambda *_: None)


def opened_twice() -> AbstractContextManager[object]:
    """Clients forget of which answers they opened a sum."""
    return patch.object(store, "refuse_opened", lambda *_: None)


def low_order() -> AbstractContextManager[object]:
    """Keys of a round are taken as they come."""
    return patch.object(Advertise, "check", lambda *_: None)


def still_masked() -> AbstractContextManager[object]:
    """Nobody looks behind the fields of an opened sum, or at their range."""
    honest = open_sum

    def unguarded(plan: Any, cipher: Any, block: int, body: bytes, survivors: int) -> Any:
        try:
            return honest(plan, cipher, block, body, survivors)
        except SecureSumError as error:
            if getattr(error, "reason", "") not in (RoundReason.STILL_MASKED, "out-of-range"):
                raise
        return np.zeros(plan.shape.fields(block), np.int64)

    return patch.object(holders, "open_sum", unguarded)


def over_norm() -> AbstractContextManager[object]:
    """Nothing is cut to the clamp."""

    def quantise(self: Codec, values: Tensor, out: Tensor) -> None:
        out[:] = rounded(values.double() * self.scale)

    return patch.object(Codec, "quantise", quantise)


def unclipped() -> AbstractContextManager[object]:
    """An update's norm is not looked at."""

    def encode(self: ClientLevel, update: Tensor, bound: float | None = None, **_: Any) -> Tensor:
        scale = self.levels / (self.bound if bound is None else bound)
        return (update.double() * scale).long()

    return patch.object(ClientLevel, "encode", encode)


def range_unread() -> AbstractContextManager[object]:
    """Opened sums may be as large as their fields."""
    honest = open_sum

    def wide(plan: RoundPlan, *rest: Any) -> Any:
        return honest(replace(plan, bound=None, head_bound=None), *rest)

    return patch.object(holders, "open_sum", wide)


def _unread(*_: object) -> None:
    """A check that looks at nothing."""


def minimum_of_two() -> AbstractContextManager[object]:
    """A pool opens with a member less than the settings say."""
    honest = RoundPlan.passing

    def passing(self: RoundPlan, head: Any, survivors: int) -> tuple[int, ...]:
        lower = replace(self, minimum=max(1, self.minimum - 1))
        return honest(lower, head, survivors)

    return patch.object(RoundPlan, "passing", passing)


def half_a_member_less() -> AbstractContextManager[object]:
    """Noised counts pass from half a member below the minimum on."""
    honest = RoundPlan.passing

    def passing(self: RoundPlan, head: Any, survivors: int) -> tuple[int, ...]:
        return honest(self, np.asarray(head) + self.count_unit // 2, survivors)

    return patch.object(RoundPlan, "passing", passing)


def _faults(check: str, *planted: tuple[str, Planting]) -> Sequence[Fault]:
    return [Fault(name, check, masked, plant) for name, plant in planted]


FAULTS = (
    *_faults("masks", ("mask off", mask_off), ("masks that come again", mask_again)),
    *_faults(
        "choice-hidden",
        ("choice in a header", _uploads(_in_header)),
        ("choice in a length", _uploads(_in_length)),
        ("choice in an order", _uploads(_chosen_first)),
    ),
    *_faults(
        "cohort",
        ("truncated cohort accepted", truncated_cohort),
        ("a share fewer than stated", one_share_fewer),
    ),
    *_faults(
        "liar",
        ("truncated cohort gone along with", truncated_cohort),
        ("claimed counts believed", counts_believed),
        ("minimum of a pool ignored", minimum_ignored),
        ("survivor set switched accepted", survivors_switched),
        ("a second survivor set signed", signed_again),
        ("signatures unread", signatures_unread),
        ("forks unseen", forks_unseen),
        ("sums opened twice", opened_twice),
        ("keys of low order taken", low_order),
        ("sums opened that are still masked", still_masked),
    ),
    *_faults(
        "poisoner",
        ("over-norm update accepted", over_norm),
        ("sums beyond all clamps opened", range_unread),
        ("clients that count twice", partial(patch.object, counts, "_check_exact", _unread)),
    ),
    Fault("unclipped update accepted", "poisoner", client_level, unclipped),
    *_faults("pool-mate", ("pools opened a member short", minimum_of_two)),
    Fault("noised pools opened half a member short", "pool-mate", noised_pools, half_a_member_less),
)
"""Of checks of the protocol."""
