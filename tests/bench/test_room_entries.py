"""A client's batch enters each room a handful of times; what is counted are calls between rooms."""

from __future__ import annotations

import sys
from collections import Counter

from bench.room_entries import Entries, lines, measure, room_of
from secure_fl.federation.client import Client
from secure_fl.seeds import derive_seed

HANDFUL = 8


def test_training_on_a_batch_enters_each_room_a_handful_of_times() -> None:
    entries, rooms = measure("masked"), Counter[str]()
    for (room, _, _), times in entries.answer.items():
        rooms[room] += times
    assert {"training", "objectives", "models"} <= set(rooms)
    assert max(rooms.values()) <= HANDFUL, rooms
    assert entries.messages, "and taking the round's messages is counted beside it"
    assert next(reversed(list(lines(entries, callers=True)))).endswith("under the answer")


def test_rooms_are_folders_or_files_of_the_package() -> None:
    assert room_of(Client.answered.__code__) == "federation"
    assert room_of(derive_seed.__code__) == "seeds"
    assert room_of(Counter.total.__code__) is None


def test_nothing_is_counted_while_nobody_receives() -> None:
    entries = Entries("client-0000")
    sys.setprofile(entries)
    try:
        derive_seed(0, "x")
    finally:
        sys.setprofile(None)
    assert not entries.answer + entries.messages
