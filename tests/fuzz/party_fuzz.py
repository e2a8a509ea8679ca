"""Fuzzing of what a federation's parties receive.

    python -m fuzz.party_fuzz 1000000          (from tests/, with the package on the path)

Two kinds of bytes. Those that nobody signed as they are must leave a party as it was, and are
answered by nothing but a signed refusal. Those that a member with a valid key signed may be taken,
and then move the party; they may raise nothing, take long or fill memory.
"""

from __future__ import annotations

import json
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from federation.parties.toy_federation import Made, identities, make

from secure_fl.crypto.envelope import Phase, read_header, sign_envelope
from secure_fl.errors import SecureFLError
from secure_fl.federation.party import Party
from secure_fl.federation.wire import route
from secure_fl.secure_sum.framing import frames, unframe

STAGES: list[tuple[Phase | None, int]] = [
    (None, 0),
    (Phase.JOIN, 0),
    (Phase.SECRET, 0),
    (Phase.ADVERTISE, 0),
    (Phase.SHARE, 0),
    (Phase.SHARE, 1),
    (Phase.UPLOAD, 0),
    (Phase.AGREE, 0),
    (Phase.OPEN_COUNTS, 0),
    (Phase.OPEN_POOLS, 0),
    (Phase.APPLY, 0),
    (Phase.END, 0),
]
"""Where parties are stopped: before the second message of a kind that goes out. None: at once."""
MOST_MEMORY = 256 << 20
"""Bytes by which the process may grow while it is fuzzed."""
MOST_SECONDS = 5.0
"""That one message may take."""
_LENGTH_AT, _PHASE_AT, _ROUND_AT = 15, 4, 5


class StopError(Exception):
    """The stage is reached."""


@dataclass
class Target:
    """Parties in one stage of a run, and messages to make others from."""

    made: Made
    seeds: list[bytes] = field(default_factory=list)
    parties: list[Party] = field(default_factory=list)


def whole_run(kind: tuple[str, str], people: Any) -> list[bytes]:
    """Everything that is sent in a run to its end."""
    sent = list[bytes]()

    def heard(sender: str, to: str, data: bytes | memoryview) -> bytes | memoryview:
        sent.append(bytes(data))
        return data

    make(4, *kind, rounds=2, people=people).run(heard)
    return sent


def target_at(
    stage: tuple[Phase | None, int], kind: tuple[str, str], people: Any, whole: list[bytes]
) -> Target:
    """All parties, stopped in a stage; what was sent in another run, and then so far in this."""
    target, count = Target(make(4, *kind, rounds=2, people=people), [*whole]), [0]

    def tap(sender: str, to: str, data: bytes | memoryview) -> bytes | memoryview:
        target.seeds.append(bytes(data))
        header = route(data)
        if stage[0] is None or (header.phase, header.chunk) == stage:
            count[0] += 1
            if count[0] == 2 or stage[0] is None:
                raise StopError
        return data

    with suppress(StopError):
        target.made.run(tap)
    made = target.made
    target.seeds.append(made.signed)
    more = [made.authority] if made.authority is not None else []
    target.parties = [made.server, made.clients[1], *more]
    return target


def footprint(party: Any) -> object:
    """What a party has come to; what it has refused is not a part of it."""
    if hasattr(party, "stage"):
        attempt = party._attempt
        sums = (
            []
            if attempt is None
            else [
                (one.step, sorted(one.waiting), dict(one.uploads), one.survivors, dict(one.signed))
                for one in attempt.sums
            ]
        )
        keys = party._keys
        return repr((
            party.stage, party.number, party.place, party.state, party._members, party._declined,
            sums, attempt and sorted(attempt.gone), keys.current, keys.maker, keys.fingerprint,
            party._states.claim, party._states.sealed, party._until,
        ))  # fmt: skip
    state = None if party.state is None else party.state.digest
    if hasattr(party, "_progress"):
        progress, seat = party._progress, party._seat
        running = None if progress.round is None else progress.round._round._state.encode()
        keyring = None if seat is None else seat.keyring
        facts = [progress.head, progress.last, progress.begun, progress.over, running]
    else:
        keyring = party._keyring
        facts = [party._call, party.over]
        facts += [(name, one._state.encode()) for name, one in party._sums.items()]
    keys_ = None if keyring is None else (keyring.fingerprint, keyring.secret)
    return repr((state, keys_, facts, party.due))


