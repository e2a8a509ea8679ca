"""`Federation`: a whole run, phase by phase, resumable after every round."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from secure_fl.arguments import as_callbacks, as_config, as_folder, encoder_named
from secure_fl.callbacks.base import Callback
from secure_fl.callbacks.progress import shown
from secure_fl.config import FederationConfig
from secure_fl.config_file import dump_config
from secure_fl.data.dataset import Dataset, Splits
from secure_fl.data.digests import examples_digest
from secure_fl.data.joining import join
from secure_fl.data.partitions import ClientData, count_classes, partition, resolved
from secure_fl.data.scaling import Scaling
from secure_fl.data.sources import given_sources, load_sources
from secure_fl.data.summary import PartitionSummary, summarise
from secure_fl.data.views import Augmentation, check_range
from secure_fl.engines.book import Book
from secure_fl.engines.embedded import EmbeddedEngine
from secure_fl.engines.recorder import Recorder
from secure_fl.engines.rounds import Rounds
from secure_fl.engines.simulation import Simulation
from secure_fl.engines.workers import Own, Workers, apart
from secure_fl.federation.factory.factory import Factory
from secure_fl.federation.factory.path_check import check_paths
from secure_fl.federation.facts import PublicFacts
from secure_fl.federation.local.workbench import ModelsMade
from secure_fl.federation.releases.box import ReleaseBox
from secure_fl.federation.releases.budget import BudgetGate
from secure_fl.federation.releases.privacy_record import privacy_record, sketch_record
from secure_fl.federation.releases.run_state import RunState
from secure_fl.federation.run_folder.folder import RunFolder
from secure_fl.federation.run_folder.manifest import Manifest
from secure_fl.federation.run_folder.metrics import RoundRecord
from secure_fl.federation.state import Place, State
from secure_fl.federation.steps.order import steps_of
from secure_fl.federation.steps.program import StepProgram
from secure_fl.federation.whole_run.alerts import majorities
from secure_fl.federation.whole_run.central import CentralSet, central_data, compared
from secure_fl.federation.whole_run.extension import check_lengths_only, go_on, last_choices
from secure_fl.federation.whole_run.prologue import Prologue
from secure_fl.files import held, read_json, remove_unfinished
from secure_fl.finished.artifacts import ModelCard, load_encoder, save_models
from secure_fl.finished.inference import Models
from secure_fl.finished.result import Result
from secure_fl.finished.summary import final_summary, picture
from secure_fl.records import document

_REMEDY = "restore the file that the run wrote, or start a new run"


class Federation:
    """Clients with data, a configuration and the phases that follow from it, in this process.

    Args:
        config: the run: a configuration, a dict of its tables, or the path of a TOML file;
            `FederationConfig()` when not given.
        data: examples of your own instead of `config.data.sources`: a `Dataset`, or what
            `Dataset.of` takes; used as they are, but for columns of tables (`data.scale`).
        encoder: a module of your own instead of `config.model`; its trainable layers are
            initialised anew from the seed. Or a function `seed -> module`, whose weights are kept:
            `lambda seed: module` starts every model from the weights given.
        augment: a callable on batches instead of `config.views`; under example-level privacy it is
            given one example at a time.
        callbacks: hooks; `secure_fl.callbacks` has some ready to use.

    Sets torch's number of threads in this process to `runtime.threads`.

    Raises:
        SecureFLError: data, models and configuration do not fit together; each with field, value
            and remedy.
    """

    def __init__(
        self,
        config: FederationConfig | Mapping[str, Any] | Path | str | None = None,
        *,
        data: Any = None,
        encoder: nn.Module | Callable[[int], nn.Module] | None = None,
        augment: Augmentation | None = None,
        callbacks: Sequence[Callback] | Callback | None = (),
    ) -> None:
        self.config = as_config(config, own_encoder=encoder is not None)
        self._callbacks = as_callbacks(callbacks)
        self._own_data = data is not None
        sources = self._sources(data)
        self.config = resolved(self.config, sources, own=self._own_data)
        self.manifest = Manifest.of(self.config)
        dealt = partition(sources, self.config)
        self._scaling = Scaling.of(self.config, dealt[0].train)
        self._scales = self._scaling.statistics(dealt)
        self.clients: list[ClientData] = [self._scaling.client(client) for client in dealt]
        self._custom_encoder = encoder is not None
        self._workers, self.config = apart(self.config)
        self._own = Own.of(encoder, augment) if self._workers > 1 else Own()
        self._central = central_data(self.config, self.clients[0].train)
        self._held = compared(self.config, sources)
        self._seen = None if self._central is None else self._seen_at_a_server()
        if augment is None and self.config.augments:
            for examples in [*(client.train for client in self.clients), self._central]:
                if examples is not None:
                    check_range(examples)
        self.factory = self._drawn(encoder, augment)

    def _sources(self, data: Any) -> list[Splits]:
        if data is not None:
            return given_sources(data, self.config.data)
        return load_sources(self.config.data, self.config.seed)

    def _drawn(
        self, encoder: nn.Module | Callable[[int], nn.Module] | None, augment: Augmentation | None
    ) -> Factory:
        shape = self.clients[0].train.shape
        classes, private = count_classes(self.clients, self.config), self.config.privacy.unit
        # Clients count alike under privacy, where sizes may not leave them.
        sizes = [len(client.train) for client in self.clients] if private == "none" else [1]
        facts = PublicFacts(self.config, shape, classes, len(self.clients), max(sizes))
        return Factory.of(facts, encoder, augment)

    def __repr__(self) -> str:
        clients, shape = len(self.clients), self.factory.facts.shape
        return f"Federation({self.config.name!r}, clients={clients}, shape={shape})"

    def summarise(self) -> PartitionSummary:
        """What each client holds."""
        return summarise(self.clients)

    def run(
        self, out: Path | str | None = None, *, resume: bool = False, progress: bool | None = None
    ) -> Result:
        """Run all phases.

        Args:
            out: folder to write to; nothing is written when None.
            resume: continue the run in `out` after its last checkpoint; the results are those of an
                uninterrupted run. A configuration with more `pools.rounds`, or `pretrain.rounds`
                where no pools have begun from the encoder, makes a run longer, a finished one too.
            progress: say what is not protected, and how far the run is, on stderr; None: where that
                is a terminal or a notebook.

        Raises:
            RunFolderError: `out` holds something and `resume` is off, or a run of another
                configuration, or is in use by another run.
            FileError: a file cannot be read or written; the run can be resumed.
            ConfigError: an argument that is none.
            PrivacyError: the run's ledger is gone or has lost releases, or a budget would
                be passed.
            TrainingError: a loss is not finite.
        """
        folder = as_folder(out, resume=resume)
        with shown(progress, self.config) as bar, encoder_named(self._custom_encoder):
            self._heard = [*bar, *self._callbacks]
            return self._run_in(folder, resume=resume)

    def _run_in(self, out: Path | None, *, resume: bool) -> Result:
        check_paths(self.factory, max(len(client.train) for client in self.clients))
        seen = None if resume else self._seen or self._seen_at_a_server()
        found = RunFolder.open if resume else RunFolder.new
        with ExitStack() as holding:
            if out is None:
                return self._run(None, seen, holding, resume=False)
            found(out)
            holding.enter_context(held(out))
            remove_unfinished(out)
            return self._run(found(out), seen, holding, resume=resume)

    def _run(
        self, folder: RunFolder | None, seen: CentralSet | None, holding: ExitStack, *, resume: bool
    ) -> Result:
        restored, box = self._prepare(folder, seen, holding, resume=resume)
        central = None if self._central is None else self._scaling.alone(self._central)
        prologue = Prologue(self.factory, central, self._loaded_encoder)
        # An encoder that does not fit is refused before anybody is charged for it.
        initial = {} if restored is not None else prologue.initial()
        if self.config.pretrain.mode == "load" and restored is None:
            source = Path(self.config.pretrain.load_from or "")
            self._gate.load_encoder(RunFolder.open(source, "pretrain.load_from"), len(self.clients))
        program = StepProgram(self.factory, steps_of(self.factory), initial)
        engine = self._engine(program, box)
        holding.callback(engine.close)
        book = self._book(folder, box)
        chosen = last_choices(each.metrics for each in book.records)
        if self.factory.facts.begun_as is not None:
            engine.remind(chosen)
        groups = [client.group for client in self.clients]
        rounds = Rounds(program, engine, self._gate, groups, self._replied, self._recorder)
        simulation = Simulation(
            program,
            prologue,
            engine,
            rounds,
            self._gate,
            book,
            self._pooled_data,
            groups,
            self._replied,
            resumed=resume,
            known=bool(chosen),
        )
        # A program enters its first step once a server's own pre-training is over.
        state = simulation.to_the_end(restored or State(Place(0, 0), initial))
        result = self._finish(state, book.records, folder)
        box.close()
        self._recorder.end()
        self._tell("on_end", result)
        return result

    def _book(self, folder: RunFolder | None, box: ReleaseBox) -> Book:
        return Book(
            self.config,
            self.manifest,
            folder,
            box,
            self._gate,
            self._recorder,
            majorities(self.clients),
            self._digest,
            self._tell,
        )

    def _engine(self, program: StepProgram, box: ReleaseBox) -> EmbeddedEngine | Workers:
        """Who answers: clients in this process, or in workers."""
        if self._workers == 1:
            return EmbeddedEngine(self.clients, program, box, self._gate.already)
        earlier = self._gate.earlier
        return Workers(self.clients, program, self._workers, box, earlier, self._own)

    def _seen_at_a_server(self, resumed: RunFolder | None = None) -> CentralSet | None:
        """`resumed`: the folder of this run, where its encoder was loaded already."""
        return CentralSet.checked(self.config.pretrain, self._central, self._held, resumed)

    @cached_property
    def _digest(self) -> str:
        """Of configuration and encoder's layout: public, and a resumed run must share it."""
        return self._digest_of(self.config)

    def _digest_of(self, config: FederationConfig) -> str:
        digest = hashlib.sha256(dump_config(config).encode())
        layout = [
            (name, tuple(tensor.shape))
            for name, tensor in self.factory.make_encoder(0).state_dict().items()
        ]
        digest.update(repr(layout).encode())
        return digest.hexdigest()

    @property
    def _names(self) -> tuple[str, ...]:
        """Of the clients."""
        return tuple(client.name or str(client.id) for client in self.clients)

    @property
    def _examples_digest(self) -> str:
        """Of every client's examples: for the experimenter, and a resumed run must share it."""
        return examples_digest(self.clients)

    def _prepare(
        self, folder: RunFolder | None, seen: CentralSet | None, holding: ExitStack, *, resume: bool
    ) -> tuple[State | None, ReleaseBox]:
        """State to go on from, None where the run begins, and the box of private results; opens
        the gate.

        A new run's ledger is there before the run counts as begun.

        `holding`: what is held until the run ends; the run's own state is added.
        """
        if folder is None:
            self._gate = self._open_gate(None)
            self._recorder = Recorder(None, self.config, len(self.clients))
            self._recorder.begins()
            return None, ReleaseBox(None)
        opened = self._open_gate(None if resume else folder.ledger)
        if resume:
            self._check_examples(folder)
        else:
            self._begin(folder, seen)
        kept = None if opened.ledger is None else RunState(folder.run)
        if kept is not None:
            kept.lies_apart_from(folder.path)
            holding.enter_context(kept.held())
        self._gate = self._open_gate(folder.ledger, kept, resumed=True)
        self._gate.follows(folder.marks())
        self._recorder = Recorder(folder, self.config, len(self.clients))
        state = None
        if resume:
            names = [step.name for step in steps_of(self.factory)]
            state, self.factory = go_on(
                folder, self.factory, self._gate, self.clients, self._digest_of, names
            )
            self._seen_at_a_server(
                folder if state is not None and "encoder" in state.tensors else None
            )
        self._recorder.begins()
        return state, ReleaseBox(folder.results, kept, self._gate.charged, folder.check_own)

    def _check_examples(self, folder: RunFolder) -> None:
        """Refuse to resume a run of other examples, as far as its record shows them."""
        if not self.manifest.writes("partition.json"):
            return
        recorded = read_json(folder.partition, dict[str, Any], _REMEDY).get("digest")
        if recorded != self._examples_digest:
            check_lengths_only(folder.read_config(), self.config)
            raise folder.of_another_run()

    def _open_gate(
        self, path: Path | None, kept: RunState | None = None, *, resumed: bool = False
    ) -> BudgetGate:
        return BudgetGate(
            self.config.privacy, path, kept, sketches=self.config.noises_sketches, resumed=resumed
        )

    def _begin(self, folder: RunFolder, seen: CentralSet | None) -> None:
        """Write what a new run's folder begins with."""
        documents: dict[Path, dict[str, Any]] = {}
        if self.manifest.writes("partition.json"):
            documents[folder.partition] = self.summarise().as_dict() | {
                "digest": self._examples_digest
            }
        if seen is not None:
            documents[folder.central] = seen.as_dict()
        folder.begin(self.config, documents, self._digest)

    def _loaded_encoder(self) -> nn.Module:
        """The encoder of another run, loaded into one of this run's kind."""
        assert self.config.pretrain.load_from is not None
        return load_encoder(self.config.pretrain.load_from, self.factory.make_encoder(0))

    def _pooled_data(self) -> tuple[Dataset, Dataset]:
        """All clients' training and test examples: only a simulation has them in one place."""
        return join([c.train for c in self.clients], "all clients"), join(
            [c.test for c in self.clients], "all clients"
        )

    def _finish(self, state: State, records: list[RoundRecord], folder: RunFolder | None) -> Result:
        made, choices = ModelsMade.of(self.factory, state), dict[int, int]()
        if made.pools:
            found = records[-1].metrics.choices or {}
            choices = {int(client): pool for client, pool in found.items()}
        claimed = privacy_record(self.config, self._gate, records)
        charged = claimed, sketch_record(self.config, self._gate)
        summary = final_summary(self.config, records, self.summarise(), made.sizes, *charged)
        card = ModelCard.of(
            self.factory.facts,
            self._scaling,
            self.clients,
            self._scales,
            choices,
            own_data=self._own_data,
            own_encoder=self._custom_encoder,
        )
        if folder is not None:
            folder.check_own()
            save_models(folder, made.encoder, made.pools, made.guide, card, made.centre)
            if self.manifest.writes("embedding.json"):
                drawn = picture(self.factory, state.tensors["encoder"], self.clients)
                folder.write(folder.embedding, drawn)
            folder.write(folder.summary, document(summary))
        kept = (made.encoder.eval(), made.pools, made.guide, made.centre)
        models, path = Models(self.config, card, *kept), None if folder is None else folder.path
        return Result(models, choices, summary, records, path, self._names)

    def _tell(self, hook: str, *arguments: object) -> None:
        for callback in self._heard:
            getattr(callback, hook)(*arguments)

    def _replied(self, client: int, done: int, total: int) -> None:
        if self.manifest.experiments:
            self._tell("on_reply", self._names[client])
        self._tell("on_client", done, total)
