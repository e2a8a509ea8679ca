"""Fuzzing of what a federation's parties receive.

    python -m fuzz.party_fuzz 1000000 1        (from tests/, with the package on the path)

Whole federations run, of every kind, with everybody there or with one who falls silent. Before a
message is delivered its reader is given others in its place:

- bytes that nobody signed as they are, to the party itself. They are answered by nothing but a
  signed refusal, they leave it as it was, and the run comes to its end as if they had not been.
- what members with valid keys signed, to copies of the party, some of which are then told the right
  message and that time passes. It may be taken and move the copy; it may raise nothing, take long
  or fill memory, and no copy comes to a state that the run does not come to.

In other runs a member lies throughout, and messages are lost, doubled and late: they end too, and
no two honest clients have two states of one place.
"""

from __future__ import annotations

import copy
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from federation.parties.toy_federation import Made, identities, make
from fuzz.bad_messages import Bad, Signers, unsigned
from fuzz.copies import whole_things

from secure_fl.crypto.envelope import Phase
from secure_fl.crypto.identities import Identity
from secure_fl.engines.queue import Here, Queue, Tap
from secure_fl.federation.parties.party import Party
from secure_fl.federation.wire import route

MOST_MEMORY = 256 << 20
"""Bytes by which the process may grow in a run."""
MOST_SECONDS = 5.0
"""That one message may take."""
MOST_ANSWERS = 40
MOST_WAITS, MOST_DELIVERED = 120, 3_000
"""Of a run in which somebody lies: deadlines, and messages."""
EACH = 12
"""Bad messages of each sort before a good one."""


@dataclass(frozen=True)
class Kind:
    """A kind of federation.

    Attributes:
        protection, key_holder: of its sums.
        groups: clients in a group, where they are summed in groups.
        publish: whether the server is given the models.
    """

    protection: str
    key_holder: str = "clients"
    groups: int | None = None
    publish: bool = False

    def make(self, people: dict[str, Identity]) -> Made:
        """Its parties, in this process."""
        count = 4 if self.groups is None else 2 * self.groups
        more = {"groups": self.groups, "people": people, "publish": self.publish}
        return make(count, self.protection, self.key_holder, rounds=2, **more)  # type: ignore[arg-type]


KINDS = [
    Kind("masked"),
    Kind("bfv+masked"),
    Kind("bfv+masked", "authority"),
    Kind("plain"),
    Kind("masked", groups=3),
    Kind("bfv+masked", "authority", groups=3),
    Kind("masked", publish=True),
]
SILENT: list[tuple[Phase, int] | None] = [
    None,
    (Phase.JOIN, 0),
    (Phase.ADVERTISE, 0),
    (Phase.SHARE, 1),
    (Phase.UPLOAD, 0),
    (Phase.OPEN_POOLS, 0),
    (Phase.APPLY, 0),
]
"""From which message of its first round on a client is silent; it is back in the second."""


@dataclass
class Tally:
    """What was tried, and what parties said.

    Attributes:
        messages: given to parties, without the good ones.
        signed: those of them that a member signed.
        to: how many of them each kind of party was given.
        slowest: seconds of the slowest.
        reasons: why messages were refused.
        inside: of messages that were right but for their body: by their reader's role, phase and
            chunk, and whether they were taken or refused.
    """

    messages: int = 0
    signed: int = 0
    runs: int = 0
    slowest: float = 0.0
    to: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    inside: Counter[tuple[str, str, int, str]] = field(default_factory=Counter)


def footprint(party: Any) -> object:
    """What a party has come to, but for what it has refused, and for who is silent: a signed head
    alone shows that its sender is there (`tests/federation/parties/test_presence.py`).
    """
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


def give(party: Party, data: bytes, tally: Tally) -> list[Any]:
    """One message; it must not take long."""
    started = time.perf_counter()
    sent = party.receive(data)
    took = time.perf_counter() - started
    tally.messages += 1
    tally.to[type(party).__name__] += 1
    tally.slowest = max(tally.slowest, took)
    assert took < MOST_SECONDS, (party.name, took)
    assert len(sent) <= MOST_ANSWERS, (party.name, len(sent))
    return sent


@dataclass
class Run:
    """One federation, what was sent in it so far and in another, and what copies came to."""

    made: Made
    coins: random.Random
    tally: Tally
    seeds: list[bytes]
    own: list[bytes] = field(default_factory=list)
    states: set[bytes] = field(default_factory=set)
    copied: set[bytes] = field(default_factory=set)

    def before(self, to: str, now: bytes) -> None:
        """Bad messages, before a good one is delivered."""
        party = next(one for one in self.made.parties if one.name == to)
        seeds = [*self.seeds, *self.own]
        known = {now, *seeds}
        was = footprint(party)
        for _ in range(EACH):
            data = unsigned(now, seeds, self.coins)
            if data not in known:
                sent = give(party, data, self.tally)
                assert all(route(one.data).phase == Phase.REFUSE for one in sent), (to, data)
        assert footprint(party) == was, f"{to} was moved by what nobody signed"
        signers, twin = Signers(self.made.identities), copy.deepcopy(party)
        for _ in range(EACH):
            refused = self._member(twin, signers.bad(now, seeds, self.coins), now)
            if not refused or self.coins.random() < 0.4:
                twin = copy.deepcopy(party)
        self._note(party, self.states)

    def _member(self, twin: Any, bad: Bad, now: bytes) -> bool:
        """A copy is given what a member signed; one in four then goes on. Whether it stays where
        it was, as far as can be told.
        """
        before = twin.refusals.counts.copy()
        give(twin, bad.data, self.tally)
        self.tally.signed += 1
        new = twin.refusals.counts - before
        self.tally.reasons.update(new)
        if bad.right:
            header = route(now)
            role = self.made.roster.member(twin.name).role
            word = "refused" if new else "taken"
            self.tally.inside[role, header.phase.name, header.chunk, word] += 1
        goes_on = self.coins.random() < 0.25
        if goes_on:
            give(twin, now, self.tally)
            for _ in range(3):
                if twin.due is not None:
                    twin.tick(twin.due)
        self._note(twin, self.copied)
        return bool(new) and not goes_on

    def _note(self, party: Any, states: set[bytes]) -> None:
        if party.name in self.made.plan.clients and party.state is not None:
            states.add(party.state.digest)


