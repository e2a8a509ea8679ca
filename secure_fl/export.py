"""Models out of a run, in the forms that others read: safetensors, ONNX, and a folder as Hugging
Face's hub has them.

What only the experimenter may know, such as who uses which pool, stays behind, whatever the form.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from secure_fl.config import FederationConfig
from secure_fl.data.scaling import FARTHEST
from secure_fl.errors import ConfigError, FileError, ModelError, RunFolderError, need
from secure_fl.federation.run_folder.folder import RunFolder
from secure_fl.federation.tensors import pack, unpack
from secure_fl.files import is_file, listed, make_folder, parse_json, read_bytes, write_atomically
from secure_fl.finished.artifacts import (
    CENTRE,
    LARGEST,
    ModelCard,
    below,
    load_card,
    model_files,
    restored_encoder,
    restored_pools,
)
from secure_fl.finished.inference import Models
from secure_fl.finished.model_page import model_page
from secure_fl.models.heads import Classifier
from secure_fl.paths import path_of

Form = Literal["safetensors", "onnx", "hf"]
FORMS: tuple[Form, ...] = ("safetensors", "onnx", "hf")
_REMEDY = "export it again from the run's folder"
_ENCODER = "encoder."
"""What names of the encoder's tensors begin with in a hub folder."""


@dataclass(frozen=True)
class HubConfig:
    """The content of a hub folder's `config.json`.

    Attributes:
        model_type: always `secure_fl`.
        card: shape of one example, classes, scaling.
        federation: the run's configuration.
    """

    model_type: Literal["secure_fl"]
    card: ModelCard
    federation: dict[str, Any]


def export(
    folder: Path | str,
    out: Path | str,
    forms: Sequence[Form] = ("safetensors",),
    *,
    encoder: nn.Module | None = None,
) -> list[Path]:
    """Write a finished run's models to a new folder; returns what was written.

    Args:
        folder: the run's.
        out: where to write; must not hold anything.
        forms: `safetensors`: tensors by parameter name, with `model.json` and `config.toml`.
            `onnx`: `encoder.onnx` and `pool-K.onnx`, any number of examples at once, how these are
            prepared in the metadata. `hf`: `model.safetensors`, `config.json` and a model card,
            `README.md`, that says what the run protects; `load_exported` reads it back.
        encoder: a module of the same architecture, needed for `onnx` where the run was given one of
            the caller's own.

    Raises:
        RunFolderError: no finished run there, or `out` holds something.
        FileError: `out` is a file, or cannot be written to.
        ConfigError: no such form.
        ModelError: an encoder of the caller's own is needed, or cannot be expressed in ONNX.
        DependencyError: what writes ONNX is not installed.
    """
    _check_forms(forms)
    source, target = path_of(folder, "run folder"), path_of(out, "out")
    _check_empty(target)
    files: dict[str, bytes] = {}
    for form in forms:
        files |= _onnx(source, encoder) if form == "onnx" else _WRITERS[form](source)
    make_folder(target)
    for name, data in files.items():
        write_atomically(target / name, data)
    return [target / name for name in sorted(files)]


def _check_forms(forms: object) -> None:
    """Refuse what is no list of forms."""
    if isinstance(forms, str) or not isinstance(forms, Sequence):
        shown = forms if isinstance(forms, str) else type(forms).__name__
        remedy = f"pass a list of some of {', '.join(FORMS)}"
        raise ConfigError("is no list of forms", field="forms", value=shown, remedy=remedy)
    if not forms or any(form not in FORMS for form in forms):
        asked, remedy = tuple(map(str, forms)), f"choose among {', '.join(FORMS)}"
        raise ConfigError("no such form", field="forms", value=asked, remedy=remedy)


def _check_empty(target: Path) -> None:
    """Refuse a file, or a folder with something in it."""
    if is_file(target):
        remedy = "name a folder that is empty or does not exist yet"
        raise FileError("is a file", field="out", value=str(target), remedy=remedy)
    if listed(target):
        remedy = "choose another folder or delete it"
        raise RunFolderError(
            "already holds something", field="out", value=str(target), remedy=remedy
        )


def load_exported(folder: Path | str, encoder: nn.Module | None = None) -> Models:
    """Models from a folder that `export` wrote in the form `hf`.

    Args:
        folder: with `model.safetensors` and `config.json`.
        encoder: a module of the same architecture, needed where the run was given one of the
            caller's own.

    Raises:
        FileError: a file is missing.
        RunFolderError: nothing was exported there, or a file is damaged, or another program's.
        ModelError: as `load_encoder`.
    """
    path = path_of(folder, "folder")
    if not is_file(path / "config.json"):
        remedy = "name a folder that `secure-fl export --hf` wrote; runs are read by load_result"
        raise RunFolderError(
            "holds no exported models", field="folder", value=str(path), remedy=remedy
        )
    head = read_bytes(path / "config.json")
    found = parse_json(head, HubConfig, field="config.json", value=str(path), remedy=_REMEDY)
    data = read_bytes(path / "model.safetensors", most=LARGEST)
    tensors = unpack(data, field="model.safetensors", value=str(path), remedy=_REMEDY)
    config = FederationConfig(**found.federation)
    module = restored_encoder(found.card, config, below(tensors, _ENCODER), encoder)
    if not config.pools.enabled:
        return Models(config, found.card, module, [])
    pools, guide = restored_pools(found.card, config, tensors, encoder)
    return Models(config, found.card, module, pools, guide, tensors.get(CENTRE))