def chosen(seeds: list[bytes], coins: random.Random) -> bytes:
    """One of them; half the time one of the last, which belong to the stage."""
    return coins.choice(seeds[-12:] if coins.random() < 0.5 else seeds)


def unsigned(seeds: list[bytes], coins: random.Random) -> bytes:
    """Bytes that nobody signed: a message with something changed, or none at all."""
    data = bytearray(chosen(seeds, coins))
    how = coins.randrange(8)
    if how == 0:
        return coins.randbytes(coins.randrange(600))
    if how == 1:
        return bytes(data[: coins.randrange(len(data))])
    if how == 2:
        return bytes(data) + coins.randbytes(1 + coins.randrange(64))
    if how == 3:  # the head of one, the body of another
        other = coins.choice(seeds)
        return bytes(data[: coins.randrange(len(data))]) + other[coins.randrange(len(other)) :]
    if how == 4:  # a length that is declared, and not there
        start = coins.choice([0, 12])
        size = coins.choice([1 << 63, (1 << 64) - 1, 1 << 40, 1 << 31, coins.randrange(1 << 24)])
        data[start + _LENGTH_AT : start + _LENGTH_AT + 8] = size.to_bytes(8, "little")
        return bytes(data)
    if how == 5:  # the frame around an upload, or the header's numbers
        at = coins.randrange(24)
        data[at : at + 1] = coins.randbytes(1)
    for _ in range(coins.choice([1, 1, 2, 8])):
        at = coins.randrange(len(data))
        data[at] ^= 1 + coins.randrange(255)
    return bytes(data)


ODD: list[Any] = [
    None, True, -1, 0, 1 << 31, 1 << 32, 1 << 64, -(1 << 70), 0.5, 1e400, "", "x" * 5000, "\ud800",
    [], {}, [None], [0, 0], [-1, -1], ["client-0001"], ["client-0001"] * 2, {"a": 1}, "ab" * 32,
]  # fmt: skip


def odd_json(data: bytes, coins: random.Random) -> bytes:
    """JSON with one value that is something else, or that is no JSON any more."""
    how = coins.randrange(6)
    if how == 0:
        return b"[" * coins.choice([10, 5_000, 100_000])
    try:
        found = json.loads(data)
    except ValueError:
        return data
    if not isinstance(found, dict):
        return data
    inner = found
    while coins.random() < 0.6:
        below = [value for value in inner.values() if isinstance(value, dict) and value]
        if not below:
            break
        inner = coins.choice(below)
    if how == 1:
        inner[coins.choice(["", "x", "number"])] = 1
    elif inner:
        key = coins.choice(sorted(inner))
        if how == 2:
            del inner[key]
        else:
            inner[key] = coins.choice(ODD)
    text = json.dumps(found, sort_keys=coins.random() < 0.9, separators=(",", ":"))
    return text.encode("utf-8", "surrogatepass")


def odd_body(body: bytes, coins: random.Random) -> bytes:
    """Another body, for a member to sign."""
    how, data = coins.randrange(7), bytearray(body)
    if how <= 2 and len(body) > 4:  # a head in JSON, where there is one
        if body[:1] == b"{":
            return odd_json(body, coins)
        size = int.from_bytes(body[:4], "big")
        if size <= len(body) - 4 and body[4:5] == b"{":
            head = odd_json(body[4 : 4 + size], coins)
            return len(head).to_bytes(4, "big") + head + body[4 + size :]
    if how == 3:
        return bytes(data[: coins.randrange(len(data) + 1)])
    if how == 4:
        return bytes(data) + coins.randbytes(coins.randrange(1, 64))
    if how == 5:
        return coins.randbytes(coins.randrange(300))
    for _ in range(coins.choice([1, 1, 4])):
        if data:
            start = coins.randrange(min(len(data), 64)) if coins.random() < 0.5 else None
            at = coins.randrange(len(data)) if start is None else start
            data[at] = coins.choice([0, 255, 128, data[at] ^ 1, coins.randrange(256)])
    return bytes(data)


def signed(target: Target, coins: random.Random) -> bytes:
    """Bytes that a member signed: a message with another body or header, or of another member."""
    data = chosen(target.seeds, coins)
    try:
        read_header(data)
    except SecureFLError:
        envelopes = [bytes(part) for part in unframe(memoryview(data))]
        at = coins.randrange(len(envelopes))
        envelopes[at] = signed_one(target, envelopes[at], coins)
        return frames(envelopes if coins.random() < 0.8 else envelopes[:at] + envelopes[at + 1 :])
    return signed_one(target, data, coins)


