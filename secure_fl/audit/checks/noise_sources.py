"""What a process' generators of noise give, while they are watched; none of it is changed."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from secure_fl.audit.derivations import SEED_BYTES, noise_key, noise_words
from secure_fl.privacy.noise import NoiseSource, NoiseStream


@dataclass
class NoiseDrawn:
    """What was drawn, and derived.

    Attributes:
        streams: by their numbers: each stream that was handed out, and its key. They are kept, or
            another might take the number.
        words: the first word of each that was read.
        keys: secrets of 32 bytes, by what they are.
        system: what the operating system gave.
        narrowed: what has less in it than it was made of, in words.
    """

    streams: dict[int, tuple[NoiseStream, bytes]] = field(default_factory=dict, repr=False)
    words: dict[int, int] = field(default_factory=dict, repr=False)
    keys: defaultdict[str, set[bytes]] = field(default_factory=lambda: defaultdict(set), repr=False)
    system: set[bytes] = field(default_factory=set, repr=False)
    narrowed: set[str] = field(default_factory=set)

    def whole(self, holds: bool, otherwise: str) -> None:
        """Take in whether a secret has in it all that it was made of."""
        if not holds:
            self.narrowed.add(otherwise)

    def made(self, stream: NoiseStream, key: bytes) -> None:
        """A stream begins."""
        self.streams[id(stream)] = stream, key
        self.keys["keys of noise"].add(key)

    def derived(
        self, source: NoiseSource, stream: NoiseStream, place: tuple[int, int, str]
    ) -> None:
        """A source gave a stream for a client, a round and a purpose."""
        _, key = self.streams[id(stream)]
        same = key == noise_key(source._key, *place)
        self.whole(same, "a stream's key is not what follows from the whole of its source")

    def read(self, stream: NoiseStream, words: NDArray[np.uint64]) -> None:
        """A stream was read."""
        if len(words) and id(stream) not in self.words:
            self.words[id(stream)] = int(words[0])
            _, key = self.streams.get(id(stream), (stream, b""))
            same = not key or noise_words(key, 1) == words[:1].tobytes()
            self.whole(same, "a stream's words are not those of the whole of its key")

    def opened(self, source: NoiseSource) -> None:
        """A source begins."""
        self.keys["secrets of sources of noise"].add(source._key)
        drawn = source._key in self.system and len(source._key) == SEED_BYTES
        self.whole(drawn, "a source of noise does not hold 32 bytes as the system gave them")


@contextmanager
def watched_noise() -> Iterator[NoiseDrawn]:
    """Watch them as long as the context lasts."""
    drawn, words, system = NoiseDrawn(), NoiseStream.words, os.urandom
    stream, derive, source = NoiseStream.__init__, NoiseSource.stream, NoiseSource.__init__

    def of_words(self: NoiseStream, count: int) -> NDArray[np.uint64]:
        made = words(self, count)
        drawn.read(self, made)
        return made

    def of_key(self: NoiseStream, key: bytes, *, private: bool) -> None:
        drawn.made(self, key)
        stream(self, key, private=private)

    def of_stream(self: NoiseSource, **place: Any) -> NoiseStream:
        made = derive(self, **place)
        drawn.derived(self, made, (place["client"], place["round"], place["purpose"]))
        return made

    def of_system(size: int) -> bytes:
        drawn.system.add(made := system(size))
        return made

    def of_source(self: NoiseSource) -> None:
        source(self)
        drawn.opened(self)

    with ExitStack() as patches:
        patches.enter_context(patch.object(NoiseStream, "words", of_words))
        patches.enter_context(patch.object(NoiseStream, "__init__", of_key))
        patches.enter_context(patch.object(NoiseSource, "stream", of_stream))
        patches.enter_context(patch.object(NoiseSource, "__init__", of_source))
        patches.enter_context(patch.object(os, "urandom", of_system))
        yield drawn