def _safetensors(path: Path) -> dict[str, bytes]:
    card, run = _public_card(path), RunFolder.open(path)
    return {**model_files(path), "model.json": _json(card), run.config.name: read_bytes(run.config)}


def _hub(path: Path) -> dict[str, bytes]:
    run, card = RunFolder.open(path), _public_card(path)
    config, tensors = run.read_config(), dict[str, Tensor]()
    for name, data in model_files(path).items():
        prefix = _ENCODER if name == "encoder.safetensors" else ""
        tensors |= {
            prefix + key: tensor
            for key, tensor in unpack(data, field=name, value=str(path), remedy=_REMEDY).items()
        }
    summary = run.manifest.without_experiments().seen("summary.json", run.read_summary())
    return {
        "model.safetensors": pack(tensors),
        "config.json": _json(
            {"model_type": "secure_fl", "card": card, "federation": config.model_dump(mode="json")}
        ),
        "README.md": model_page(config, card, summary).encode(),
    }


_WRITERS: dict[str, Callable[[Path], dict[str, bytes]]] = {"safetensors": _safetensors, "hf": _hub}


def _onnx(path: Path, encoder: nn.Module | None) -> dict[str, bytes]:
    card = load_card(path)
    if card.custom_encoder and encoder is None:
        problem = "the run was given an encoder of the caller's own"
        remedy = "from Python: secure_fl.export.export(folder, out, ['onnx'], encoder=Yours())"
        raise ModelError(problem, field="encoder", value=None, remedy=remedy)
    models = Models.load(path, encoder)
    facts = {f"secure_fl.{name}": json.dumps(value) for name, value in _public_card(path).items()}
    facts["secure_fl.preparation"] = preparation(card)
    files = {"encoder.onnx": _as_onnx(models.encoder, card, ["features"], facts)}
    for number, pool in enumerate(models.pools):
        outputs = ["logits"] if isinstance(pool, Classifier) else ["features", "embedding"]
        files[f"pool-{number}.onnx"] = _as_onnx(pool, card, outputs, facts)
    return files


def preparation(card: ModelCard) -> str:
    """How examples are made ready for a run's models, in words."""
    steps = [
        f"x is float32 [N, {', '.join(map(str, card.shape))}]",
        "unsigned bytes are divided by 255",
    ]
    if card.scale == "per_example" or (card.scale == "auto" and len(card.shape) == 2):
        steps.append("each example, channel by channel, is brought to mean 0 and deviation 1")
    if len(card.shape) == 1 and card.scale == "per_client":
        steps.append(
            "each column by the mean and deviation of a client's own examples, held within "
            f"±{FARTHEST:g}"
        )
    if len(card.shape) == 1 and card.scale == "given":
        steps.append(
            "from each column its mean is subtracted, and it is divided by its deviation: "
            "column_means and column_deviations of the card"
        )
    if card.image_size is not None:
        steps.append(
            f"images are resized to {card.image_size}×{card.image_size}, bilinear with antialiasing"
        )
    return "; ".join(steps)


def _as_onnx(model: nn.Module, card: ModelCard, outputs: list[str], facts: dict[str, str]) -> bytes:
    """A model as ONNX, any number of examples at once."""
    for package in ("onnx", "onnxscript"):  # the latter is imported by torch's exporter
        need(package, "onnx", "onnx")
    import onnx

    example, rows = torch.rand(2, *card.shape), torch.export.Dim("examples")
    with _quiet_exporter():
        try:
            program = torch.onnx.export(
                model.cpu().eval(),
                (example,),
                dynamo=True,
                input_names=["x"],
                output_names=outputs,
                dynamic_shapes=({0: rows},),
                verbose=False,
            )
        except Exception as error:
            # torch says nowhere what it raises for a module that it cannot express
            remedy = "use operations that torch.onnx.export knows, or the form safetensors"
            problem = f"cannot be expressed in ONNX: {type(error).__name__}"
            raise ModelError.of_kind(problem, "encoder", model, remedy) from None
    assert program is not None
    proto = program.model_proto
    _without_traces(proto)
    onnx.helper.set_model_props(proto, facts)
    onnx.checker.check_model(proto)
    return bytes(proto.SerializeToString())


def _without_traces(proto: Any) -> None:
    """The exporter notes for every node where in whose files it was traced."""
    graphs = [proto.graph, *proto.functions]
    for graph in graphs:
        for part in (
            *graph.node,
            *getattr(graph, "value_info", ()),
            *getattr(graph, "input", ()),
            *getattr(graph, "output", ()),
        ):
            if hasattr(part, "metadata_props"):
                del part.metadata_props[:]
            if hasattr(part, "doc_string"):
                part.doc_string = ""
    for graph in graphs:
        del graph.metadata_props[:]


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """torch's exporter warns of its own use of torch, and of packages that nothing here needs."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def _public_card(path: Path) -> dict[str, Any]:
    """The card without what is the experimenter's."""
    manifest = RunFolder.open(path).manifest.without_experiments()
    return manifest.view("model/model.json", vars(load_card(path)))


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()
