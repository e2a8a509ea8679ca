"""What a round of a run costs in bytes, read off small rounds of parties with made-up answers.

Every kind of message is counted apart. A party's message is of a length that grows in a straight
line with those whom it tells of; two small rounds, of few clients and of half as many, show it. The
widths are the layout's own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from secure_fl.config import FederationConfig
from secure_fl.crypto.envelope import Phase
from secure_fl.estimate.small_federation import Sent, Size, SmallFederation, SmallRound
from secure_fl.federation.program import SumForm
from secure_fl.secure_sum.block_codec import body_bytes
from secure_fl.secure_sum.blocks import BlockShape
from secure_fl.secure_sum.plan import RoundPlan
from secure_fl.secure_sum.sizes import sum_bytes

SMALL_WIDTH = 64
"""Fields of a pool in a small round."""
_SMALL_SUM, _SMALL_GROUPS, _FEWEST = 8, 2, 3
"""Clients of a small round's sum, its sums at most, and the fewest clients of a masked one."""
_FRAME = 8
"""Bytes before each of several messages in one."""


@dataclass(frozen=True)
class Federated:
    """What a round's bytes depend on beside its form.

    Attributes:
        config: of the federation.
        clients: that are in it, called or not.
        state: bytes of the models before the round.
        after: and after it.
        ends: which share of such rounds is the federation's last.
        late: clients of a round, in the mean, who were not in the one before.
        asked: share of rounds that have such clients.
    """

    config: FederationConfig
    clients: int
    state: int
    after: int
    ends: float = 0.0
    late: float = 0.0
    asked: float = 0.0


def narrow(shape: BlockShape) -> BlockShape:
    """A shape of as many blocks, with few fields in each."""
    return replace(shape, width=SMALL_WIDTH, shared=min(shape.shared, SMALL_WIDTH))


