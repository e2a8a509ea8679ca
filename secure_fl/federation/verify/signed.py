"""The signed messages of a sum against what the transcript says of it. No torch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from secure_fl.crypto.envelope import Header, Phase, open_envelope, open_head, read_header
from secure_fl.errors import SecureSumError
from secure_fl.federation.transcript.entries import RoundEntry, SumEntry
from secure_fl.federation.verify.plan import Agreed, said_of
from secure_fl.federation.verify.state import Claim, expected_of
from secure_fl.secure_sum.digests import Applied
from secure_fl.secure_sum.key_directory import view_of
from secure_fl.secure_sum.messages import Advertise, Agreement, Counts

_UPLOAD = Phase.UPLOAD


@dataclass
class Signed:
    """The signed messages of one sum, against what its entry says."""

    agreed: Agreed
    begun: RoundEntry
    entry: SumEntry
    signatures: int = 0
    claims: dict[str, Claim] = field(default_factory=dict)
    """What each applier says that the sum leads to."""
    _keys: dict[str, Advertise] = field(default_factory=dict)
    _uploads: dict[str, dict[int, Header]] = field(default_factory=dict)
    _histories: dict[bytes, set[str]] = field(default_factory=dict)
    """Who agreed, by the history that each was shown."""
    _opened: dict[str, bool] = field(default_factory=dict)
    _right_counts: bool | None = None

    def check(self, evidence: tuple[bytes, ...]) -> Iterator[tuple[str, str]]:
        """What does not fit, by field."""
        readers: dict[Phase, Callable[[str, bytes], None]] = {
            Phase.ADVERTISE: self._advertised,
            Phase.AGREE: self._agreement,
            Phase.APPLY: self._applied,
            Phase.OPEN_COUNTS: self._counts,
        }
        for number, data in enumerate(evidence):
            try:
                header = self._opened_by(data, readers)
            except SecureSumError as problem:
                yield f"evidence[{number}]", said_of(problem)
                continue
            self.signatures += 1
            if header.parameters.rpartition("/")[2] != (self.begun.plan or "")[:32]:
                yield f"evidence[{number}]", "signed for another plan of the round"
        yield from ((name, problem) for holds, name, problem in self._rules() if not holds)

    def _opened_by(self, data: bytes, readers: dict[Phase, Callable[[str, bytes], None]]) -> Header:
        claimed, roster = read_header(data), self.agreed.roster
        by_any = claimed.phase in (Phase.APPLY, Phase.OPEN_COUNTS)
        expected = expected_of(self.agreed, self.begun, data, None if by_any else "client")
        if claimed.phase is _UPLOAD:
            header = open_head(data, roster, expected)
            self._uploads.setdefault(header.sender, {})[header.chunk] = header
            return header
        header, body = open_envelope(data, roster, expected)
        if header.phase in readers:
            readers[header.phase](header.sender, body)
        return header

    def _advertised(self, sender: str, body: bytes) -> None:
        self._keys[sender] = Advertise.decode(body)

    def _agreement(self, sender: str, body: bytes) -> None:
        view, survivors = bytes.fromhex(self.entry.view or ""), len(self.entry.survivors)
        found = Agreement.decode(body)
        if (found.view, found.survivors) == (view, survivors):
            self._histories.setdefault(found.history, set()).add(sender)

    def _applied(self, sender: str, body: bytes) -> None:
        found = Applied.decode(body)
        self._opened[sender] = found.digest.hex() == self.entry.digest
        self.claims[sender] = found.state, found.place

    def _counts(self, sender: str, body: bytes) -> None:
        """What the authority says of the head of the sum."""
        found, entry = Counts.decode(body), self.entry
        head = tuple(int(count) for count in found.head[: self.begun.pools])
        said = (found.view.hex(), found.passing, head)
        right = said == (entry.view, entry.passing, entry.counts)
        self._right_counts = right and sender == self.agreed.plan.authority

    @property
    def _agreed(self) -> set[str]:
        """Those of one history: clients reveal something only where t say the same."""
        return max(self._histories.values(), key=len, default=set())

    def _rules(self) -> list[tuple[bool, str, str]]:
        begun, entry = self.begun, self.entry
        survivors = set(entry.survivors)
        strange = {*self._keys, *self._uploads} - set(begun.cohort)
        forked = sorted(name for name, same in self._opened.items() if not same)
        by_authority = self.agreed.plan.by_authority
        appliers = {self.agreed.plan.authority} if by_authority else survivors
        counts = bool(self._right_counts) if by_authority else self._right_counts is None
        fit = f"{len(self._agreed)} of {begun.threshold} signatures that are needed fit it"
        seen = self._view() == entry.view
        return [
            (not strange, "evidence", "messages of clients that were not asked"),
            (self._headers() == entry.uploads, "uploads", "not the digests of the signed headers"),
            (self._agreed <= survivors, "evidence", "an agreement of who did not survive"),
            (len(self._agreed) >= begun.threshold, "view", fit),
            (self._opened.keys() <= appliers, "evidence", "a digest of who does not open sums"),
            (bool(self._opened), "digest", "nobody signed what was opened"),
            (counts, "counts", "not those that the authority signed, or none that it may sign"),
            (not forked, "digest", f"{', '.join(forked)} signed another"),
            (seen, "view", "not that of the plan, the advertised keys and the survivors"),
        ]

    def _headers(self) -> dict[str, str]:
        found = {}
        for name, parts in self._uploads.items():
            whole = sorted(parts) == list(range(parts[min(parts)].chunks))
            if whole and name in self.entry.survivors:
                encoded = b"".join(parts[chunk].encode() for chunk in sorted(parts))
                found[name] = hashlib.sha256(encoded).hexdigest()
        return found

    def _view(self) -> str:
        """What the survivors must have signed."""
        begun, masked = self.begun, self.begun.threshold > 0
        asked = [name for name in begun.cohort if name not in begun.left_out]
        names = sorted(self._keys) if masked else asked
        missed, early = self.entry.missed, ("advertise", "share")
        survivors = [place for place, name in enumerate(names) if name in self.entry.survivors]
        dealers = [place for place, name in enumerate(names) if missed.get(name) not in early]
        if not masked:
            dealers = []  # nobody deals shares
        plan, key = bytes.fromhex(begun.plan or ""), bytes.fromhex(begun.key)
        roster = self.agreed.roster.digest
        keys: dict[str, Advertise | None] = {name: self._keys.get(name) for name in names}
        return view_of(plan, roster, key, begun.round, keys, dealers, survivors).hex()
