"""The parties that a site hosts, made from its folder: again after a kill, with what they had.

Guarantee: a plan or roster that is not pinned, and a plan that the policy does not accept, is
refused by each party before anything of it is computed; the words stay at the site. A client goes
on with the examples that it began with, or not at all.
Assumes: what `LocalSite`, `KeptClient` and `KeptAuthority` do.
Not covered: what other sites do.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace

from secure_fl.crypto.roster import Roster
from secure_fl.data.digests import whole_digest
from secure_fl.data.partitions import ClientData
from secure_fl.deployment.site.data import plan_clients
from secure_fl.deployment.site.folder import SiteFolder
from secure_fl.deployment.sizes import largest_of
from secure_fl.errors import ConfigError, DeploymentError, PrivacyError, SecureFLError
from secure_fl.federation.parties.authority_store import KeptAuthority
from secure_fl.federation.parties.before import Before
from secure_fl.federation.parties.client_store import KeptClient
from secure_fl.federation.parties.holder_store import HolderStore
from secure_fl.federation.parties.party import ANYBODYS
from secure_fl.federation.parties.party_folder import HEAD, OWNER, PartyFolder
from secure_fl.federation.parties.shared import Shared
from secure_fl.federation.plan import Plan
from secure_fl.federation.policy.installed import code_digest
from secure_fl.federation.policy.policy import Policy
from secure_fl.federation.policy.terms import PlanTerms
from secure_fl.federation.program import Answers, Program
from secure_fl.federation.site import LocalSite, SiteAnswers, has_ledger, program_of
from secure_fl.federation.steps.program import StepProgram
from secure_fl.files import is_file

_EXAMPLES = "examples"
_DATA_RULES = "privacy."
"""Settings of a policy that are about examples, of which whoever holds the key has none."""


@dataclass
class Hosted:
    """One party of a site, and what it came to.

    Attributes:
        name: on the roster.
        party: that speaks.
        data: its examples; None of an authority.
        judged: whether it was shown a plan.
        objection: why it takes no part, in words; None where it does.
        answers: what it answers with, once there is a plan.
    """

    name: str
    party: KeptClient | KeptAuthority = field(init=False)
    data: ClientData | None = None
    judged: bool = False
    objection: str | None = None
    answers: SiteAnswers | None = None

    @property
    def unseated(self) -> str | None:
        """Why the party itself turned a plan away that was judged well, as the models that it
        begins with are others here; None where it did not.
        """
        for refusal in self.party.refusals.first:
            if refusal.phase == "plan" and refusal.reason not in ANYBODYS:
                return f"the plan, for {refusal.reason}"
        return None

    def judging(self, judge: Callable[[Plan], str | None]) -> Callable[[Plan], str | None]:
        """The same judgement, whose words are kept."""

        def judged(plan: Plan) -> str | None:
            self.judged, self.objection = True, judge(plan)
            return self.objection

        return judged

    def preparing(
        self, prepare: Callable[[Plan], tuple[Program, Answers]]
    ) -> Callable[[Plan], tuple[Program, Answers]]:
        """The same preparation; what it raises is kept in words."""

        def prepared(plan: Plan) -> tuple[Program, Answers]:
            try:
                program, answers = prepare(plan)
            except SecureFLError as error:
                self.judged, self.objection = True, str(error)
                raise
            self.answers = answers if isinstance(answers, SiteAnswers) else None
            return program, answers

        return prepared


class SiteParties:
    """All parties of a site, for one plan.

    Args:
        folder: of the site, held.
        roster, plan: of its invitation.
        today: by this site's clock.

    Raises:
        RunFolderError: a party's folder is held, damaged, or another's.
        DataError, PartitionError, DeploymentError: the data do not fit the plan.
        SecureSumError, FileError: what it keeps cannot be read.
    """

    def __init__(
        self,
        folder: SiteFolder,
        roster: Roster,
        plan: Plan,
        *,
        today: Callable[[], datetime.date] = datetime.date.today,
    ) -> None:
        self._folder, self._roster, self.plan, self._today = folder, roster, plan, today
        self._shared, self._holding = Shared(), ExitStack()
        self._program: StepProgram | None = None
        self.policy = folder.policy
        names = sorted(folder.identities)
        clients: Mapping[str, ClientData] = {}
        if folder.settings.role == "data":
            clients = plan_clients(folder.settings, folder.path, plan, names)
        self.hosted = [Hosted(name, clients.get(name)) for name in names]
        try:
            for hosted in self.hosted:
                own = PartyFolder(
                    folder.party(plan, hosted.name),
                    folder.identities[hosted.name],
                    roster.federation,
                )
                self._holding.callback(own.close)
                hosted.party = self._made(hosted, own)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of their folders."""
        self._holding.close()

    @property
    def under_way(self) -> bool:
        """Whether an earlier life has accepted the plan, and the federation has not ended."""
        return any(one.party.state is not None and not one.party.over for one in self.hosted)

    @property
    def objecting(self) -> dict[str, str]:
        """Parties that take no part, and why."""
        found = {one.name: one.objection or one.unseated for one in self.hosted}
        return {name: why for name, why in found.items() if why}

    @property
    def objections(self) -> list[str]:
        """Why parties take no part, each once."""
        return list(dict.fromkeys(self.objecting.values()))

    def longest(self, signed: bytes) -> int:
        """Bytes of the longest message that the server may send here, whatever it says.

        Args:
            signed: the plan, as the coordinator signed it.
        """
        program = None
        if self.under_way or self._allowed(self.plan) is None:  # nothing of a refused one is built
            with suppress(SecureFLError):  # the parties themselves say that
                program = self.program(self.plan)
        return largest_of(self.plan, signed, self._roster, program)

    def program(self, plan: Plan) -> StepProgram:
        """The program that all of them share."""
        if self._program is None or plan.digest != self.plan.digest:
            self._program = program_of(plan)
        return self._program

    def _made(self, hosted: Hosted, own: PartyFolder) -> KeptClient | KeptAuthority:
        identity, roster = self._folder.identities[hosted.name], self._roster
        if hosted.data is None:
            judge = hosted.judging(lambda plan: self._pinned(plan) or self._allowed(plan))
            return KeptAuthority(identity, roster, self.program, own, judge=judge)
        before = self._before(hosted.name, own)
        _check_same(own, hosted.data, before)
        more = (self.policy, self.program, self._today, before)
        local = LocalSite(own.path, hosted.name, roster, hosted.data, *more)
        site = local.site
        judge = hosted.judging(lambda plan: self._pinned(plan) or local.judge(plan))
        site = replace(site, prepare=hosted.preparing(site.prepare), judge=judge)
        return KeptClient(identity, roster, site, own, shared=self._shared)

    def _before(self, name: str, own: PartyFolder) -> Before | None:
        """What a client had come to under the plan that this one follows, until it goes on from
        there. Raises DeploymentError: it took part in another one, or its folder is gone: a ledger
        would not go on.
        """
        follows = self.plan.follows
        if follows is None or HolderStore(own).begun:
            return None
        path, word = self._folder.party_under(follows.plan, name), follows.plan.hex()[:16]
        if not is_file(path / OWNER) and PartyFolder.known(path):
            remedy = "put it back as it was; if it is lost, take part with new keys: `site init`"
            raise DeploymentError("what it had of the plan before is gone", name, word, remedy)
        if is_file(path / OWNER):
            identity = self._folder.identities[name]
            folder = PartyFolder(path, identity, self._roster.federation)
            self._holding.callback(folder.close)
            before = Before(folder, own, lambda digest: self._idle(name, digest.hex()[:16]))
            if before.state is not None or has_ledger(path):
                return before
        found = [each.parent for each in self._folder.parties.glob(f"*/{name}/{OWNER}")]
        plans = [each.parent.name for each in found if each not in (own.path, path)]
        if others := sorted(plan for plan in plans if not self._idle(name, plan)):
            problem = f"it goes on from a plan that {name} was not in, and its ledger would not"
            remedy = f"ask for one that goes on from {', '.join(others)}"
            raise DeploymentError(problem, "plan", word, remedy)
        return None

    def _idle(self, name: str, plan: str) -> bool:
        """Whether a client has answered nothing under a plan, by its folder, and never will: it has
        agreed to none there, or that ended for it before any round was called. Raises as
        `HolderStore.kept`.
        """
        path, identity = self._folder.parties / plan / name, self._folder.identities[name]
        if not is_file(path / OWNER):
            return False
        folder = PartyFolder(path, identity, self._roster.federation)
        try:
            record = HolderStore(folder).kept()
        finally:
            folder.close()
        if record is None:
            return not has_ledger(path)
        return record.over and record.begun is None

    def _pinned(self, plan: Plan) -> str | None:
        return self._folder.pins.objection(plan, self._roster)

    def _allowed(self, plan: Plan) -> str | None:
        """What the policy of whoever holds the key says; it has no examples to protect."""
        return authority_objection(self.policy, plan, self._roster.revision, self._today())


