"""Whether what an audit has at hand is what the run had; else a check of other examples would pass
for one of the run.

**Guarantee**: other examples are refused where the record has their digest (`partition.json`), and
where clients, shape or classes differ at all; so is an encoder that is missing, or too many.
**Not covered**: a run without the experimenter's files (`evaluate.enabled = false`) whose data were
replaced by others of equal form; another encoder or augmentation of the caller's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from secure_fl.data.digests import examples_digest
from secure_fl.data.partitions import ClientData
from secure_fl.errors import AuditError
from secure_fl.federation.run_folder.folder import RunFolder
from secure_fl.files import is_file, read_json
from secure_fl.finished.artifacts import ModelCard

_OWN = (
    "from Python, give Subject.of(DIR, data=..., encoder=..., augment=...) what the run was given"
)
_DATA = f"lay the data where config.toml has them, as they were; {_OWN}"
_RESTORE = "restore the file that the run wrote"


def check_same(folder: Path, clients: Sequence[ClientData], *, own_encoder: bool) -> None:
    """Refuse what is not the run's, as far as its record shows it.

    Args:
        folder: the run's.
        clients: as they were dealt now.
        own_encoder: whether the caller has given one.

    Raises:
        AuditError: other examples, or the encoder is missing or is none of the run's.
        RunFolderError: a file of the record is damaged.
    """
    run = RunFolder(folder)
    if is_file(run.partition):
        recorded = read_json(run.partition, dict[str, Any], _RESTORE).get("digest")
        if recorded is not None and recorded != examples_digest(clients):
            raise AuditError.unshown("are not those that the run had", "examples", _DATA)
    if is_file(run.summary) and run.read_summary().clients != len(clients):
        raise AuditError("are not as many as the run had", "clients", len(clients), _DATA)
    if is_file(file := folder / "model" / "model.json"):
        _check_model(read_json(file, ModelCard, _RESTORE), clients, own_encoder=own_encoder)


def _check_model(card: ModelCard, clients: Sequence[ClientData], *, own_encoder: bool) -> None:
    shape = clients[0].train.shape
    if tuple(card.shape) != tuple(shape):
        raise AuditError("have another shape than the run's", "examples", list(shape), _DATA)
    classes = max(client.test.classes for client in clients)
    if card.classes and classes != card.classes:
        raise AuditError("have other classes than the run's", "examples", classes, _DATA)
    if card.custom_encoder and not own_encoder:
        raise AuditError("the run had one of its caller's own", "encoder", None, _OWN)
    if own_encoder and not card.custom_encoder:
        remedy = "leave it out: the run made its own by [model]"
        raise AuditError.unshown("the run had none of its caller's own", "encoder", remedy)
