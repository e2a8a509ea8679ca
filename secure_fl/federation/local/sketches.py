"""One client's sketch: made and sent as it is in an open experiment, released once with noise
everywhere else.

A client has one of the two, whatever else it is. Both answer the same questions from what the
federation may see of it, so that votes and choices of a client with a released sketch are
post-processing of that release.

**Guarantee**: what a client with a released sketch says of its examples here costs ε of the
sketch's two releases, however often it votes.

**Assumes**: values and labels of an example make its part of the sketch, and no other example does.

**Not covered**: clients of an open experiment.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from secure_fl.data.dataset import Dataset
from secure_fl.data.partitions import ClientData
from secure_fl.errors import PrivacyError
from secure_fl.federation.asks import Ask, GiveCentre, GiveSketch, Guide, VoteCentre
from secure_fl.federation.factory.sketch_form import FARTHEST, SketchForm, shortened
from secure_fl.federation.releases.releasing import Releasing
from secure_fl.pools.sketch import each_number, nearest_centre, parts_from, parts_of, sketch_of
from secure_fl.privacy.ledger import Release
from secure_fl.training.tasks import embed

if TYPE_CHECKING:
    from secure_fl.federation.local.workbench import Workbench

_ROUNDS = {"centre": 0, "sketch": 1}
"""Rounds under which the two releases are booked: each is made once a run."""


class ClientSketch(ABC):
    """What a client answers about its sketch.

    A client without the labels that the federation's sketches need takes no part in finding groups;
    afterwards it joins the group nearest to its plain sketch.
    """

    def __init__(self, train: Dataset, bench: Workbench, form: SketchForm) -> None:
        self._train, self._bench, self.form = train, bench, form

    @property
    def joins(self) -> bool:
        """Whether the client has the labels that sketches need."""
        return self.form.classes == 0 or self._train.labelled

    @property
    def noise_square(self) -> float:
        """Expected squared length of what noise adds to the sketch, at most 1; 0 where sketches are
        not compared, since the number of examples would follow from it.
        """
        return 0.0

    @abstractmethod
    def own(self) -> Tensor:
        """The sketch, float32 `[width]`; `[part]` from a client that does not join."""

    @property
    @abstractmethod
    def weights(self) -> Tensor:
        """Of the sketch's parts, float32 `[parts]`, one together; `[0]` where there is one part."""

    def releases(self, ask: Ask) -> tuple[Release, ...]:
        """What answering would release with noise."""
        return ()

    def centre(self, ask: GiveCentre) -> Tensor:
        """The client's share of the centre, `[F]`."""
        raise AssertionError("only released sketches are centred before they are given")

    def give(self, ask: GiveSketch) -> Tensor:
        """The sketch times its weights, the weights, the squared length, the noise's expected
        square and a one, `[S + W + 3]`; zeros from a client that does not join.
        """
        if not self.joins:
            return torch.zeros(self.form.width + self.form.weights + 3)
        own = self.own()
        weighed = each_number(self.weights, len(own)) * own
        square = float(weighed.double() @ own.double())
        return torch.cat([weighed, self.weights, torch.tensor([square, self.noise_square, 1.0])])

    def vote(self, ask: VoteCentre) -> Tensor:
        """Join the nearest centre of each start.

        Returns:
            One-hot blocks `[starts, K, S + W + 2]` in a row: in the chosen one the centred sketch
            times its weights, the weights, a one and the squared distance, else zeros.
        """
        starts, pools, width = ask.centres.shape
        blocks = torch.zeros(starts, pools, width + self.form.weights + 2)
        if self.joins:
            centred, each = self.own() - ask.mean, each_number(self.weights, width)
            index, distance = nearest_centre(centred, ask.centres, each)
            share = distance[:, None].float() / FARTHEST
            same = torch.cat([each * centred, self.weights, torch.ones(1)]).expand(starts, -1)
            mine = torch.cat([same, share], dim=1)
            blocks[torch.arange(starts), index] = mine
        return blocks.flatten()

    @property
    def there(self) -> bool:
        """Whether there is one to choose by: a released one is gone when its run has ended."""
        return True

    def nearest(self, guide: Guide) -> int:
        """The pool of the nearest group."""
        mean, centres = guide.mean, guide.centres
        if not self.joins:
            mean, centres = self.form.plain(mean), self.form.plain(centres)
            return int(nearest_centre(self.own() - mean, centres[None])[0])
        each = each_number(self.weights, len(mean))
        return int(nearest_centre(self.own() - mean, centres[None], each)[0])

    def _values(self, data: Dataset) -> Tensor:
        """Each example's vector, `[N, F]`."""
        if self.form.of_encoder:
            return embed(self._bench.kept_encoder, data.x, self._bench.factory.compute)
        return self.form.values(data.x)


