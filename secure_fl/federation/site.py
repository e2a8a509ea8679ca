"""What a real client brings to a federation: its examples, its policy, its ledger, its noise.

    folder/ledger.json           what this client has released, and nothing of anybody else's
    folder/results/…             answers that were made, sealed, to be given again as they were
    folder/transcript.jsonl      the server's transcript as this client was shown it

Where the plan follows another, ledger and stored sketch go on from this client's folder there.

Guarantee: the site's own policy judges the plan, from numbers that are computed here; the gate
charges a release before it is made, and refuses what passes the plan's budget; an answer that was
made is stored before it is sent, so the same question gets the same bytes over any number of kills.
Noise comes from this process' own key, which the operating system gives.
Assumes: the folder is the party's own and held (`PartyFolder`); the user's state directory, where
the key of stored answers and the ledger's mark lie, is not put back with it.
Not covered: what other federations release of the same examples.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import Tensor, nn

from secure_fl.crypto.roster import Roster
from secure_fl.data.partitions import ClientData
from secure_fl.errors import ConfigError, PrivacyError
from secure_fl.federation.asks import PoolScore
from secure_fl.federation.client import Client
from secure_fl.federation.factory.factory import Factory
from secure_fl.federation.factory.path_check import check_paths
from secure_fl.federation.local.workbench import Workbench
from secure_fl.federation.parties.before import Before
from secure_fl.federation.parties.client import Site
from secure_fl.federation.plan import Plan
from secure_fl.federation.policy.cost import OwnData
from secure_fl.federation.policy.installed import code_digest
from secure_fl.federation.policy.policy import Policy
from secure_fl.federation.policy.terms import PlanTerms
from secure_fl.federation.program import Answers, Program
from secure_fl.federation.releases.box import ReleaseBox
from secure_fl.federation.releases.budget import BudgetGate
from secure_fl.federation.releases.run_state import RunState
from secure_fl.federation.state import Place, State
from secure_fl.federation.steps.evaluate import Evaluate
from secure_fl.federation.steps.order import steps_of
from secure_fl.federation.steps.program import StepProgram
from secure_fl.federation.transcript.following import KeptFollower
from secure_fl.files import is_file
from secure_fl.models.state import to_vector
from secure_fl.privacy.ledger import Release
from secure_fl.privacy.noise import NoiseSource
from secure_fl.secure_sum.grid import Blocks

LEDGER = "ledger.json"
"""In the folder of a party: its ledger."""
_RESULTS, _TRANSCRIPT = "results", "transcript.jsonl"


def program_of(
    plan: Plan,
    *,
    encoder: Callable[[int], nn.Module] | nn.Module | None = None,
    initial: Mapping[str, Tensor] | None = None,
) -> StepProgram:
    """The program that a plan asks for; everybody in it makes the same. Raises ConfigError: the
    encoder comes from elsewhere, and is not given; ModelError: the encoder does not fit the
    examples.

    Args:
        plan: accepted.
        encoder: as of `secure_fl.Federation`, where it is not the configuration's.
        initial: tensors of the first state, where the encoder comes from elsewhere.
    """
    config = plan.config
    if config.pretrain.mode in ("load", "centralized") and not initial:
        remedy = "give everybody the encoder that the federation begins with"
        mode = config.pretrain.mode
        raise ConfigError("begins elsewhere", field="pretrain.mode", value=mode, remedy=remedy)
    factory = Factory.of(plan.facts, encoder)
    if not initial and config.pretrain.mode != "federated":
        initial = {"encoder": to_vector(factory.encoder())}
    return StepProgram(factory, steps_of(factory), initial)


@dataclass
class LocalSite:
    """One site; `site` is what `FederationClient` takes.

    Args:
        folder: of its party, held.
        name: of its client on the roster.
        roster: in force.
        data: its examples.
        policy: its own.
        program: makes the program of a plan.
        today: by this site's clock.
        before: what this client had come to under the plan that this one follows; None where there
            is no such thing, and once it goes on from there.
    """

    folder: Path
    name: str
    roster: Roster
    data: ClientData = field(repr=False)
    policy: Policy
    program: Callable[[Plan], StepProgram] = program_of
    today: Callable[[], datetime.date] = datetime.date.today
    before: Before | None = None

    def __post_init__(self) -> None:
        self._state = _state_of(self.folder)
        self._state.lies_apart_from(self.folder)
        self._follower = KeptFollower(self.folder / _TRANSCRIPT)
        self._gate: BudgetGate | None = None
        self._box = ReleaseBox(None)

    @property
    def site(self) -> Site:
        """For `FederationClient`."""
        return Site(self.prepare, self.judge, self.admit, self._follower, self.held)

    def judge(self, plan: Plan) -> str | None:
        """Why this site does not take part in a plan; None where it does."""
        if self.before is not None and (found := self.before.objection(plan)) is not None:
            return found
        train, code, accounted = self.data.train, code_digest(), self.policy.accounted
        if tuple(train.shape) != tuple(plan.shape):
            return f"examples are of shape {tuple(train.shape)} here"
        own, revision = OwnData(len(train)), self.roster.revision
        try:
            terms = PlanTerms.of_plan(plan, own, revision=revision, code=code, accounted=accounted)
        except (ConfigError, PrivacyError) as error:
            return f"{error.field}: {error.problem}"
        return "; ".join(map(str, self.policy.check(terms, self.today()))) or None

    def prepare(self, plan: Plan) -> tuple[Program, Answers]:
        """The program, and this client's answers; its ledger is opened, or begun. Raises
        PrivacyError: the ledger is gone, damaged, or has lost releases; or what is trained is not
        covered by the noise.
        """
        program = self.program(plan)
        check_paths(program.factory, len(self.data.train))
        number, gate = plan.clients.index(self.name), self._books(plan)
        already = gate.already(number)
        data, bench = replace(self.data, id=number), Workbench(program.factory)
        client = Client.of(program, data, bench, NoiseSource.fresh(), self._box, already)
        return program, SiteAnswers(program, client, self._box)

    def held(self, plan: Plan) -> State | None:
        """The state that this client had come to under the plan before, if there was one."""
        return None if self.before is None else self.before.state

    def _books(self, plan: Plan) -> BudgetGate:
        """Ledger and stored answers; at first those of the plan before, where there was one."""
        path, privacy, before = self.folder / LEDGER, plan.config.privacy, self.before
        noised = plan.config.noises_sketches
        kept = self._state.mark("ledger") is not None or is_file(path)
        earlier = None if before is None else _gate_of(before, plan)
        if earlier is not None and earlier.ledger is not None and not kept:
            earlier.ledger.save(path)
            kept = True
        gate = BudgetGate(privacy, path, self._state, sketches=noised, resumed=kept)
        self._gate, self._box = gate, ReleaseBox(self.folder / _RESULTS, self._state, gate.charged)
        if before is not None and earlier is not None:
            gate.follows([] if earlier.mark is None else [("the plan before", earlier.mark)])
            there = before.path
            box = ReleaseBox(there / _RESULTS, _state_of(there), earlier.charged)
            self._box.go_on_from(box)
            before.left_for(plan, earlier.mark)
        return gate

    def admit(self, releases: Sequence[Release]) -> None:
        """Charge what an answer will release. Raises PrivacyError: the budget would be passed;
        nothing is charged or released; FileError: the ledger cannot be written; nothing is
        released.
        """
        if self._gate is not None:
            self._gate.admit(releases, self._box.answers)


def _state_of(folder: Path) -> RunState:
    """Where the key and the marks of a client's folder are."""
    marked = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()
    return RunState(f"site-{marked}")


