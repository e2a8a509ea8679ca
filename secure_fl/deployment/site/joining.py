"""Taking an invitation: what is checked before a site believes it, and what it remembers.

Guarantee: nothing is stored of an invitation of another coordinator than the one whose fingerprint
was confirmed, to another site, with another key of one of this site's parties, with an older roster
than was seen, or with a certificate that is not for this machine's key. Another plan, roster or app
than the one pinned is taken only where that is asked for.
Assumes: the fingerprint was compared with the coordinator over another channel.
Not covered: whether the plan is worth accepting: the policy judges that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from secure_fl.crypto.identities import Member
from secure_fl.crypto.roster import Roster
from secure_fl.crypto.roster_memory import RosterMemory
from secure_fl.deployment.certificates import days_left
from secure_fl.deployment.invitation import Invitation
from secure_fl.deployment.site.differences import differences
from secure_fl.deployment.site.folder import SiteFolder
from secure_fl.deployment.site.making import PATIENCE, install
from secure_fl.deployment.site.pins import Pins
from secure_fl.errors import DeploymentError, SecureFLError
from secure_fl.federation.plan import Plan
from secure_fl.files import held, is_file, make_folder, write_atomically
from secure_fl.quantities import counted


@dataclass(frozen=True)
class Joined:
    """What was taken.

    Attributes:
        pins: that are in force now.
        changed: which of them are others than before; all, the first time.
        differences: settings, facts and parties that are not as before, a sentence each.
        days: for which the certificate is good.
    """

    invitation: Invitation
    pins: Pins
    changed: tuple[str, ...]
    days: int
    differences: tuple[str, ...] = ()


def join(
    folder: SiteFolder, data: bytes, fingerprint: str | None = None, *, replace: bool = False
) -> Joined:
    """Check an invitation, and store it, also while the site runs.

    Args:
        data: what the coordinator sent.
        fingerprint: of the coordinator, 64 hex digits; needed the first time.
        replace: whether another plan, roster or app may take the place of what is pinned.

    Raises:
        RefusedError: the invitation is damaged, or not the coordinator's; its roster is older than
            one that was seen.
        DeploymentError: it does not fit this site.
        FileError, SecureSumError: a file cannot be read or written.
    """
    invitation = Invitation.open(data, folder.coordinator)
    coordinator = Member.from_card(invitation.coordinator)
    _check_coordinator(coordinator, fingerprint, known=folder.coordinator is not None)
    roster = Roster.open(invitation.roster, coordinator)
    plan = Plan.open(invitation.plan, roster)
    _check_ours(folder, invitation, roster, plan)
    days = days_left(invitation.certificate)
    if days < 0:
        remedy = "ask the coordinator for another; where it has not run out, set this clock right"
        raise DeploymentError("has run out", "certificate", f"{counted(-days, 'day')} ago", remedy)
    news = _differences(folder, roster, plan)
    with held(folder.path / "tls", wait=PATIENCE):
        pins, changed = _pins(folder, Pins.of(invitation, roster, plan), news, replace=replace)
        memories = [RosterMemory(folder.identity_file(name)) for name in folder.identities]
        for memory in memories:  # all of them, before one remembers
            memory.check(roster)
        install(folder, invitation.certificate, invitation.authority)
        for memory in memories:
            memory.accept(roster)
        make_folder(folder.invitation_file.parent)
        write_atomically(folder.coordinator_card, invitation.coordinator)
        write_atomically(folder.pins_file, pins.text())
        write_atomically(folder.invitation_file, data)
    return Joined(invitation, pins, tuple(changed), days, news)


def _differences(folder: SiteFolder, roster: Roster, plan: Plan) -> tuple[str, ...]:
    """What is not as in the invitation that was taken last; nothing where there was none, or only
    one that this version cannot read.
    """
    try:
        _, old_roster, old_plan = folder.federation()
    except SecureFLError:
        return ()
    return differences((old_roster, old_plan), (roster, plan))


def _check_coordinator(coordinator: Member, fingerprint: str | None, *, known: bool) -> None:
    if fingerprint is None and not known:
        remedy = (
            "ask the coordinator for its fingerprint, by voice or on paper, and pass it with "
            "--coordinator; it is pinned from then on"
        )
        problem = "nobody has confirmed this coordinator"
        raise DeploymentError(problem, "--coordinator", None, remedy)
    if fingerprint is None:
        return
    if "".join(fingerprint.lower().replace(":", " ").split()) != coordinator.fingerprint:
        problem = f"the invitation is signed by {coordinator.fingerprint}"
        remedy = "take no invitation of somebody else; ask the coordinator for both again"
        raise DeploymentError(problem, "--coordinator", fingerprint, remedy)


def _check_ours(folder: SiteFolder, invitation: Invitation, roster: Roster, plan: Plan) -> None:
    """Refuse what is another site's, or has other keys of this site's parties."""
    if invitation.site != folder.name:
        remedy = "ask the coordinator for the one that is for this site"
        raise DeploymentError(
            f"the invitation is for another site than {folder.name}",
            "invitation", invitation.site, remedy,
        )  # fmt: skip
    own = folder.identities
    if set(invitation.parties) != set(own):
        remedy = "send the key card as it is now, and join what comes back for it"
        value = sorted(set(invitation.parties) ^ set(own))
        raise DeploymentError("other parties than this site's", "invitation", value, remedy)
    for name, identity in own.items():
        if roster.member(name) != identity.member:
            remedy = "somebody else's key stands there: tell the coordinator, by another way"
            raise DeploymentError("not this site's key", "roster", name, remedy)
    people = {*plan.clients, *([plan.authority] if plan.by_authority else [])}
    if missing := sorted(set(own) - people):
        remedy = "ask the coordinator for a plan with them"
        raise DeploymentError("parties that the plan leaves out", "plan", missing, remedy)


def _pins(
    folder: SiteFolder, new: Pins, news: Sequence[str], *, replace: bool
) -> tuple[Pins, list[str]]:
    """The pins that are in force from now on, and which of them are new."""
    if not is_file(folder.pins_file):
        return new, [name for name, value in new if value is not None]
    changed = folder.pins.changes(new)
    if changed and not replace:
        remedy = "look at what has changed, then pass --replace"
        problem = f"another {', '.join(changed)} than what is pinned"
        value = "; ".join(news) or ", ".join(changed)
        raise DeploymentError(problem, "pins.toml", value, remedy)
    return new, changed