def _check_same(own: PartyFolder, data: ClientData, before: Before | None) -> None:
    """Refuse other examples than those that a client began with, here or under the plan before: its
    ledger counts for those, and who is tested on must not become who is trained on. Before it has
    accepted a plan they may change. Raises DeploymentError.
    """
    parts = (data.train, data.validation, data.test)
    digest = "|".join(whole_digest([part]) for part in parts).encode()
    began = own.kept(_EXAMPLES) if is_file(own.path / HEAD) else None
    began = began if before is None else before.needed(_EXAMPLES)
    if began not in (None, digest):
        remedy = "put the file back as it was; changed examples take part in the next federation"
        raise DeploymentError(
            "other examples than it began with", "data.sources", data.name, remedy
        )
    own.keep(_EXAMPLES, digest)


def authority_objection(
    policy: Policy, plan: Plan, revision: int, today: datetime.date
) -> str | None:
    """Why the policy of a site without examples does not accept a plan; None where it does."""
    code = code_digest()
    try:
        terms = PlanTerms.of_plan(plan, revision=revision, code=code, accounted=frozenset())
    except (ConfigError, PrivacyError) as error:
        return f"{error.field}: {error.problem}"
    found = policy.check(terms, today)
    return "; ".join(str(one) for one in found if not one.field.startswith(_DATA_RULES)) or None
