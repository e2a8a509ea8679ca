"""Secrecy of rounds whose set-up rides on the round before; each test fails on a planted fault.

(b) Each mask stream a variable: what a coalition holds of two rounds spans only both rounds' sums.
(c) Lengths, order and headers are those of every other choice.
(e) Nothing is used twice, and no share leaves before its round.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import cycle, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from secure_sum.faults import Fault, ToyRound
from secure_sum.riding import Riding
from secure_sum.round_helpers import make_vectors, read_end
from secure_sum.test_secrecy_of_rounds import envelopes
from secure_sum.test_secrecy_span import echelon

from secure_fl.crypto.envelope import Phase, read_header
from secure_fl.crypto.key_streams import WORDS, Slots, Terms
from secure_fl.secure_sum import setup
from secure_fl.secure_sum.blocks import BlockShape
from secure_fl.secure_sum.messages import (
    Advertise,
    Boxes,
    Revealed,
)
from secure_fl.secure_sum.plan import RoundPlan

SHAPE = BlockShape(pools=3, width=4)
ME = "client-0000"


@pytest.fixture(autouse=True)
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here is about power cuts."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


# (b) Two rounds, each mask stream a variable


SEEDS_AGAIN, PAIRS_AGAIN, KEY_AGAIN = "self seeds", "pair seeds", "mask keys"


@dataclass(frozen=True)
class TwoRounds:
    """Two rounds of the mask algebra, the second one's seeds drawn while the first one runs."""

    first: ToyRound
    second: ToyRound
    fault: str = ""

    def name(self, number: int, seed: bytes) -> bytes:
        again = SEEDS_AGAIN if seed.startswith(b"b") else PAIRS_AGAIN
        return seed if self.fault == again else seed + b" in round %d" % number

    def streams(self, number: int, masks: dict[bytes, int]) -> Callable[[Slots, Terms, int], None]:
        def add(vector: Slots, terms: Terms, modulus: int) -> None:
            for seed, sign in terms:
                vector[masks[self.name(number, seed)]] += np.uint64(sign % modulus)

        return add

    def revealed(self) -> set[bytes]:
        rounds = (self.first, self.second)
        known = {self.name(n, seed) for n, toy in enumerate(rounds) for seed in toy.revealed()}
        if self.fault == KEY_AGAIN:
            exposed = {d for toy in rounds for d in toy.dropped}
            for d, n, block in product(exposed, range(2), range(self.first.blocks)):
                others = set(range(self.first.clients)) - {d}
                known |= {self.name(n, self.first.pair_seed(d, j, block)) for j in others}
        return known

    def learnt(self) -> tuple[np.ndarray, np.ndarray]:
        """What is held without masks, and what is meant to be, over both rounds' inputs."""
        rounds, cells = (self.first, self.second), self.first.cells
        inputs = {(n, *cell): n * len(cells) + k for n in range(2) for k, cell in enumerate(cells)}
        seeds = sorted({self.name(n, seed) for n, toy in enumerate(rounds) for seed in toy.seeds()})
        masks = {seed: len(inputs) + k for k, seed in enumerate(seeds)}
        width, rows, meant = len(inputs) + len(masks), list[Slots](), list[Slots]()
        for n, toy in enumerate(rounds):
            streams, sent = self.streams(n, masks), dict[tuple[int, int], Slots]()
            for cell in cells:
                unit = np.zeros(width, np.uint64)
                unit[inputs[n, *cell]] = 1
                sent[cell] = toy.upload(*cell, unit, WORDS, streams)
            rows += sent.values()
            for block in toy.opened:
                total = np.sum([sent[i, block] for i in toy.survivors], axis=0, dtype=np.uint64)
                rows.append(total - toy.opening(block, width, WORDS, streams))
                meant.append(np.zeros(width, np.uint64))
                meant[-1][[inputs[n, i, block] for i in toy.survivors if i in toy.honest]] = 1
        matrix = np.array(rows).view(np.int64)
        matrix[:, [masks[seed] for seed in self.revealed()]] = 0
        own = [(n, i, block) for n, i, block in inputs if i in self.first.coalition]
        matrix[:, [inputs[cell] for cell in own]] = 0
        count = len(inputs)
        reduced = echelon(np.hstack([matrix[:, count:], matrix[:, :count]]))
        free = reduced[~reduced[:, : len(masks)].any(axis=1), len(masks) :]
        wanted = np.array(meant, np.uint64).reshape(-1, width).view(np.int64)[:, :count]
        return echelon(free), echelon(wanted)


def two_rounds(fault: str = "") -> list[TwoRounds]:
    everyone, found = (0, 1, 2, 3), []
    sets = [everyone, (0, 1, 2), (1, 2, 3)]
    for first, second, coalition in product(sets, sets, [(), (2,)]):
        for opened in ((), (0,), (0, 1)):
            earlier = ToyRound(4, 2, first, (0, 1), coalition)
            later = ToyRound(4, 2, second, opened, coalition)
            found.append(TwoRounds(earlier, later, fault))
    return found


def test_of_two_rounds_only_their_opened_sums_are_learnt() -> None:
    for both in two_rounds():
        learnt, meant = both.learnt()
        assert np.array_equal(learnt, meant), both


@pytest.mark.parametrize("fault", [SEEDS_AGAIN, PAIRS_AGAIN, KEY_AGAIN])
def test_what_both_rounds_would_share_is_found(fault: str) -> None:
    assert any(not np.array_equal(*both.learnt()) for both in two_rounds(fault))


