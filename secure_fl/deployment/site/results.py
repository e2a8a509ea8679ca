"""What a site has of a federation that is over: the models, as a finished run's folder, and in a
file of its own how its clients fare with them.

    model/        read by `secure_fl.load_result`, `secure-fl assign` and `secure-fl export`
    result.json   each client's own choice of pool and test scores; of this site's examples, so it
                  stays here

**Guarantee**: nothing of it is sent. The models are those that every holder of the key has.
**Assumes**: the folder is the site's own.
**Not covered**: whether `result.json` may be shown to others: it says something of the examples,
and no noise was added.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from secure_fl.data.scaling import Scaling
from secure_fl.deployment.site.data import natural
from secure_fl.deployment.site.folder import SiteFolder
from secure_fl.deployment.site.parties import Hosted, SiteParties
from secure_fl.errors import SecureFLError
from secure_fl.federation.asks import PoolScore
from secure_fl.federation.local.workbench import ModelsMade
from secure_fl.federation.run_folder.folder import RunFolder
from secure_fl.federation.run_folder.secrecy import secrecy
from secure_fl.federation.run_folder.summary import Summary
from secure_fl.federation.state import State
from secure_fl.files import is_file, read_json, remove, write_json
from secure_fl.finished.artifacts import ModelCard, save_models
from secure_fl.finished.summary import unprotected, versions
from secure_fl.records import document

_STAYS = "of this site's own examples, without noise: it stays at this site"


def write_results(folder: SiteFolder, parties: SiteParties) -> None:
    """Write the models and this site's own result, unless these are there already. A site without
    examples has none of its own.

    Raises:
        FileError: a file cannot be written.
    """
    own = [one for one in parties.hosted if one.data is not None and one.party.state is not None]
    if not own:
        return
    plan = parties.plan.digest.hex()
    if is_file(folder.model / "summary.json") and _plan_of(folder) == plan:
        return
    last = max(own, key=lambda one: _state(one).place)
    scores = {one.name: _score(one) for one in own}
    choices = {
        parties.plan.clients.index(name): score.choice
        for name, score in scores.items()
        if score is not None
    }
    _write_models(folder, parties, own, _state(last), choices)
    clients = {name: _shown(score) for name, score in scores.items()}
    write_json(folder.result, {"note": _STAYS, "plan": plan, "clients": clients})


def _plan_of(folder: SiteFolder) -> str | None:
    """The plan that the result there is of."""
    if not is_file(folder.result):
        return None
    return str(read_json(folder.result, dict[str, Any], "delete it: it is made again").get("plan"))


def _state(hosted: Hosted) -> State:
    state = hosted.party.state
    assert state is not None
    return state


def _score(hosted: Hosted) -> PoolScore | None:
    """The pool that a client chooses, and how it fares; None where there are no pools."""
    if hosted.answers is None:
        return None
    try:
        return hosted.answers.scored(_state(hosted))
    except SecureFLError:
        return None  # it holds no examples to choose by, or its stored answers are gone


def _shown(score: PoolScore | None) -> dict[str, Any]:
    if score is None:
        return {"pool": None}
    found: dict[str, float | None] = {"pool": score.choice, "test_loss": score.test_loss}
    found |= {"test_accuracy": score.test_accuracy, "balanced_accuracy": score.test_balanced}
    return {name: value if value == value else None for name, value in found.items()}


def _write_models(
    folder: SiteFolder,
    parties: SiteParties,
    own: list[Hosted],
    state: State,
    choices: dict[int, int],
) -> None:
    plan, program = parties.plan, parties.program(parties.plan)
    config, data = natural(plan.config), [one.data for one in own if one.data is not None]
    scaling = Scaling.of(config, data[0].train)
    card = ModelCard.of(
        program.factory.facts, scaling, data, {}, choices, own_data=False, own_encoder=False
    )
    card = replace(card, client_names=plan.clients)
    remove(folder.model)
    run = RunFolder.new(folder.model)
    run.begin(config, digest=plan.digest.hex())
    made = ModelsMade.of(program.factory, state)
    save_models(run, made.encoder, made.pools, made.guide, card, made.centre)
    summary = Summary(
        name=config.name,
        status="finished",
        seed=config.seed,
        unprotected=tuple(unprotected(config)[:-1]),  # the last is about simulations
        secrecy=secrecy(config, len(plan.clients)),
        clients=len(plan.clients),
        costs={},
        versions=versions(),
        encoder_parameters=made.sizes["encoder_parameters"],
        pool_parameters=made.sizes["pool_parameters"],
    )
    run.write(run.summary, document(summary))