class SumCosts:
    """Bytes of rounds; small ones are run once."""

    def __init__(self) -> None:
        self._rounds = dict[tuple[object, ...], SmallRound]()

    def of(self, federated: Federated, form: SumForm, size: Size) -> tuple[int, int]:
        """Bytes down and up of one round of this form and size, every pool opened."""
        config, most = federated.config, Size(_SMALL_GROUPS, _SMALL_SUM)
        few = Size(min(size.groups, most.groups), min(size.each, most.each))
        half = Size(few.groups, max(few.each // 2, min(few.each, _FEWEST)))
        near = self._small(config, form, few)
        degree = None
        if config.security.protection != "plain":
            degree = config.security.sums(size.each, config.privacy.colluders).degree
        holders = size.each if degree is None else degree + 1
        same = few.each == size.each == holders or few == half
        far = near if same else self._small(config, form, half)
        sent = _of_sums(near.sent, far.sent, few, half, size, holders)
        _widen(sent, near.plan, replace(near.plan, shape=form.shape), size)
        _around(sent, near, few, size, form.shape)
        for authority in (False, True):
            told = near.sent[Phase.END, False, authority] / (1 if authority else few.clients)
            everybody = 1 if authority else federated.clients
            sent[Phase.END, False, authority] = round(federated.ends * everybody * told)
        _bring_states(sent, near.sent, federated, few, size)
        down, up = (
            sum(count for (_, to_server, _), count in sent.items() if to_server == wanted)
            for wanted in (False, True)
        )
        return round(down), round(up)

    def _small(self, config: FederationConfig, form: SumForm, size: Size) -> SmallRound:
        shape = narrow(form.shape)
        opening = replace(form.opening, group_seed=b"", group_size=None, bound=1)
        key = (shape, opening, size)
        if key not in self._rounds:
            self._rounds[key] = SmallFederation(config, size, [shape], opening).run()
        return self._rounds[key]


def _of_sums(near: Sent, far: Sent, few: Size, half: Size, size: Size, holders: int) -> Sent:
    """What the sums send, by kind of message, with narrow blocks.

    What clients say, and shares, is as long as those they share masks with; the rest as all of
    their sum.
    """
    sent, slope = Sent(), 0.0
    for (phase, up, authority), count in near.items():
        if phase >= Phase.HELLO:
            continue
        key = (phase, up, authority)
        messages, of_half, of_all = (
            one.groups * (1 if authority else one.each) for one in (few, half, size)
        )
        if far is not near:
            slope = (count / messages - far[key] / of_half) / (few.each - half.each)
        told = holders if phase == Phase.SHARE or up else size.each
        sent[key] = round(of_all * (count / messages + slope * (told - few.each)))
    return sent


def _widen(sent: Sent, small: RoundPlan, real: RoundPlan, size: Size) -> None:
    """Bodies of all uploads, and of sums for everybody who opens them."""
    blocks, by_authority = range(real.shape.blocks), real.opener == "authority"
    bodies = sum(body_bytes(real, block) - body_bytes(small, block) for block in blocks)
    sums = sum(sum_bytes(real, block) - sum_bytes(small, block) for block in blocks[1:])
    sent[Phase.UPLOAD, True, False] += size.clients * bodies
    openers = size.groups if by_authority else size.clients
    phase = Phase.OPEN_POOLS if by_authority else Phase.APPLY
    sent[phase, False, by_authority] += openers * sums


def _around(sent: Sent, near: SmallRound, few: Size, size: Size, shape: BlockShape) -> None:
    """Calls, now and ahead, and what groups tell each other of their sums."""
    opened = 4 * (fields_of(shape) - fields_of(near.plan.shape))
    applied, result = (
        near.sent[phase, True, False] / few.clients + _FRAME
        for phase in (Phase.APPLY, Phase.RESULT)
    )
    for (phase, up, authority), count in near.sent.items():
        peers = (1, 1) if authority else (few.clients, size.clients)
        whole = count / peers[0]
        if phase in (Phase.GIVE, Phase.PART):
            wider = opened if phase == Phase.PART else 0
            sent[phase, up, authority] = round(size.groups * (count / few.groups + wider))
        elif phase == Phase.PARTS and not authority:
            part = whole / few.groups + (size.each - few.each) * applied + opened
            sent[phase, up, authority] = round(peers[1] * size.groups * part)
        elif phase == Phase.RESULTS:
            more = (size.clients - few.clients) * result
            sent[phase, up, authority] = round(peers[1] * (whole + more))
        elif phase in (Phase.BEGIN, Phase.RESULT, Phase.PARTS):
            sent[phase, up, authority] = round(peers[1] * whole)
    if near.plan.masked:  # the only round of a small federation prepares none
        called = near.sent[Phase.BEGIN, False, False] / few.clients
        sent[Phase.PREPARE, False, False] = round(size.clients * called)


def _bring_states(sent: Sent, near: Sent, federated: Federated, few: Size, size: Size) -> None:
    """Models: from the authority to all; else, from one who was called before, to who was not."""
    raw, call = near[Phase.STATE, True, True], near[Phase.BEGIN, False, False] / few.clients
    if raw:
        one = raw + federated.after
        sent[Phase.STATE, True, True] = one
        each = near[Phase.STATE, False, False] // few.clients
        sent[Phase.STATE, False, False] = federated.clients * (each + federated.after)
        return
    late = federated.late
    phase = Phase.RESULT if size.groups > 1 else Phase.APPLY
    signed = size.clients * (near[phase, True, False] / few.clients + _FRAME)
    if late > 0:
        sent[Phase.WANT, True, False] = round(late * call)
        asked = federated.asked  # once a round, for all of them
        sent[Phase.GIVE, False, False] += round(asked * call)
        sent[Phase.STATE, True, False] = round(asked * (call + federated.state))
        sent[Phase.STATE, False, False] = round(late * (call + signed + federated.state))


def fields_of(shape: BlockShape) -> int:
    """How many integers one client sends."""
    return sum(shape.fields(block) for block in range(shape.blocks))