def test_faults_within_a_round_are_found_across_two() -> None:
    for fault in (Fault.NO_SELF_MASK, Fault.REUSED_SELF_SEED, Fault.SHARED_PAIR_SEED):
        both = two_rounds()[-1]
        assert not np.array_equal(*replace(both, second=replace(both.second, fault=fault)).learnt())


# (c) The same outside


def outside(riding: Riding) -> list[tuple[object, ...]]:
    names = ("body_hash", "key_fingerprint", "roster_digest")
    blank: dict[str, Any] = dict.fromkeys(names, bytes(32))
    seen: list[tuple[object, ...]] = []
    for sender, recipient, data in riding.sent:
        headers = (replace(read_header(part), **blank) for part in envelopes(data))
        seen.append((sender, recipient, len(data), *headers))
    return seen


def recorded(folder: Path, choices: tuple[int, ...]) -> Riding:
    riding = Riding.of(folder, SHAPE, threshold=3)
    for number in range(2):
        vectors = make_vectors(SHAPE, dict(zip(riding.clients, choices, strict=True)), seed=number)
        riding.start(riding.plan(number), riding.plan(number + 1))
        riding.run(vectors)
    return riding


CHOICES = [(0, 0, 1, 2), (2, 0, 1, 0), (1, 2, 0, 0)]


def test_riding_shows_no_choice(tmp_path: Path) -> None:
    views = [outside(recorded(tmp_path / str(n), each)) for n, each in enumerate(CHOICES)]
    assert views[0] == views[1] == views[2]


def test_a_choice_that_decides_when_keys_are_sent_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: clients of pool 0 prepare before they upload, others after it."""

    start_honestly, upload_honestly = Riding.start, Riding.uploads

    def start(self: Riding, plan: RoundPlan, ahead: RoundPlan | None = None, **_: Any) -> None:
        if plan.round == 0:
            return start_honestly(self, plan, ahead)
        self.server.begin(plan)
        self.server.prepare(self.plan(plan.round + 1))
        for name, client in self.clients.items():
            self.give(name, client.begin(plan))
        return None

    def uploads(self: Riding, vectors: Any, silent: Any = ()) -> None:
        number = self.server.current.plan.round
        if number == 0:
            return upload_honestly(self, vectors, silent)
        for name, vector in vectors.items():
            client = self.clients[name]
            words = client.prepare(self.plan(number + 1))
            upload = [bytes(client.current.upload(vector))]
            self.give(name, [*words, *upload] if vector.head[0] else [*upload, *words])
        return None

    monkeypatch.setattr(Riding, "start", start)
    monkeypatch.setattr(Riding, "uploads", uploads)
    views = [outside(recorded(tmp_path / str(n), each)) for n, each in enumerate(CHOICES[:2])]
    assert views[0] != views[1]


# (e) Nothing twice


def used(riding: Riding) -> Counter[tuple[str, bytes]]:
    """What clients sent to the server."""
    return values_in(
        data
        for sender, recipient, data in riding.sent
        if recipient == "server" and sender.startswith("client")
    )


def values_in(messages: Iterable[bytes]) -> Counter[tuple[str, bytes]]:
    """Every public key, commitment, box and block of upload in clients' messages of rounds."""
    found = Counter[tuple[str, bytes]]()
    for data in messages:
        for part in envelopes(data):
            header, body = read_header(part), part[read_end(part) :]
            if header.phase == Phase.ADVERTISE:
                keys = Advertise.decode(body)
                found.update(("key", each) for each in (keys.sealing, keys.masking))
                found[("commitment", keys.commitment)] += 1
            elif header.phase == Phase.SHARE and header.chunk == 0:
                found.update(("box", box) for _, box in Boxes.decode(body).boxes)
            elif header.phase == Phase.UPLOAD:
                found[("block", body)] += 1
    return found


def test_nothing_of_a_prepared_round_was_used_before(tmp_path: Path) -> None:
    found = used(recorded(tmp_path, CHOICES[0]))
    assert max(found.values()) == 1
    kinds = Counter(kind for kind, _ in found)
    assert kinds == {"key": 3 * 4 * 2, "commitment": 3 * 4, "box": 3 * 4 * 3, "block": 2 * 4 * 4}


def test_keys_kept_for_the_next_round_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: a client that draws its keys once."""
    drawn = cycle([setup.X25519PrivateKey.generate() for _ in range(16)])

    class Again:
        generate = staticmethod(lambda: next(drawn))

    monkeypatch.setattr(setup, "X25519PrivateKey", Again)
    found = used(recorded(tmp_path, CHOICES[0]))
    assert {kind for (kind, _), count in found.items() if count > 1} == {"key"}


def shares_of(riding: Riding) -> dict[int, set[bytes]]:
    """Shares that went to the server, by the number in their message's header."""
    found: dict[int, set[bytes]] = {}
    for sender, recipient, data in riding.sent:
        if recipient == "server" and sender.startswith("client") and data[:4] == b"SFE1":
            header = read_header(data)
            if "OPEN" in header.phase.name:
                shares = Revealed.decode(data[read_end(data) :]).shares
                found.setdefault(header.round, set()).update(share for *_, share in shares)
    return found


def test_no_share_of_the_prepared_round_leaves_while_the_other_runs(tmp_path: Path) -> None:
    riding = Riding.of(tmp_path, SHAPE, threshold=3)
    riding.start(riding.plan(0), riding.plan(1))
    riding.run(make_vectors(SHAPE, dict.fromkeys(riding.clients, 0)))
    shown = shares_of(riding)
    assert set(shown) == {0}
    ahead = [client._ahead for client in riding.clients.values()]
    rows = [row for each in ahead if each is not None for row in each._state.rows.values()]
    assert len(rows) == 16
    assert not shown[0] & {share for row in rows for share in row}
