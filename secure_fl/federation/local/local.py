"""One client's own: its examples, the modules that it computes with, its sketch."""

from __future__ import annotations

from secure_fl.data.dataset import Dataset
from secure_fl.data.partitions import ClientData
from secure_fl.errors import ConfigError
from secure_fl.federation.asks import Guide, PoolScore
from secure_fl.federation.local.moments import ClientMoments
from secure_fl.federation.local.sketches import ClientSketch
from secure_fl.federation.local.workbench import Workbench
from secure_fl.pools.pool_set import PoolSet


class Local:
    """What a client's protection works on; the same for all of them.

    Attributes:
        before: the pool that the client used when the run had ended, where the run goes on for
            longer and its sketch is gone.
    """

    def __init__(
        self, data: ClientData, bench: Workbench, sketch: ClientSketch | None = None
    ) -> None:
        self.data, self.bench = data, bench
        self.factory, self.facts = bench.factory, bench.factory.facts
        self.own_sketch = sketch
        self.before: int | None = None

    @property
    def sketch(self) -> ClientSketch:
        """What the client answers about its sketch. Raises ConfigError: pools start without any."""
        if self.own_sketch is None:
            value, remedy = self.facts.config.pools.start, 'set pools.start = "sketch"'
            raise ConfigError("this run has no sketches", "pools.start", value, remedy)
        return self.own_sketch

    @property
    def moments(self) -> ClientMoments:
        """What the client adds to sums of view moments."""
        return ClientMoments(self.data.train, self.bench, self.seed("views"))

    @property
    def choosing_examples(self) -> Dataset:
        """The examples by which the client chooses a pool."""
        validates = self.facts.config.pools.select_on == "validation"
        return self.data.validation if validates else self.data.train

    @property
    def pool_examples(self) -> Dataset:
        """The examples that the client trains a pool on."""
        train = self.data.train
        supervised = self.facts.config.pools.task == "supervised"
        return train.with_labels() if supervised else train

    @property
    def trains(self) -> bool:
        """Whether there is a batch of what its pool's task needs."""
        return len(self.pool_examples) >= 2

    def weight(self, examples: int, weights: str) -> float:
        """What the client counts in an average: its examples over the largest client's, or 1."""
        return min(1.0, examples / self.facts.largest) if weights == "examples" else 1.0

    def found(self, guide: Guide | None) -> int | None:
        """The pool of the client's group by its sketch, or that of an ended run."""
        if guide is None or not self.sketch.there:
            return self.before
        return self.sketch.nearest(guide)

    def tested(
        self, pools: PoolSet, choice: int, position: int, losses: tuple[float, ...] = ()
    ) -> PoolScore:
        """How the chosen pool does on the client's test examples."""
        model, task = self.bench.pool_model, self.factory.pool_task(self.data.id, position)
        self.factory.pool_layout.load(model, pools, choice)
        test = task.score(model, self.data.test, self.seed("test"))
        return PoolScore(choice, losses, test.loss, test.accuracy, test.balanced_accuracy)

    def seed(self, *purpose: str | int) -> int:
        """The seed of one of the client's draws that are no secret."""
        return self.facts.seed("client", self.data.id, *purpose)
