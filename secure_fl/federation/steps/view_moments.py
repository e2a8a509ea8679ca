"""An encoder from two sums: fixed public features, whitened by how views of one example differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from secure_fl.federation.asks import SumFeatures, SumMoments
from secure_fl.federation.factory.factory import Factory
from secure_fl.federation.observe import Seen
from secure_fl.federation.program import SumForm
from secure_fl.federation.state import State
from secure_fl.federation.steps.step import Answer, Step
from secure_fl.federation.summing import Opening, Summed
from secure_fl.models.state import to_vector
from secure_fl.models.view_features import WhitenedEncoder
from secure_fl.models.whitening import fisher, whitening
from secure_fl.privacy.example_sums import ExampleSum
from secure_fl.privacy.view_moments import OpenedMoments
from secure_fl.secure_sum.grid import Frame

if TYPE_CHECKING:
    from secure_fl.federation.client import Client


class ViewMomentSums(Step):
    """One round for the centre of everybody's features, one for their moments: then the encoder is
    there, in the place of one that was trained.

    **What differences of its sums show.** Each of the two is opened once, over the clients that
    answered; answers are given again, and not made again, where a round failed before it was
    opened. So there are no two openings to compare. Without differential privacy the sums are
    exact: who is alone in the sum beside colluders shows them its own. The number of all examples
    is in both.
    """

    name: ClassVar[str] = "pretrain"

    @property
    def rounds(self) -> int:
        return self.facts.config.pretrain.rounds

    def sums(self, round_number: int) -> ExampleSum:
        """The sum that a round makes."""
        return self.factory.view_moments.sums[round_number]

    def form(self, round_number: int) -> SumForm:
        sums = self.sums(round_number)
        least = sums.shares.n_min if sums.shares else 2
        margin, shape = sums.noise_margin, _frame(sums.fields).shape
        opening = Opening(sums.bound, margin=margin, fewest=least, whole=True)
        return SumForm(self.name, self.everyone, shape, opening, repeatable=True)

    def ask(self, state: State) -> SumFeatures | SumMoments:
        if state.place.round == 0:
            return SumFeatures()
        return SumMoments(state.tensors["moments.centre"])

    def answer(self, ask: SumFeatures | SumMoments, client: Client, position: int) -> Answer:
        total = client.protection.sum_examples(ask)
        return Answer(_frame(len(total)).cut(total), Seen())

    def apply(self, state: State, opened: Summed) -> State:
        total, moments = opened.total.pools[0], self.factory.view_moments
        if state.place.round == 0:
            mean = moments.centre.opened(total, opened.survivors).mean
            return state.with_values({"moments.centre": mean})
        said = moments.opened_moments(total, opened.survivors)
        matrix = head_of(said, self.factory.moment_prior)
        encoder = encoder_of(self.factory, state.tensors["moments.centre"], matrix)
        return state.with_values({"encoder": encoder}, without=["moments.centre"])


def _frame(fields: int) -> Frame:
    """Where a client's fields lie: in the one block there is."""
    return Frame(pools=1, shared=0, pooled=fields)


def head_of(said: OpenedMoments, prior: Tensor | None) -> Tensor:
    """The matrix that moments make, float64 `[F, F]`; the same bits wherever it is computed."""
    if said.between is None:
        return whitening(said.within, said.deviation, said.examples, prior)
    noise = said.deviation, said.deviation
    return fisher(said.within, said.between, *noise, said.examples, prior)


def encoder_of(factory: Factory, centre: Tensor, matrix: Tensor) -> Tensor:
    """The encoder of a centre `[F]` and a matrix `[F, F]`, as a vector of the state, float32."""
    encoder = factory.encoder()
    assert isinstance(encoder, WhitenedEncoder)
    with torch.no_grad():
        encoder.centre.copy_(centre)
        encoder.whitening.copy_(matrix)
    return to_vector(encoder)
