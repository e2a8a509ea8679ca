"""`secure-fl site check`: whether this site would take part in what it has joined, and to the end.

Nothing is sent but a TLS handshake and bytes that mean nothing, and nothing is written.
"""

from __future__ import annotations

import datetime
import platform
import re
import stat
from collections.abc import Iterator, Mapping

from secure_fl import __version__
from secure_fl.crypto.roster import Roster
from secure_fl.crypto.roster_memory import RosterMemory
from secure_fl.data.partitions import ClientData
from secure_fl.deployment.certificates import check_certificate, read_certificate
from secure_fl.deployment.settings import Deployment
from secure_fl.deployment.site.costs import costs
from secure_fl.deployment.site.data import as_planned, natural, own_examples
from secure_fl.deployment.site.folder import SiteFolder
from secure_fl.deployment.site.lines import Line, guarded
from secure_fl.deployment.site.network import Carries, carried, network
from secure_fl.deployment.site.watching import WARN_DAYS
from secure_fl.federation.plan import Plan
from secure_fl.federation.policy.cost import OwnData
from secure_fl.federation.policy.installed import code_digest
from secure_fl.federation.policy.rules import PLAN_SETTINGS
from secure_fl.federation.policy.terms import SOURCE, PlanTerms
from secure_fl.federation.site import program_of
from secure_fl.quantities import counted

_DIGEST = re.compile(r"\b([0-9a-f]{16})[0-9a-f]{48}\b")


def check_site(
    folder: SiteFolder, *, bandwidth: float | None = None, reach: bool = True
) -> Iterator[Line]:
    """Everything, part by part; a part that cannot be looked at is a line.

    Args:
        bandwidth: of this machine's way out, in bits a second; it is not measured then.
        reach: whether to look for the other machines.

    Raises:
        RunFolderError: the site has not joined.
        RefusedError: its invitation is damaged.
    """
    invitation, roster, plan = folder.federation()
    yield from guarded("folder", lambda: _folder(folder))
    yield from guarded("certificate", lambda: _certificate(folder))
    yield from guarded("roster", lambda: _roster(folder, roster, plan))
    yield from guarded("software", lambda: _software(plan))
    clients = dict[str, ClientData]()
    if folder.settings.role == "data":
        yield from guarded("data", lambda: _data(folder, plan, clients))
    yield from guarded("policy", lambda: _policy(folder, roster, plan, clients))
    given = None if bandwidth is None else Carries(0.0, bandwidth / 8, bandwidth / 8)
    ways = [] if given is None else [given]
    yield from guarded("network", lambda: _network(folder, invitation.settings, ways, reach=reach))
    if clients:
        yield from guarded("costs", lambda: costs(folder, plan, clients, *ways))


def _network(
    folder: SiteFolder, settings: Deployment, ways: list[Carries], *, reach: bool
) -> Iterator[Line]:
    """Whether the other machines can be reached; what the way to the server carries is added, where
    nobody has said it.
    """
    lines = list(network(settings, folder.tls)) if reach else []
    yield from lines
    if not ways:
        up = bool(lines) and all(line.state != "fail" for line in lines)
        way, line = carried(settings, folder.tls, up=up)
        ways += [] if way is None else [way]
        yield line


def _folder(folder: SiteFolder) -> Iterator[Line]:
    for path in (folder.path, folder.identities_folder, folder.tls.key.parent):
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            yield Line.fail("permissions", f"{path} is {mode:o}", f"chmod 700 {path}")
            return
    yield Line.ok("permissions", "folder and keys are their owner's alone")


def _certificate(folder: SiteFolder) -> Iterator[Line]:
    pem = folder.tls.read()
    check_certificate(pem.certificate, pem.authority, folder.name)
    found, now = read_certificate(pem.certificate), datetime.datetime.now(datetime.UTC)
    begin, end = found.not_valid_before_utc, found.not_valid_after_utc
    if now < begin:
        said = (
            f"this clock says {now:%Y-%m-%d %H:%M} UTC, and the certificate begins {begin:%Y-%m-%d}"
        )
        yield Line.fail("clock", said, "set the clock, for example by chrony or systemd-timesyncd")
    else:
        yield Line.ok("clock", f"{now:%Y-%m-%d %H:%M} UTC")
    days, again = (end - now).days, f"`secure-fl site renew {folder.path}`"
    if now > end:
        yield Line.fail("certificate", f"ran out on {end:%Y-%m-%d}", again)
    elif days < WARN_DAYS:
        yield Line.warn("certificate", f"ends on {end:%Y-%m-%d}, in {counted(days, 'day')}", again)
    else:
        yield Line.ok("certificate", f"of {folder.name}, until {end:%Y-%m-%d}")


