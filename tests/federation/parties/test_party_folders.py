"""What a party's folder keeps, whose it is, and what becomes of one that is damaged."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from federation.parties.kills import Federation, Kind
from federation.parties.toy_federation import Toy

from secure_fl.engines.queue import Here, Queue
from secure_fl.errors import RunFolderError, SecureSumError
from secure_fl.federation.parties.party_folder import PartyFolder

KIND = Kind("bfv+masked", "authority", Toy(4, 1))
HOLDERS = ["keys.sealed", "plan", "progress.sealed", "owner"]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    made = Federation(tmp_path_factory.mktemp("ran"), KIND)
    made.run()
    made.close()
    return made


@pytest.fixture
def made(tmp_path: Path, ran: Federation) -> Federation:
    """The same, in a copy of its folders."""
    shutil.copytree(ran.folder, tmp_path / "copy")
    copy = Federation(tmp_path / "copy", KIND, people=ran.people)
    copy.signed = ran.signed
    return copy


def made_again(made: Federation, name: str) -> Callable[[], object]:
    makes: dict[str, Callable[[], object]] = {"server": made.server, "authority": made.keeper}
    return makes.get(name, lambda: made.client(name))


@pytest.mark.parametrize("name", ["client-0001", "authority"])
@pytest.mark.parametrize("file", HOLDERS)
def test_a_damaged_file_is_named(made: Federation, name: str, file: str) -> None:
    path = made.folder / name / file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(RunFolderError) as error:
        made_again(made, name)()
    assert error.value.field == file
    assert str(path) in str(error.value.value)
    assert error.value.remedy


@pytest.mark.parametrize("name", ["client-0001", "authority"])
def test_a_state_that_is_gone_is_named(made: Federation, name: str) -> None:
    [path, *_] = (made.folder / name).glob("part-*")
    path.unlink()
    with pytest.raises(RunFolderError, match="is gone") as error:
        made_again(made, name)()
    assert error.value.field == path.name


@pytest.mark.parametrize("cut", ["flipped", "shortened"])
def test_a_servers_damaged_progress_is_named(made: Federation, cut: str) -> None:
    path = made.folder / "server" / "progress"
    data = path.read_bytes()
    path.write_bytes(data[:40] if cut == "shortened" else data[:50] + b"?" + data[51:])
    with pytest.raises(RunFolderError) as error:
        made.server()
    assert error.value.field == "progress"


@pytest.mark.parametrize(
    ("whose", "whom"), [("client-0000", "client-0001"), ("authority", "client-0001")]
)
def test_another_partys_folder_is_refused(made: Federation, whose: str, whom: str) -> None:
    shutil.rmtree(made.folder / whom)
    shutil.copytree(made.folder / whose, made.folder / whom)
    with pytest.raises(RunFolderError, match="another party"):
        made_again(made, whom)()


def test_another_key_opens_nothing(made: Federation) -> None:
    shutil.copy(made.folder / "keys" / "client-0000", made.folder / "keys" / "client-0001")
    with pytest.raises(RunFolderError) as error:
        made.client("client-0001")
    assert error.value.field == "progress.sealed"


def test_a_key_that_is_gone_is_named(made: Federation) -> None:
    (made.folder / "keys" / "client-0001").unlink()
    with pytest.raises(RunFolderError, match="is gone"):
        made.client("client-0001")


def test_one_party_at_a_time_has_a_folder(made: Federation) -> None:
    first = made.party_folder("client-0000")
    with pytest.raises(RunFolderError, match="in use"):
        made.party_folder("client-0000")
    first.close()
    made.party_folder("client-0000").close()


def test_a_key_does_not_lie_beside_what_it_seals(made: Federation) -> None:
    folder = made.folder / "client-0000"
    who = made.people["client-0000"]
    with pytest.raises(RunFolderError, match="lies in the folder"):
        PartyFolder(folder, who, made.roster.federation, key=folder / "key")


def test_a_servers_folder_has_no_secret_and_no_model(made: Federation) -> None:
    """Nothing in it opens, and the keys that the others hold are not in it."""
    client = made.client("client-0000")
    seat = client._seated()
    assert len(seat.keyring.secret) == 32
    model = seat.replica.state.encode()[-64:]
    files = [path for path in (made.folder / "server").rglob("*") if path.is_file()]
    assert len(files) > 3
    for path in files:
        data = path.read_bytes()
        assert seat.keyring.secret not in data
        assert seat.keyring.secret.hex().encode() not in data
        assert model not in data
    client.folder.close()


def test_a_clients_folder_shows_no_secret(made: Federation) -> None:
    client = made.client("client-0000")
    secret = client._seated().keyring.secret
    model = client._seated().replica.state.encode()[-64:]
    for path in (made.folder / "client-0000").rglob("*"):
        if path.is_file():
            assert path.stat().st_mode & 0o077 == 0
            assert secret not in path.read_bytes()
            assert model not in path.read_bytes()
    client.folder.close()


def test_a_damaged_journal_of_the_running_round_is_named(tmp_path: Path) -> None:
    made = Federation(tmp_path, Kind("masked", program=Toy(4, 1)))
    server, clients = made.server(), [made.client(name) for name in made.names]
    queue = Queue([Here([server]), Here(clients)], "server")
    queue.run(until=lambda: server.stage == "sum")
    for party in (server, *clients):
        party.folder.close()
    journal = tmp_path / "server" / "sums-0" / "0.journal"
    whole = journal.read_bytes()
    journal.write_bytes(b"?" * 40)
    with pytest.raises(SecureSumError) as error:
        made.server()
    assert error.value.field == "round journal"
    assert error.value.value == str(journal)
    assert "next round number" in error.value.remedy
    journal.write_bytes(whole)


def test_a_server_whose_journal_is_gone_takes_the_next_number(tmp_path: Path) -> None:
    made = Federation(tmp_path, Kind("masked", program=Toy(4, 1)))
    server, clients = made.server(), [made.client(name) for name in made.names]
    Queue([Here([server]), Here(clients)], "server").run(until=lambda: server.stage == "sum")
    server.folder.close()
    (tmp_path / "server" / "sums-0" / "0.journal").unlink()
    again = made.server()
    Queue([Here([again]), Here(clients)], "server").run()
    assert again.failed is None
    assert again.number == 1
    assert all(client.over for client in clients)
    for party in (again, *clients):
        party.folder.close()
