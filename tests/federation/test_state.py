"""A replica's state: one digest for one content, and bytes that are read back or refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from secure_fl.crypto.refusals import Reason, RefusedError
from secure_fl.crypto.strict_json import canonical
from secure_fl.federation.state import Place, State
from secure_fl.federation.tensors import pack

MODEL = torch.arange(6.0).view(2, 3)
TENSORS = {"model": MODEL, "steps": torch.tensor([1, 2]), "empty": torch.empty(0)}
STATE = State(Place(1, 2), TENSORS, {"bound": 0.5, "able": [1, 2]})


def other_shape(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.view(3, 2)


def other_value(tensor: torch.Tensor) -> torch.Tensor:
    changed = tensor.clone()
    changed[0, 0] = -0.0
    return changed


def test_a_state_is_read_back_as_it_was() -> None:
    read = State.decode(STATE.encode())
    assert read == STATE
    assert read.place == STATE.place
    assert dict(read.facts) == dict(STATE.facts)
    assert all(torch.equal(read.tensors[name], tensor) for name, tensor in TENSORS.items())


def test_the_digest_follows_content_and_not_order() -> None:
    tensors, facts = (dict(reversed(part.items())) for part in (TENSORS, dict(STATE.facts)))
    turned = State(STATE.place, tensors, facts)
    assert turned.digest == STATE.digest
    assert len(STATE.digest) == 32


@pytest.mark.parametrize(
    "changed",
    [
        lambda: STATE.at(Place(1, 3)),
        lambda: STATE.at(Place(2, 2)),
        lambda: STATE.with_values(facts={"bound": 0.25}),
        lambda: STATE.with_values({"model": other_shape(TENSORS["model"])}),
        lambda: STATE.with_values({"model": other_value(TENSORS["model"])}),
        lambda: STATE.with_values({"model": TENSORS["model"].double()}),
        lambda: STATE.with_values(without=["empty"]),
        lambda: STATE.with_values({"another": TENSORS["empty"]}, without=["empty"]),
    ],
)
def test_every_change_is_another_digest(changed: Callable[[], State]) -> None:
    assert changed().digest != STATE.digest
    assert State(Place(1, 2), TENSORS, {"bound": 0.5, "able": [1, 2]}).digest == STATE.digest


def test_a_state_cannot_be_written_to() -> None:
    with pytest.raises(TypeError):
        STATE.tensors["model"] = torch.zeros(1)  # type: ignore[index]
    with pytest.raises(TypeError):
        STATE.facts["bound"] = 1.0  # type: ignore[index]


def test_its_repr_shows_names_only() -> None:
    names = "tensors=['empty', 'model', 'steps'], facts=['able', 'bound']"
    assert repr(STATE) == f"State(Place(step=1, round=2), {names})"


@given(st.integers(0, len(STATE.encode()) - 1), st.integers(1, 255))
def test_a_flipped_byte_is_refused_or_another_state(place: int, flip: int) -> None:
    data = bytearray(STATE.encode())
    data[place] ^= flip
    try:
        read = State.decode(bytes(data))
    except RefusedError:
        return
    assert read.digest != STATE.digest


@given(st.binary(max_size=200))
def test_other_bytes_are_refused(data: bytes) -> None:
    head = STATE.encode()[:18]
    for each in (data, head + data, STATE.encode()[: len(data)]):
        with pytest.raises(RefusedError) as caught:
            State.decode(each)
        assert caught.value.reason == Reason.MALFORMED


@pytest.mark.parametrize("place", [[0], [0, -1], [0, 2**32], [0, True], [0, 0.0]])
def test_places_are_two_small_numbers(place: list[Any]) -> None:
    head = canonical({"facts": {}, "place": place})
    with pytest.raises(RefusedError):
        State.decode(STATE.encode()[:18] + len(head).to_bytes(4, "big") + head + pack({}))


def test_nothing_longer_than_the_limit_is_read() -> None:
    data = STATE.encode()
    State.decode(data, most=len(data))
    with pytest.raises(RefusedError, match="within"):
        State.decode(data, most=len(data) - 1)