class OpenSketch(ClientSketch):
    """The exact mean. Whoever reads sums over changing sets of clients reads it: for open
    experiments only.
    """

    def __init__(self, train: Dataset, bench: Workbench, form: SketchForm) -> None:
        super().__init__(train, bench, form)
        self._made: tuple[Tensor | None, Tensor, Tensor] | None = None

    def own(self) -> Tensor:
        return self._parts()[0]

    @property
    def weights(self) -> Tensor:
        return self._parts()[1]

    def _parts(self) -> tuple[Tensor, Tensor]:
        kept = self._bench.kept if self.form.of_encoder else None
        if self._made is None or self._made[0] is not kept:
            self._made = (kept, *self._exact())
        return self._made[1:]

    def _exact(self) -> tuple[Tensor, Tensor]:
        """The sketch and its weights, from the examples as they are."""
        if not (self.form.classes and self.joins):
            return sketch_of(self._values(self._train)), torch.zeros(0)
        data = self._train.with_labels()
        values = self._values(data)
        if self.form.by_label:
            made, weights = parts_of(values, data.y, self.form.classes)
            return made, weights[: self.form.weights]
        return sketch_of(values, data.y, self.form.classes), torch.zeros(0)


class ReleasedSketch(ClientSketch):
    """The noised mean, made once, stored and reused.

    **Guarantee**, **Assumes**, **Not covered**: as `privacy.private_sketch`; both releases are
    recorded by `releases` before they are made.
    """

    def __init__(
        self, train: Dataset, bench: Workbench, form: SketchForm, releasing: Releasing
    ) -> None:
        super().__init__(train, bench, form)
        assert form.released is not None
        # A plain sketch costs the same, so clients without labels release one.
        plain = replace(form.released, classes=0, dimensions=form.released.part, by_label=False)
        self._settings = form.released if self.joins else plain
        self._releasing = releasing
        self._made: tuple[Tensor, Tensor] | None = None
        self.released: Tensor | None = None
        """As it was made: votes and choices follow from it."""

    @property
    def noise_square(self) -> float:
        if not self.form.compared:
            return 0.0
        deviation = self._settings.events()[-1].noise_multiplier / len(self._train)
        return min(1.0, self._settings.width * deviation**2)

    def releases(self, ask: Ask) -> tuple[Release, ...]:
        """The centre's share, or the sketch. Raises PrivacyError: the encoder that sketches are
        taken from combines rows.
        """
        if not isinstance(ask, GiveCentre | GiveSketch):
            return ()
        if self.form.of_encoder:
            self._bench.check_kept_encoder()
        name, event = ("centre", 0) if isinstance(ask, GiveCentre) else ("sketch", -1)
        number, charged = _ROUNDS[name], self._settings.events()[event]
        return (self._releasing.release(ask, name, number, "statistic", charged),)

    def centre(self, ask: GiveCentre) -> Tensor:
        def make() -> dict[str, Tensor]:
            stream = self._releasing.stream(ask, "centre", _ROUNDS["centre"])
            values, count = self._values(self._train), len(self._train)
            return {"mean": self._settings.release_mean(values, count, stream)}

        return self._releasing.once(ask, "centre", _ROUNDS["centre"], make, reused=True)["mean"]

    def give(self, ask: GiveSketch) -> Tensor:
        def make() -> dict[str, Tensor]:
            labels = self._train.y if self._settings.classes else None
            stream = self._releasing.stream(ask, "sketch", _ROUNDS["sketch"])
            values, count = self._values(self._train), len(self._train)
            return {"sketch": self._settings.release(values, labels, count, ask.centre, stream)}

        made = self._releasing.once(ask, "sketch", _ROUNDS["sketch"], make, reused=True)
        self.released = made["sketch"]
        self._made = self._read(self.released)
        return super().give(ask)

    def _read(self, released: Tensor) -> tuple[Tensor, Tensor]:
        """The sketch and its weights, from the release alone."""
        if not self._settings.by_label:
            return shortened(released).float(), torch.zeros(0)
        sums, counts, fewest = self._settings.parts(released, len(self._train))
        made, weights = parts_from(sums, counts, fewest)
        return shortened(made, self.form.parts), weights[: self.form.weights]

    @property
    def there(self) -> bool:
        return self._made is not None

    def own(self) -> Tensor:
        """The sketch that was released; it is never made a second time."""
        if self._made is None:
            problem = "has not been released"
            remedy = "resume the run with its private-results folder in place"
            raise PrivacyError(problem, "sketch", f"client {self._releasing.client}", remedy)
        return self._made[0]

    @property
    def weights(self) -> Tensor:
        self.own()
        assert self._made is not None
        return self._made[1]


def client_sketch(data: ClientData, bench: Workbench, releasing: Releasing) -> ClientSketch:
    """The kind of sketch that the run's configuration asks for."""
    form = bench.factory.sketch
    train = data.train if form.of_encoder or data.sketched is None else data.sketched
    if form.released is None:
        return OpenSketch(train, bench, form)
    return ReleasedSketch(train, bench, form, releasing)
