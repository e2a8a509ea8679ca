"""A whole private federation of real clients: policy, ledger, noise and examples are each
one's own.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from federation.parties.kills import lived, seeds
from federation.parties.site_processes import CLIENTS, MAKE, make_party, prepare

from secure_fl.crypto.envelope import Phase
from secure_fl.engines.pipes import Remote
from secure_fl.engines.queue import Queue
from secure_fl.federation.transcript.chain import Transcript
from secure_fl.federation.transcript.entries import SumEntry
from secure_fl.federation.verify.rounds import Rounds
from secure_fl.federation.wire import route
from secure_fl.privacy.ledger import PrivacyLedger


@pytest.fixture
def prepared(tmp_path: Path) -> dict[str, bytes]:
    return prepare(tmp_path, "authority")


@pytest.mark.slow
def test_every_party_in_a_process_of_its_own(tmp_path: Path, prepared: dict[str, bytes]) -> None:
    hosts = [Remote(MAKE, facts) for facts in prepared.values()]
    ends = dict[str, bytes]()

    def tap(sender: str, to: str, data: bytes | memoryview) -> bytes | memoryview | None:
        if sender == "server" and route(data).phase == Phase.END:
            ends[to] = bytes(data)
        return data

    try:
        places = [name for host in hosts for name in host.names]
        Queue(hosts, "server", tap=tap).run()
        assert [host.over for host in hosts] == [True] * len(hosts)
    finally:
        for host in hosts:
            host.close()
    assert sorted(places) == sorted(prepared)
    assert set(ends) == set(places) - {"server"}
    assert all(b'"reason":""' in data for data in ends.values())
    for number in range(CLIENTS):
        ledger = PrivacyLedger.load(tmp_path / f"client-{number:04d}" / "ledger.json")
        assert {release.subjects for release in ledger.releases} == {(number,)}
        steps = sorted(release.phase for release in ledger.releases)
        assert steps == ["centre", "cluster", "pretrain", "sketch"]
    assert not (tmp_path / "server" / "ledger.json").exists()
    assert not (tmp_path / "authority" / "ledger.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("seed", seeds())
def test_everybody_is_killed_and_releases_and_is_charged_once(
    tmp_path: Path, prepared: dict[str, bytes], seed: int
) -> None:
    """Nobody misses a round either: the server's transcript verifies, and says so."""
    makes = {
        name: lambda facts=facts: make_party(facts, memoryview)[0]
        for name, facts in prepared.items()
    }
    hosts, killed = lived(makes, seed, dict.fromkeys(makes, 2))
    assert killed > len(makes)
    assert hosts[0].party.failed is None
    assert all(host.over for host in hosts)
    assert len({host.party.state.digest for host in hosts[1:]}) == 1
    for host in hosts:
        host.party.folder.close()
    for number in range(CLIENTS):
        ledger = PrivacyLedger.load(tmp_path / f"client-{number:04d}" / "ledger.json")
        steps = sorted(release.phase for release in ledger.releases)
        assert steps == ["centre", "cluster", "pretrain", "sketch"]
        assert not any("again" in release.key for release in ledger.releases)
    lines = list(Transcript.open(tmp_path / "server" / "transcript.jsonl").lines())
    assert Rounds().read(lines).findings == []
    sums = [line.entry for line in lines if isinstance(line.entry, SumEntry)]
    assert {len(entry.survivors) for entry in sums} == {CLIENTS}
    assert [entry.missed for entry in sums] == [{}] * len(sums)


def test_a_site_refuses_what_its_policy_does_not_allow(prepared: dict[str, bytes]) -> None:
    facts = json.loads(prepared["client-0000"])
    [client] = make_party(json.dumps(facts | {"epsilon": 10.0}).encode(), memoryview)
    [answer] = client.receive(bytes.fromhex(facts["plan"]))
    assert route(answer.data).phase == Phase.REFUSE
    assert b"against-policy" in bytes(answer.data)
    assert b"privacy.epsilon" in bytes(answer.data)