def _roster(folder: SiteFolder, roster: Roster, plan: Plan) -> Iterator[Line]:
    for name, identity in folder.identities.items():
        RosterMemory(folder.identity_file(name)).check(roster)
        if roster.member(name) != identity.member:
            remedy = "tell the coordinator, by another way: somebody else's key stands there"
            yield Line.fail("roster", f"{name} has another key there", remedy)
            return
    clients = counted(len(plan.clients), "client")
    said = f"revision {roster.revision}, {clients}, {len(folder.identities)} here"
    yield Line.ok("roster", said)
    objection = folder.pins.objection(plan, roster)
    if objection is None:
        yield Line.ok("pins", f"plan {plan.digest.hex()[:16]}…, roster {roster.digest.hex()[:16]}…")
    else:
        yield Line.fail("pins", objection, "`secure-fl site join` what the coordinator sent")


def _software(plan: Plan) -> Iterator[Line]:
    import torch

    said = f"secure-fl {__version__}, python {platform.python_version()}, torch {torch.__version__}"
    yield Line.ok("versions", said)
    code, asked = code_digest(), plan.code.get(SOURCE)
    if asked not in (None, code):
        remedy = "install the version that the coordinator names"
        yield Line.fail("code", f"{code[:16]}… is here, the plan names {asked[:16]}…", remedy)
    else:
        yield Line.ok("code", f"{code[:16]}…{'' if asked else ', and the plan names none'}")
    if plan.follows is not None:
        yield Line.ok("first models", f"those that plan {plan.follows.plan.hex()[:16]}… came to")
    elif program_of(plan).start().digest == plan.start:
        yield Line.ok("first models", "are those of the plan")
    else:
        remedy = "use the versions of secure-fl and torch that the plan was made with"
        yield Line.fail("first models", "are not those of the plan on this machine", remedy)


def _data(folder: SiteFolder, plan: Plan, clients: dict[str, ClientData]) -> Iterator[Line]:
    own = own_examples(folder.settings, folder.path, natural(plan.config), plan.classes)
    clients |= as_planned(own, plan, sorted(folder.identities))
    if strangers := len(own.keys() - clients.keys()):
        said = (
            f"{counted(strangers, 'client')} of the data not on the roster as this site's: left out"
        )
        yield Line.warn("data", said, "make a new site for them, or take them out of the file")
    weighted = "examples" in (plan.config.pretrain.weights, plan.config.pools.weights)
    for name, client in clients.items():
        parts = f"{len(client.train)} to train on, {len(client.test)} to test"
        labels = "" if client.train.labelled or not plan.classes else ", without labels"
        yield Line.ok(f"data of {name}", f"{parts}{labels}")
        if weighted and len(client.train) > plan.largest:
            said = (
                f"more examples than the plan's largest client, {plan.largest}: counted as so many"
            )
            yield Line.warn(
                f"data of {name}", said, "tell the coordinator (site init --tell-examples)"
            )


def _policy(
    folder: SiteFolder, roster: Roster, plan: Plan, clients: Mapping[str, ClientData]
) -> Iterator[Line]:
    """A line for each setting that is not met; one where all are, by every client."""
    policy, today, met = folder.policy, datetime.date.today(), 0
    accounted = policy.accounted if clients else frozenset[str]()
    sizes = {len(client.train) for client in clients.values()} or {0}
    seen = set[str]()
    for examples in sorted(sizes):
        own = OwnData(examples) if examples else None
        terms = PlanTerms.of_plan(
            plan, own, revision=roster.revision, code=code_digest(), accounted=accounted
        )
        for found in policy.judge(terms, today):
            about_data = found.field.startswith("privacy.")
            if found.reason is None or (about_data and not clients):
                met += 1
            elif found.field == "study.code" and found.allowed.endswith("by the plan"):
                continue  # `code` says it
            elif found.field not in seen:
                seen.add(found.field)
                asked = PLAN_SETTINGS.get(found.field, found.field)
                remedy = f"ask for another {asked} in the plan, or allow it in {folder.policy_file}"
                said = f"{found.asked} asked, {found.allowed} allowed [{found.reason}]"
                yield Line.fail(f"policy {found.field}", _DIGEST.sub(r"\1…", said), remedy)
    if not seen:
        yield Line.ok("policy", f"met: {counted(met // len(sizes), 'setting')}, all of them")
    if policy.unchecked:
        yield Line.ok("policy", f'{len(policy.unchecked)} are not looked at ("any")')
