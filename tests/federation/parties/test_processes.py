"""Parties in processes of their own: nothing is shared but bytes in pipes."""

from __future__ import annotations

from pathlib import Path

import pytest
from federation.parties.toy_federation import Toy
from federation.parties.toy_processes import MAKE, prepare

from secure_fl.crypto.envelope import Phase
from secure_fl.engines.pipes import Remote
from secure_fl.engines.queue import Queue
from secure_fl.errors import TrainingError
from secure_fl.federation.wire import route


@pytest.fixture
def hosts(tmp_path: Path) -> list[Remote]:
    facts = prepare(tmp_path, Toy(4, 2), "masked")
    return [Remote(MAKE, each) for each in facts.values()]


@pytest.mark.slow
def test_every_party_in_a_process_of_its_own_and_one_of_them_killed(hosts: list[Remote]) -> None:
    """The last client's process is killed when it has dealt its shares; the others go on."""
    ends: dict[str, bytes] = {}

    def tap(sender: str, to: str, data: bytes | memoryview) -> bytes | memoryview | None:
        header = route(data)
        if (header.round, header.phase, sender) == (0, Phase.SHARE, "client-0003"):
            hosts[-1].kill()
        if header.phase == Phase.END:
            ends[to] = bytes(data)
        return data

    try:
        Queue(hosts, "server", tap=tap).run()
        assert [host.names for host in hosts[:2]] == [("server",), ("client-0000",)]
        assert [host.over for host in hosts] == [True, True, True, True, False]
        assert not hosts[-1].alive
        assert set(ends) >= {"client-0000", "client-0001", "client-0002"}
        assert all(b'"reason":""' in data and b'"place":[0,2]' in data for data in ends.values())
    finally:
        for host in hosts:
            host.close()


def test_a_process_that_cannot_make_its_parties() -> None:
    with pytest.raises(TrainingError, match="did not start"):
        _ = Remote("federation.parties.toy_processes:make_party", b"{").names
