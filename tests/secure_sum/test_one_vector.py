"""One vector a round: a client sends the same bytes again, or none, whatever
killed it in between.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from secure_sum.round_helpers import SHAPE, check_exact, make_federation, make_vectors

from secure_fl.crypto.envelope import Phase
from secure_fl.crypto.refusals import Reason
from secure_fl.errors import SecureSumError
from secure_fl.secure_sum.client import RoundClient
from secure_fl.secure_sum.messages import RoundRefusedError
from secure_fl.secure_sum.store import FolderStore, MemoryStore


def test_no_second_vector_for_a_round_and_the_same_bytes_after_a_resume(tmp_path: Path) -> None:
    federation = make_federation("plain")
    running = federation.begin(3, SHAPE)
    name, vector = "client-0000", make_vectors(SHAPE, {"client-0000": 1})["client-0000"]
    store = FolderStore(tmp_path / "store")
    client = RoundClient(running.plan, federation.clients[name], store=store)
    sent = client.upload(vector)
    with pytest.raises(RoundRefusedError, match="already-begun"):
        client.upload(vector)
    resumed = RoundClient(
        running.plan, federation.clients[name], store=FolderStore(tmp_path / "store")
    )
    assert resumed.resend() == sent
    with pytest.raises(RoundRefusedError, match="already-begun"):
        resumed.upload(vector)
    assert running.add(sent) is None
    assert running.add(resumed.resend() or b"") == Reason.REPLAYED
    assert (tmp_path / "store" / "3.upload").stat().st_mode & 0o077 == 0
    later = RoundClient(
        federation.begin(4, SHAPE).plan,
        federation.clients[name],
        store=FolderStore(tmp_path / "store"),
    )
    assert later.resend() is None
    assert later.upload(vector) != sent
    with pytest.raises(RoundRefusedError, match="already-begun"):
        RoundClient(
            running.plan, federation.clients[name], store=FolderStore(tmp_path / "store")
        ).upload(vector)


def test_a_client_resumed_before_its_upload_drops_out() -> None:
    federation, store = make_federation(), MemoryStore()
    plan = federation.begin(0, SHAPE).plan
    identity = federation.clients["client-0000"]
    RoundClient(plan, identity, store=store).advertise()
    resumed = RoundClient(plan, identity, store=store)
    assert resumed.resend() is None
    with pytest.raises(RoundRefusedError, match="already-begun"):
        resumed.advertise()
    with pytest.raises(RoundRefusedError, match="out-of-turn"):
        resumed.upload(make_vectors(SHAPE, {"client-0000": 0})["client-0000"])


def test_a_kill_between_storing_and_sending_loses_nothing() -> None:
    """The upload is stored; the process dies; the resumed client sends the same bytes, and others
    open its secrets.
    """
    federation = make_federation()
    running = federation.begin(0, SHAPE)
    names = list(federation.clients)
    vectors = make_vectors(SHAPE, dict.fromkeys(names, 2))
    running.protect(names[0], vectors[names[0]])
    again = RoundClient(
        running.plan, federation.clients[names[0]], store=federation._stores[names[0]]
    )
    assert running.add(again.resend() or b"") is None
    for name in names[1:]:
        running.add(running.protect(name, vectors[name]))
    running._kills = {names[0]: Phase.AGREE}
    check_exact(running.open(), SHAPE, vectors, names, 2)


def test_a_damaged_store_says_so(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    (tmp_path / "round").write_text("not a number")
    with pytest.raises(SecureSumError, match="damaged"):
        store.begin(1)