def silent_in(made: Made, kind: tuple[Phase, int] | None) -> Callable[[str, bytes], bool]:
    """Whether a message is lost: the last client's of the first round, from one kind on."""
    name, gone = made.plan.clients[-1], [False]

    def lost(sender: str, data: bytes) -> bool:
        header = route(data)
        if sender != name or kind is None or header.round > 0:
            return False
        gone[0] |= (header.phase, header.chunk) == kind
        return gone[0]

    return lost


def fuzzed_run(
    kind: Kind, people: Any, seeds: list[bytes], coins: random.Random, tally: Tally
) -> list[bytes]:
    """A federation that is disturbed before its messages, and comes to its end; what was sent."""
    made, silent = kind.make(people), coins.choice(SILENT)
    run, lost = Run(made, coins, tally, seeds), silent_in(made, silent)

    def tap(sender: str, to: str, data: bytes | memoryview) -> bytes | memoryview | None:
        now = bytes(data)
        if lost(sender, now):
            return None
        run.before(to, now)
        run.own.append(now)
        return data

    run.own.append(made.signed)
    made.run(tap)
    assert made.server.over
    enough = silent is None or kind.groups is None
    assert made.server.failed is None or not enough, made.server.failed
    for client in made.clients:
        run._note(client, run.states)
    present = {one.state.digest for one in made.clients[:-1] if one.state is not None}
    assert len(present) == 1, (kind, silent, "clients came to different states")
    assert run.copied <= run.states | {made.plan.start}, "a copy came to another state"
    return run.own


class EndlessError(AssertionError):
    """A run with more messages than any needs."""


def lying_run(
    kind: Kind, people: Any, seeds: list[bytes], coins: random.Random, tally: Tally
) -> None:
    """A federation in which one member lies in some of what it sends, and the network is bad."""
    made, signers, delivered = kind.make(people), Signers(people), [0]
    liar = coins.choice([one.name for one in made.parties])
    parties = {one.name: one for one in made.parties}
    held = list[tuple[str, bytes]]()
    tally.runs += 1

    def tap(sender: str, to: str, data: bytes | memoryview) -> bytes | memoryview | None:
        delivered[0] += 1
        if delivered[0] > MOST_DELIVERED:
            raise EndlessError(kind)
        how = coins.random()
        if how < 0.02:
            return None
        if how < 0.04:
            held.append((to, bytes(data)))
            return None
        if how < 0.06 and held:
            reader, late = held.pop()
            give(parties[reader], late, tally)
        if how < 0.08:
            give(parties[to], bytes(data), tally)
        if sender != liar or coins.random() > 0.15:
            return data
        tally.messages, tally.signed = tally.messages + 1, tally.signed + 1
        tally.to[type(parties[to]).__name__] += 1
        return signers.bad(bytes(data), [*seeds, bytes(data)], coins).data

    run_to_its_end(made, tap)
    for party in made.parties:
        tally.reasons.update(party.refusals.counts)  # type: ignore[attr-defined]
    honest = [one.state for one in made.clients if one.state is not None and one.name != liar]
    assert len({one.place for one in honest}) == len({one.digest for one in honest}), (liar, kind)


def run_to_its_end(made: Made, tap: Tap) -> None:
    """Until the server has ended it, which it does whatever the others do."""
    queue = Queue([Here([made.server]), Here(made.parties[1:])], made.server.name, tap=tap)
    queue.run(most=MOST_WAITS)
    assert made.server.over


def fuzz(
    count: int,
    coins: random.Random,
    kinds: list[Kind],
    said: Callable[[str], object] = lambda line: None,
) -> Tally:
    """Give so many bad messages to the parties of federations of these kinds, in turn."""
    tally, people, begun = Tally(), identities(6), time.perf_counter()
    seeds = {kind: list[bytes]() for kind in kinds}
    with whole_things():
        while tally.messages < count:
            for kind in kinds:
                start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
                seeds[kind] = fuzzed_run(kind, people, seeds[kind], coins, tally)
                for _ in range(3):
                    lying_run(kind, people, seeds[kind], coins, tally)
                grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start
                assert grown << 10 < MOST_MEMORY, grown
                if tally.messages >= count:
                    break
            rate = tally.messages / (time.perf_counter() - begun)
            said(f"{tally.messages} messages, {rate:.0f} a second, slowest {tally.slowest:.3f} s")
    return tally


def main() -> None:
    """As many messages as the command line says."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    started = time.process_time()
    tally = fuzz(count, random.Random(seed), KINDS, lambda line: print(line, flush=True))
    print(f"{tally.messages} messages, {tally.signed} of them signed by a member,")
    print(f"{tally.runs} runs with a liar, in {time.process_time() - started:.0f} s of processor")
    print("time;", dict(tally.to), "refused:", dict(tally.reasons.most_common()))
    with suppress(BrokenPipeError):
        for (role, phase, chunk, word), number in sorted(tally.inside.items()):
            print(f"{role:10} {phase:12} {chunk} {word:8} {number}")


if __name__ == "__main__":
    main()
