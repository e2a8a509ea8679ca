"""The plan that goes on from a federation whose server has ended it at the end of a round: with new
sites, without those that have gone.

**Guarantee**: a successor computes what its predecessor would have, from the state that enough
clients signed there; every client that stays keeps its number.

**Assumes**: the record is the server's, whole: it is checked against itself and the coordinator's
own key, and every client holds it against what it has come to itself.

**Not covered**: a record that a server has cut short; the clients refuse what is made of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from secure_fl.crypto.identities import Member
from secure_fl.deployment.planning import Draft
from secure_fl.errors import DeploymentError
from secure_fl.federation.parties.claims import enough
from secure_fl.federation.place import Place
from secure_fl.federation.plan import Plan
from secure_fl.federation.predecessor import Predecessor
from secure_fl.federation.site import program_of
from secure_fl.federation.succession import begins_anew, numbered, objection
from secure_fl.federation.transcript.chain import Line, Transcript
from secure_fl.federation.transcript.entries import EndEntry, PlanEntry, StateEntry
from secure_fl.federation.verify.check import verify
from secure_fl.federation.verify.plan import Agreed
from secure_fl.federation.verify.rounds import DONE, FILE


@dataclass(frozen=True)
class Ended:
    """What a server's record says of a federation that it has ended.

    Attributes:
        plan: that it was under.
        place: where its program had come.
        state: digest of the state there, 32 bytes.
        head: of the transcript, 32 bytes.
    """

    plan: Plan = field(repr=False)
    place: Place
    state: bytes
    head: bytes

    @classmethod
    def of(cls, record: Path, coordinator: Member) -> Ended:
        """Read a server's record of a plan.

        Args:
            record: the folder `record/PLAN` of the server's, or a copy.
            coordinator: who must have signed the plan.

        Raises:
            DeploymentError: it does not fit itself, is another coordinator's, or has not ended.
            RunFolderError: there is no record.
            FileError: it cannot be read.
        """
        where = str(record)
        for found in verify(record).findings[:1]:
            problem, remedy = f"{found.field}: {found.problem}", "copy it again from the server"
            raise DeploymentError(problem, FILE, where, remedy)
        lines = list(Transcript.open(record / FILE).lines())
        agreed, last = _agreed(lines), lines[-1].entry
        if agreed is None or agreed.coordinator != coordinator:
            remedy = "name the server's record of this federation"
            raise DeploymentError("another coordinator's, or unsigned", FILE, where, remedy)
        states = [line.entry for line in lines if isinstance(line.entry, StateEntry)]
        if not (isinstance(last, EndEntry) and last.reason == DONE and states):
            problem = "has not ended at the end of a round"
            remedy = "at the server: `secure-fl federate close DIR`, and wait for its end"
            raise DeploymentError(problem, FILE, where, remedy)
        place, state = Place(*states[-1].place), bytes.fromhex(states[-1].digest)
        return cls(agreed.plan, place, state, lines[-1].head)

    def followed_by(self, draft: Draft) -> Draft:
        """What could be signed for everybody who takes part from now on, made to go on from here.

        Args:
            draft: of them, as if it began anew.

        Raises:
            DeploymentError: no round is left, or none that others can join in; a setting has
                changed; there are fewer newcomers than places of clients that have gone.
        """
        plan = draft.plan
        try:
            clients = numbered(self.plan.clients, plan.clients)
        except ValueError as error:
            problem = "nobody takes the numbers of clients that have gone"
            remedy = "sign cards of at least as many new clients, or begin another federation"
            raise DeploymentError(problem, "clients", str(error), remedy) from None
        follows = Predecessor(self.plan.digest, self.place, self.head)
        made = replace(plan, clients=clients, start=self.state, follows=follows)
        if self.plan.by_authority:
            remedy = "begin another federation: `federate sign --again`, without --after"
            problem = "an authority has the models, under one plan alone, and hands none on"
            raise DeploymentError(problem, "security.key_holder", "authority", remedy)
        if (found := objection(self.plan, made)) is not None:
            remedy = "leave settings as they were, or begin another federation without --after"
            raise DeploymentError(found, "config.toml", self.plan.digest.hex()[:16], remedy)
        program = program_of(made)
        if not begins_anew(program, self.place):
            remedy = "begin another federation: `federate sign` without --after"
            problem = "no round is left there that others can join in"
            raise DeploymentError(problem, "place", str(self.place), remedy)
        stay, needed = set(clients) & set(self.plan.clients), enough(made, program.form(self.place))
        if len(stay) < needed:
            problem = f"{needed} clients have to sign the models for newcomers, and too few stay"
            raise DeploymentError(problem, "clients", len(stay), "let fewer newcomers join at once")
        return replace(draft, plan=made)


def check_continued(before: Plan | None, now: Plan) -> None:
    """Refuse a plan that begins anew by mistake. Raises DeploymentError: the one in force goes on
    from another federation, and this one from none.
    """
    if before is None or before.follows is None or now.follows is not None:
        return
    remedy = "name the same record by --after; or begin another federation by --again"
    value = before.follows.plan.hex()[:16]
    raise DeploymentError("the plan in force goes on from another", "--after", value, remedy)


def _agreed(lines: list[Line]) -> Agreed | None:
    """The plan of a record that was found to fit."""
    plans = [line for line in lines if isinstance(line.entry, PlanEntry)]
    if not plans or not plans[-1].evidence:
        return None
    assert isinstance(plans[-1].entry, PlanEntry)
    return Agreed.of(plans[-1].entry, plans[-1].evidence)
