"""What a server writes, and how the transcript's lines reach every client."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from federation.parties.toy_federation import make

from secure_fl.federation.parties.client import FederationClient, Site
from secure_fl.federation.parties.server_record import Journal
from secure_fl.secure_sum.messages import RoundReason, RoundRefusedError


class Lines:
    """A chain of lines, as a transcript is one."""

    def __init__(self) -> None:
        self.lines, self.heads = list[bytes](), [bytes(32)]

    def take(self, line: bytes) -> None:
        self.lines.append(line)
        self.heads.append(hashlib.sha256(self.heads[-1] + line).digest())

    def after(self, head: bytes) -> list[bytes]:
        return self.lines[self.heads.index(head) :]

    def follow(self, lines: Any) -> bytes:
        for line in lines:
            self.take(line)
        return self.heads[-1]


@pytest.mark.parametrize("forged", [False, True])
def test_every_client_follows_the_servers_transcript_and_refuses_another(forged: bool) -> None:
    """Forged: before the second round the server writes its first line anew, and all after it."""
    made, book, kinds = make(4, "masked", rounds=2), Lines(), list[str]()
    chains = [Lines() for _ in made.clients]

    def follow(number: int) -> Any:
        def follow(lines: Any) -> bytes:
            return chains[number].follow(lines)

        return follow

    def write(kind: str, facts: Any, evidence: Any) -> None:
        kinds.append(kind)
        book.take(repr((kind, facts)).encode())
        if forged and kind == "state":
            book.heads[1:] = [hashlib.sha256(head).digest() for head in book.heads[1:]]

    def after(head: bytes) -> list[bytes]:
        return book.after(head) if head in book.heads else []

    made.server._journal = Journal(write, after, lambda: book.heads[-1])
    for number, client in enumerate(made.clients):
        client._site = Site(client._site.prepare, follow=follow(number))
    made.run()
    assert kinds[:5] == ["joined"] * 4 + ["round"]
    if forged:
        assert {said["reason"] for said in made.server.said} == {"forked"}
        assert made.server.failed is not None
    else:
        assert kinds.count("sum") == kinds.count("state") == 2
        assert [chain.heads for chain in chains] == [book.heads] * 4


def test_lines_that_do_not_continue_what_was_there_are_refused() -> None:
    def follow(lines: Any) -> bytes:
        reason, remedy = RoundReason.FORKED, "stop"
        raise RoundRefusedError(reason, "no", field="transcript", value=0, remedy=remedy)

    made = make(4, "masked", rounds=1)
    client: FederationClient = made.clients[1]
    client._site = Site(client._site.prepare, follow=follow)
    made.run()
    said = {(told["sender"], told["reason"]) for told in made.server.said}
    assert ("client-0001", "forked") in said
