"""Counts, proved: no party's word opens a pool.

Before pools are opened, everybody who opens is shown every survivor's own signed block 0 and what
takes the masks off their sum: the survivors' self-mask seeds, which fit what they committed to in
ADVERTISE, and dropped clients' mask keys, which fit the public ones there. It adds the blocks
itself, takes the masks off, and decrypts where it holds the key.

Guarantee: the head is the sum of what exactly the survivors of the agreed view signed, each once;
whoever shifts it must be one of them.
Assumes: the view was signed by t holders of every survivor's shares (`check_agreed`); SHA-256 is
collision resistant.
Not covered: a survivor that lies in its own head: what it takes from one count it can add to
another, since no single head is seen, and so open a pool below the minimum; under `authority`
clients have the authority's signature instead, so an authority that lies together with the server
opens any pool.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from secure_fl.crypto.envelope import Phase, open_envelope
from secure_fl.crypto.key_streams import Slots
from secure_fl.crypto.refusals import Reason, RefusedError
from secure_fl.secure_sum.block_codec import Adder, HolderCipher, open_sum, server_cipher
from secure_fl.secure_sum.blocks import Integers
from secure_fl.secure_sum.key_directory import KeyBook, seed_commitment
from secure_fl.secure_sum.masks import unmask_sum
from secure_fl.secure_sum.messages import CountProof, RoundReason, RoundRefusedError


def proved_head(
    book: KeyBook,
    cipher: HolderCipher | None,
    survivors: Sequence[int],
    dropped: Sequence[int],
    evidence: Sequence[bytes],
) -> Integers:
    """The head's sum over the survivors, int64 `[head_fields]`, from nothing but what they signed.

    Args:
        book: everybody's keys of this round, from their own envelopes.
        cipher: what decrypts; None where nothing is encrypted.
        survivors: U, positions in the book.
        dropped: the other dealers.
        evidence: of `CountProof`.

    Raises:
        RefusedError: a survivor's envelope or block that does not fit; `out-of-range` for a sum
            that survivors cannot have made, or, without noise, counts that are not one a survivor.
        RoundRefusedError: `not-proved` for a part that is missing or fits no commitment;
            `still-masked` for masks that are left.
    """
    plan = book.plan
    _check_positions(book, survivors, dropped)
    proof = CountProof.of(evidence, len(survivors), len(dropped), masked=plan.masked)
    adder = Adder(plan, server_cipher(plan) if cipher is None else cipher.adder, blocks=1)
    _add_heads(adder, book, survivors, proof)
    masks = _masks(book, survivors, dropped, proof) if plan.masked else None
    found = open_sum(plan, cipher, 0, adder.finish(0, masks), len(survivors))
    if plan.exact_counts:
        _check_exact(found, len(survivors), plan.count_unit)
    return found


def check_seed(book: KeyBook, position: int, seed: bytes) -> None:
    """Refuse a seed of block 0 that its owner, who is blamed, did not commit to: `not-proved`."""
    if seed_commitment(book.plan, book.names[position], seed) != book.keys[position].commitment:
        raise _unproved("a seed that was not committed to", book, position)


def dropped_pairs(
    book: KeyBook, position: int, mask_key: bytes, survivors: Sequence[int], blocks: int
) -> dict[int, list[bytes]]:
    """Pair seeds of a dropped client with its surviving neighbours, the first `blocks` blocks',
    from its private mask key. Raises RoundRefusedError: `not-proved` for a key that is not the
    advertised one's, blaming its owner.
    """
    private, alive = X25519PrivateKey.from_private_bytes(mask_key), set(survivors)
    if private.public_key().public_bytes_raw() != book.keys[position].masking:
        raise _unproved("not the key that was advertised", book, position)
    near = filter(alive.__contains__, book.neighbours(position))
    return {other: book.pair_seeds(position, private, other, blocks) for other in near}


def _check_positions(book: KeyBook, survivors: Sequence[int], dropped: Sequence[int]) -> None:
    """Refuse positions that come twice or are on no list."""
    everyone = (*survivors, *dropped)
    if len(set(everyone)) < len(everyone) or not set(everyone) <= set(range(len(book.names))):
        remedy = "discard the round, begin the next"
        raise RoundRefusedError(
            RoundReason.NOT_PROVED, "positions of nobody", "survivors", len(survivors), remedy
        )


def _add_heads(adder: Adder, book: KeyBook, survivors: Sequence[int], proof: CountProof) -> None:
    """Add every survivor's block 0 out of the envelope that it signed."""
    plan = book.plan
    for position, head in zip(survivors, proof.heads, strict=True):
        sender, blocks = book.names[position], plan.shape.blocks
        expected = plan.expect(Phase.UPLOAD, "client", sender=sender, chunks=blocks)
        header, body = open_envelope(head, plan.roster, expected)
        if header.chunk:
            raise _unproved("not the block of counts", book, position)
        adder.add(0, adder.read(0, body))


def _check_exact(counts: Integers, survivors: int, unit: int) -> None:
    """Refuse counts that are not one a survivor, where no noise hides them."""
    if int(counts.min()) < 0 or int(counts.sum()) != survivors * unit:
        problem = "not one pool a survivor"
        remedy = "discard the round: a client counted itself more or less than once"
        raise RefusedError(Reason.OUT_OF_RANGE, problem, "counts", f"{survivors} survivors", remedy)


def _masks(
    book: KeyBook, survivors: Sequence[int], dropped: Sequence[int], proof: CountProof
) -> Slots:
    """What is left of all masks in block 0's sum, each secret checked against ADVERTISE."""
    for position, seed in zip(survivors, proof.seeds, strict=True):
        check_seed(book, position, seed)
    pairs = {}
    for position, key in zip(dropped, proof.mask_keys, strict=True):
        seeds = dropped_pairs(book, position, key, survivors, 1)
        pairs[position] = {other: first for other, (first,) in seeds.items()}
    own = dict(zip(survivors, proof.seeds, strict=True))
    numbers, modulus = book.plan.numbers(0), book.plan.layout.modulus
    masks = unmask_sum(numbers, self_seeds=own, dropped=pairs, modulus=modulus)
    return np.ascontiguousarray(masks)


def _unproved(problem: str, book: KeyBook, position: int) -> RoundRefusedError:
    name = book.names[position]
    remedy = "discard the round, and begin another without the client named"
    return RoundRefusedError(
        RoundReason.NOT_PROVED, problem, "evidence", name, remedy, blamed=[name]
    )
