"""The transcript: a chain that can be followed, that no cut, swap or byte leaves unnoticed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from federation.verify.records import DIGEST, FACTS

from secure_fl.crypto.refusals import RefusedError
from secure_fl.errors import SecureSumError
from secure_fl.federation.transcript.chain import START, Line, Transcript
from secure_fl.federation.transcript.entries import KINDS, entry_of, facts_of
from secure_fl.federation.transcript.following import Checked, Follower
from secure_fl.secure_sum.messages import RoundRefusedError


def written(path: Path, *kinds: str) -> Transcript:
    transcript = Transcript.new(path)
    for number, kind in enumerate(kinds or FACTS):
        transcript.append(kind, FACTS[kind], [bytes([number]) * 3] * (number % 3))
    return transcript


def test_what_was_appended_is_read_back_and_its_heads_are_followed(tmp_path: Path) -> None:
    transcript = Transcript.new(tmp_path / "t")
    heads = [transcript.head, *(transcript.append(kind, facts) for kind, facts in FACTS.items())]
    again = Transcript.open(tmp_path / "t")
    assert [facts_of(line.entry) for line in again.lines()] == [
        facts_of(entry_of(kind, facts)) for kind, facts in FACTS.items()
    ]
    assert again.head == heads[-1]
    assert len(again) == len(FACTS) == len(KINDS)
    assert heads[0] == START
    for head in heads:
        again.follows(head)
    in_memory = Transcript.new()
    assert [in_memory.append(kind, facts) for kind, facts in FACTS.items()] == heads[1:]
    assert list(in_memory.lines()) == list(again.lines())
    assert (tmp_path / "t").stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        Transcript.new(tmp_path / "t")


def test_a_fork_is_refused() -> None:
    ours, theirs = Transcript.new(), Transcript.new()
    for transcript in (ours, theirs):
        transcript.append("state", FACTS["state"])
    theirs.follows(ours.head)
    shown = ours.append("ledger", FACTS["ledger"])
    theirs.append("ledger", {**FACTS["ledger"], "length": 5})
    with pytest.raises(RoundRefusedError, match="forked"):
        theirs.follows(shown)
    with pytest.raises(RoundRefusedError, match="forked"):
        theirs.follows(bytes(32))


def test_a_client_takes_the_servers_lines_and_none_of_another_history() -> None:
    server, checked = Transcript.new(), Checked()
    client, beside, other = Follower(checked), Follower(checked), Transcript.new()
    for kind, facts in FACTS.items():
        server.append(kind, facts, [b"signed"])
        other.append(kind, facts)
    lines = server.after(START)
    assert client(lines[:4]) == beside(lines[:4])
    for wrong in (lines[3:4], lines[5:], [lines[4], lines[6]], other.after(START)):
        with pytest.raises(RoundRefusedError, match="forked"):
            client(wrong)
    with pytest.raises(RefusedError, match="malformed"):
        client([lines[4].replace(b'"attempt":1', b'"attempt":2')])
    assert client(server.after(client.head)) == server.head == client.head
    assert server.after(server.head) == []
    assert server.after(bytes(32)) == lines, "whoever says a head that was never one gets them all"
    assert beside.head != client.head, "each keeps its own"


def test_a_line_without_its_evidence_has_the_same_hash_and_says_that_it_is_brief() -> None:
    server = Transcript.new()
    server.append("joined", FACTS["joined"], [b"signed"])
    (line,) = server.lines()
    brief = Line.read(line.brief())
    assert (line.whole, brief.whole, brief.evidence) == (True, False, ())
    assert brief.head == line.head == server.head
    assert brief.encode() == line.brief() != line.encode()
    other = Line.made(START, line.entry, [b"another"])
    with pytest.raises(RefusedError, match="hash"):
        Line.read(line.brief().replace(line.seal.hex().encode(), other.seal.hex().encode()))


def noticed(path: Path, head: bytes) -> str:
    """How a damaged file is found: as damage, or as another history than was known."""
    try:
        Transcript.open(path).follows(head)
    except RefusedError as error:
        return "damaged" if "line " in str(error) else "not named"
    except RoundRefusedError:
        return "forked"
    return ""


def test_every_flipped_byte_is_found(tmp_path: Path) -> None:
    head = written(tmp_path / "t", "state", "joined", "ledger").head
    whole = (tmp_path / "t").read_bytes()
    found = dict[str, int]()
    for place in range(len(whole)):
        flipped = bytes([whole[place] ^ (1 << place % 8)])
        (tmp_path / "t").write_bytes(whole[:place] + flipped + whole[place + 1 :])
        said = noticed(tmp_path / "t", head)
        assert said, place
        found[said] = found.get(said, 0) + 1
    assert found.keys() == {"damaged", "forked"}
    assert found["forked"] == 1, "the last line break: half a line looks like a kill"


def test_lines_that_are_cut_swapped_repeated_or_left_out_are_found(tmp_path: Path) -> None:
    path = tmp_path / "t"
    head, lines = written(path).head, path.read_bytes().splitlines(keepends=True)
    for changed in (
        lines[:-1],
        lines[1:],
        [*lines[:3], *lines[4:]],
        [*lines[:3], lines[4], lines[3], *lines[5:]],
        [*lines[:4], lines[3], *lines[4:]],
        [*lines, lines[-1]],
        [],
    ):
        path.write_bytes(b"".join(changed))
        assert noticed(path, head)


def test_half_a_line_is_cut_when_the_file_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "t"
    transcript = written(path, "joined", "state")
    before, data = transcript.head, path.read_bytes()
    transcript.append("state", {"place": [2, 0], "digest": DIGEST, "checkpoint": None})
    after = path.read_bytes()
    for length in range(len(data), len(after), 5):
        path.write_bytes(after[:length])
        assert Transcript.open(path).head == before
        assert path.read_bytes() == data
    path.write_bytes(after)
    assert Transcript.open(path).head == transcript.head


def test_a_killed_writer_leaves_what_can_be_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "t"
    code = (
        "import sys; from pathlib import Path;"
        "from secure_fl.federation.transcript.chain import *\nt = "
        "Transcript.new(Path(sys.argv[1]))\nwhile True: t.append('state', {'place': [0, len(t)], "
        "'digest': 'ab' * 32, 'checkpoint': None}, [b'x' * 5000])"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(path)]) as writer:
        while not path.exists() or path.stat().st_size < 20_000:
            assert writer.poll() is None
            time.sleep(0.01)
        os.kill(writer.pid, signal.SIGKILL)
    transcript = Transcript.open(path)
    places = [facts_of(line.entry)["place"] for line in transcript.lines()]
    assert places == [(0, number) for number in range(len(transcript))]
    transcript.append("end", FACTS["end"])
    assert len(Transcript.open(path)) == len(places) + 1


@pytest.mark.parametrize("kind", KINDS)
def test_an_entry_has_the_fields_of_its_kind_and_no_other(kind: str) -> None:
    transcript, facts = Transcript.new(), FACTS[kind]
    wrong: list[dict[str, Any]] = [{**facts, "loss": 0.1}]
    wrong += [{**facts, name: bytes} for name in facts]
    for name in facts:
        wrong += [{**facts, name: True if facts[name] is not True else 1}, {**facts, name: -1}]
        if name not in ("roster", "revision", "versions", "policy", "round"):
            wrong.append({other: value for other, value in facts.items() if other != name})
    for each in wrong:
        with pytest.raises(RefusedError, match="malformed"):
            transcript.append(kind, each)
    assert len(transcript) == 0
    with pytest.raises(SecureSumError, match="unknown kind"):
        transcript.append("gossip", facts)


def test_what_is_wrong_is_named_and_no_value_is_shown() -> None:
    with pytest.raises(RefusedError, match=r"sum: uploads") as caught:
        Transcript.new().append("sum", {**FACTS["sum"], "uploads": {"a": "secret"}})
    assert "secret" not in str(caught.value)


def test_it_needs_no_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None;"
        "from secure_fl.federation.transcript.chain import *\nt "
        "= Transcript.new(); t.append('state', {'place': [0, 0], 'digest': 'ab' * 32, "
        "'checkpoint': None})\nimport secure_fl.federation.verify.check"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