def signed_one(target: Target, data: bytes, coins: random.Random) -> bytes:
    header = read_header(data)
    body = data[len(data) - header.body_length :]
    who = target.made.identities[header.sender]
    if coins.random() < 0.1:
        who = target.made.identities[coins.choice(sorted(target.made.identities))]
    changes: dict[str, Any] = {}
    if coins.random() < 0.3:
        changes = coins.choice([
            {"round": coins.choice([0, 1, 2, 7, (1 << 32) - 1])},
            {"phase": coins.choice(list(Phase))},
            {"pools": coins.randrange(4)},
            {"chunk": 0, "chunks": coins.choice([1, 2, 3])},
            {"key_fingerprint": coins.randbytes(32)},
            {"parameters": coins.choice(["no-plan", "x"])},
        ])  # fmt: skip
    if not changes or coins.random() < 0.5:
        body = odd_body(body, coins)
    fresh = replace(header, sender=who.name, body_length=0, body_hash=bytes(32), **changes)
    return sign_envelope(who, fresh, body)


@dataclass
class Tally:
    """What was tried, and what parties said."""

    messages: int = 0
    signed: int = 0
    slowest: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter)


def give(party: Party, data: bytes, tally: Tally) -> list[Any]:
    """One message; it must not take long."""
    started = time.perf_counter()
    sent = party.receive(data)
    took = time.perf_counter() - started
    tally.messages += 1
    tally.slowest = max(tally.slowest, took)
    assert took < MOST_SECONDS, (party.name, took)
    assert len(sent) <= 16, (party.name, len(sent))
    return sent


def fuzz(
    count: int,
    coins: random.Random,
    kinds: list[tuple[str, str]],
    said: Callable[[str], object] = lambda line: None,
) -> Tally:
    """Give so many messages to parties of these kinds, in every stage in turn."""
    tally, people, begun = Tally(), identities(4), time.perf_counter()
    runs: dict[tuple[str, str], list[bytes]] = {}
    for kind, stage in endless([(kind, stage) for stage in STAGES for kind in kinds]):
        if tally.messages >= count:
            return tally
        if kind not in runs:
            runs[kind] = whole_run(kind, people)
        target = target_at(stage, kind, people, runs[kind])
        start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        share = min(2_000, max(20, count // (4 * len(STAGES) * len(kinds))))
        for party in target.parties:
            fuzz_unsigned(target, party, share, coins, tally)
        for party in target.parties:
            fuzz_signed(target, party, share // 3, coins, tally)
            tally.reasons.update(party.refusals.counts)  # type: ignore[attr-defined]
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start
        assert grown << 10 < MOST_MEMORY, grown
        rate = tally.messages / (time.perf_counter() - begun)
        said(f"{tally.messages} messages, {rate:.0f} a second, slowest {tally.slowest:.3f} s")
    return tally


def fuzz_unsigned(
    target: Target, party: Party, share: int, coins: random.Random, tally: Tally
) -> None:
    before, known = footprint(party), set(target.seeds)
    for _ in range(share):
        data = unsigned(target.seeds, coins)
        if data in known:
            continue
        sent = give(party, data, tally)
        assert all(route(one.data).phase == Phase.REFUSE for one in sent), (party.name, data)
    assert footprint(party) == before, f"{party.name} was moved by what nobody signed"


def fuzz_signed(
    target: Target, party: Party, share: int, coins: random.Random, tally: Tally
) -> None:
    for _ in range(share):
        give(party, signed(target, coins), tally)
        tally.signed += 1
    for moment in (1e3, 1e5, 1e7):
        if party.due is not None:
            party.tick(moment)


def endless(items: list[Any]) -> Iterator[Any]:
    """Them again and again."""
    while True:
        yield from items


KINDS = [
    ("masked", "clients"),
    ("bfv+masked", "clients"),
    ("bfv+masked", "authority"),
    ("plain", "clients"),
]


def main() -> None:
    """As many messages as the command line says."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    started = time.process_time()
    tally = fuzz(count, random.Random(seed), KINDS, print)
    print(f"{tally.messages} messages, {tally.signed} of them signed by a member,")
    print(f"in {time.process_time() - started:.0f} s of processor time; refused:", tally.reasons)


if __name__ == "__main__":
    main()
