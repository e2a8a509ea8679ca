"""The round that an attack on updates looks at, computed by the run's own parties.

It is the first one of federated pre-training: its model is public, and its gradients are the
largest. `AttackedRound.seen` swaps one example of a client for another and gives what the run then
shows of that client, from the client's own answer on: the change of the model by its summand alone
where each summand is noised by itself (example level) or is read anyway (no protection), else by
the sum over the cohort, which is all that is opened.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from secure_fl.audit.subject import Subject
from secure_fl.data.dataset import UNLABELLED, Dataset
from secure_fl.data.partitions import ClientData
from secure_fl.engines import embedded
from secure_fl.engines.recorder import client_name
from secure_fl.federation.client import Client
from secure_fl.federation.factory.factory import Factory
from secure_fl.federation.local.workbench import Workbench
from secure_fl.federation.releases.box import ReleaseBox
from secure_fl.federation.state import State
from secure_fl.federation.steps.order import steps_of
from secure_fl.federation.steps.pretrain import Pretrain
from secure_fl.federation.steps.program import StepProgram
from secure_fl.federation.summing import Summed
from secure_fl.models.heads import EncoderProjector
from secure_fl.models.state import averaged_tensors, load_vector, to_vector
from secure_fl.objectives.objective import Objective
from secure_fl.privacy.accounting import Charge, epsilon_of
from secure_fl.privacy.adjacency import Adjacency
from secure_fl.secure_sum.grid import Blocks
from secure_fl.secure_sum.robust import draw_groups
from secure_fl.seeds import generator_of
from secure_fl.training.fit import LocalSpec


@dataclass(frozen=True)
class AttackedRound:
    """A client of a run's first round, and who sees what of it.

    Attributes:
        program: the run's, at `state`.
        clients: everybody's examples.
        position, client: the attacked one's place in the cohort, and its number.
    """

    program: StepProgram
    state: State
    clients: list[ClientData] = field(repr=False)
    position: int
    client: int

    @classmethod
    def of(cls, subject: Subject, seed: int) -> AttackedRound:
        """The round, and one of its clients drawn by `seed`. Raises what `Federation` raises."""
        federation = subject.federation
        program = StepProgram(federation.factory, steps_of(federation.factory))
        state = program.start()
        cohort = program.form(state.place).cohort
        drawn = int(torch.randint(len(cohort), (1,), generator=generator_of(seed, "client")))
        return cls(program, state, federation.clients, drawn, cohort[drawn])

    @property
    def factory(self) -> Factory:
        """What makes the run's models and views."""
        return self.program.factory

    @property
    def data(self) -> ClientData:
        """The attacked client's examples."""
        return self.clients[self.client]

    @property
    def objective(self) -> Objective:
        """What the attacked client trains for."""
        return self.factory.objective(self.client, self.position)

    @cached_property
    def spec(self) -> LocalSpec:
        """How a client trains in this round."""
        settings = self.program.facts.config.pretrain
        return LocalSpec.at_round(settings, 0, settings.rounds)

    @property
    def steps(self) -> int:
        """Steps that the client's local training takes."""
        count, size = len(self.data.train), self.spec.batch_size
        return self.spec.epochs * max(1, count // size)

    @property
    def rows(self) -> int:
        """Views that go into what the run shows: of every client in one sum, over all steps."""
        shown = self._summed if self.sums_only else [(self.position, self.client)]
        return sum(2 * self.spec.epochs * len(self.clients[who].train) for _, who in shown)

    def model(self) -> EncoderProjector:
        """The round's model, fresh, in the mode that it is trained in."""
        made = self.factory.encoder_projector()
        load_vector(made, self.state.tensors["model"])
        return made.train()

    @cached_property
    def outside(self) -> Tensor:
        """Examples of the attacked client's law that nobody trains on, `[N, ...]`, no two alike:
        its test examples, then those of clients of its group.
        """
        alike = [each for each in self.clients if each.group == self.data.group]
        tests = [self.data.test.x, *(each.test.x for each in alike if each is not self.data)]
        every, found = torch.cat(tests), dict[bytes, int]()
        for number, row in enumerate(every):
            found.setdefault(row.numpy().tobytes(), number)
        trained = {row.numpy().tobytes() for each in alike for row in each.train.x}
        return every[[number for key, number in found.items() if key not in trained]]

    # Without a defence

    def plain(self, images: Tensor, steps: int, seed: int) -> Tensor:
        """The change `[P]` by ordinary local training on these images alone, so many steps on all
        of them, each with new views.
        """
        spec = replace(self.spec, epochs=steps, batch_size=len(images))
        return self._trained(Dataset(images, _unlabelled(images), 0), spec, seed)

    def whole(self, source: Tensor, row: int, seed: int) -> Tensor:
        """The change `[P]` by the client's whole local training without any defence, with `source`
        in place of its example `row`.
        """
        return self._trained(self._swapped(source, row).train, self.spec, seed)

    def _trained(self, data: Dataset, spec: LocalSpec, seed: int) -> Tensor:
        model = self.model()
        task = self.factory.pretrain_task(self.client, self.position)
        task.fit(model, data, spec, seed)
        return to_vector(model) - self.state.tensors["model"]

    # Through the run's own path

    @property
    def sums_only(self) -> bool:
        """Whether the sum over the cohort is what hides the client."""
        config = self.program.facts.config
        unit, protected = config.privacy.unit, config.security.protection != "plain"
        return unit == "client" or (unit == "none" and protected)

    @property
    def defended(self) -> bool:
        """Whether anything hides the client's update."""
        return self.sums_only or self.program.facts.config.privacy.unit == "example"

    @cached_property
    def epsilon(self) -> float:
        """What the client's releases of this round cost at replace-one, at the run's δ; 0 where
        there are none, and what is shown must show nothing.
        """
        client = Client.of(
            self.program, self.data, self._bench, embedded.new_noise(), ReleaseBox(None)
        )
        released = client.releases(self.state, self.position)
        charges = [Charge(each.event, Adjacency.REPLACE_ONE) for each in released]
        delta = self.program.facts.config.privacy.delta
        return epsilon_of(charges, delta) if charges else 0.0

    def seen(self, source: Tensor, row: int) -> Tensor:
        """The change of the model `[P]`, float32, that the run shows, with `source` in place of the
        client's example `row`, and with noise of its own where there is noise.
        """
        own = self._answer(self._swapped(source, row), self.position)
        if not self.sums_only or self._others is None:
            return self._moved(own, 1).float()
        return self._moved(own + self._others, len(self._summed)).float()

    def _moved(self, total: Blocks, survivors: int) -> Tensor:
        step = self.program.step(self.state.place)
        assert isinstance(step, Pretrain)
        updates, bound = step.updates, step.bound(self.state)
        if updates.grouping is None:
            return updates.moved(Summed(total, survivors), bound).pooled[0]
        return updates.grid.means(total, survivors, 1)[1][0]

    @cached_property
    def _others(self) -> Blocks | None:
        """The sum over everybody else whose summand is opened with the attacked client's."""
        total: Blocks | None = None
        for place, who in self._summed:
            if who != self.client:
                summand = self._answer(self.clients[who], place)
                total = summand if total is None else total + summand
        return total

    @property
    def _summed(self) -> list[tuple[int, int]]:
        """(place in the cohort, client) of those in one sum with the attacked client."""
        form = self.program.form(self.state.place)
        places = list(enumerate(form.cohort))
        if form.opening.group_size is None:
            return places
        names = {client_name(who): (place, who) for place, who in places}
        groups = draw_groups(list(names), form.opening.group_size, form.opening.group_seed)
        mine = next(group for group in groups if client_name(self.client) in group)
        return [names[name] for name in mine]

    def _answer(self, data: ClientData, position: int) -> Blocks:
        """A client's summand, with coins and noise that no other answer has."""
        noise, box = embedded.new_noise(), ReleaseBox(None)
        client = Client.of(self.program, data, self._bench, noise, box)
        return client.answer(self.state, position)

    @cached_property
    def _bench(self) -> Workbench:
        return Workbench(self.factory)

    def _swapped(self, source: Tensor, row: int) -> ClientData:
        train = self.data.train
        x = train.x.clone()
        x[row] = source
        return replace(self.data, train=replace(train, x=x))

    def gradients(self, change: Tensor, steps: int) -> dict[str, Tensor]:
        """The gradient of each trained parameter by name from a change `[P]` of the model, taken to
        be the same in all steps. Exact after one step that nothing has clipped or noised.
        """
        momentum, decay, start = self.spec.momentum, self.spec.weight_decay, 0
        weight = sum((1 - momentum**step) / (1 - momentum) for step in range(1, steps + 1))
        model, made = self.model(), dict[str, Tensor]()
        trained = dict(model.named_parameters())
        for name, tensor in averaged_tensors(model):
            moved = change[start : start + tensor.numel()].view(tensor.shape)
            start += tensor.numel()
            if name in trained:
                made[name] = -moved / (self.spec.lr * weight) - decay * tensor.cpu()
        return made


def _unlabelled(images: Tensor) -> Tensor:
    return torch.full((len(images),), UNLABELLED)