def has_ledger(folder: Path) -> bool:
    """Whether a client began a ledger in its folder, though it may be gone by now."""
    return _state_of(folder).mark("ledger") is not None


def _gate_of(before: Before, plan: Plan) -> BudgetGate | None:
    """The ledger as it was left under the plan before; None where the client agreed to no plan
    there. Raises PrivacyError: it is gone, damaged, or has lost releases.
    """
    state, config = _state_of(before.path), plan.config
    if before.state is None and not has_ledger(before.path):
        return None
    noised = config.noises_sketches
    return BudgetGate(config.privacy, before.path / LEDGER, state, sketches=noised, resumed=True)


class SiteAnswers:
    """A client's answers, over any number of lives. A client that is made again after its sketch
    was released takes the stored one up; where that is gone it makes and charges another.
    """

    def __init__(self, program: StepProgram, client: Client, box: ReleaseBox) -> None:
        self._program, self._client, self._box = program, client, box
        self._recalled = False
        self._last: Place | None = None

    def releases(self, state: State, position: int) -> Sequence[Release]:
        """What answering would release."""
        again = self._client.recalled(state) if self._lacks_sketch(state) else ()
        return (*again, *self._client.releases(state, position))

    def answer(self, state: State, position: int) -> Blocks:
        """The client's summand."""
        if self._lacks_sketch(state):
            self._client.recall(state)
        self._recalled = True
        if self._last not in (None, state.place):
            self._box.checkpointed()  # nobody asks again what is two rounds old
        self._last = state.place
        return self._client.answer(state, position)

    def scored(self, state: State) -> PoolScore | None:
        """The pool that this client would choose of a state's, and how it fares there; None where
        there are no pools. For the site alone: nothing of it is charged, so none of it may leave.

        Raises:
            PrivacyError: the sketch that it chooses by was released, and is gone.
        """
        if not self._program.facts.config.pools.enabled:
            return None
        if self._lacks_sketch(state):
            self._client.recall(state)
        return self._client.scored(Evaluate(self._program.factory), state, 0).score

    def _lacks_sketch(self, state: State) -> bool:
        names, config = self._program.names, self._program.facts.config
        if self._recalled or "sketch" not in names or not config.noises_sketches:
            return False
        return state.place > Place(names.index("sketch"), 0)
