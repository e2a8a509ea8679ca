"""Models out of and into a run's folder: safetensors, and a JSON file on how to use them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field
from torch import Tensor, nn

from secure_fl.config import FederationConfig
from secure_fl.data.partitions import ClientData
from secure_fl.data.scaling import Scaling, Statistics
from secure_fl.errors import ModelError, RunFolderError
from secure_fl.federation.asks import Guide
from secure_fl.federation.facts import PublicFacts
from secure_fl.federation.run_folder.folder import RunFolder
from secure_fl.federation.tensors import pack, unpack
from secure_fl.files import is_file, make_folder, read_bytes, read_json, write_atomically
from secure_fl.models.build import build_encoder, build_head, build_projector
from secure_fl.models.heads import Classifier, EncoderProjector, feature_width
from secure_fl.paths import path_of
from secure_fl.pools.pool_set import PoolModel

LARGEST = 1 << 36
"""Bytes of the largest model file that is read."""
CENTRE = "guide.public_centre"
"""What sketches were centred by, among the tensors of the pools."""
_MOST_NUMBERS = 1 << 22
_REMEDY = "write it again: delete summary.json and resume the run"

Length = Annotated[int, Field(ge=1, le=1 << 16)]


@dataclass(frozen=True)
class ModelCard:
    """How to use a run's models: shape of one example, classes, how it is scaled; each client's
    pool, where the record tells it.

    `scale` is as in [data]; of tables it is what `auto` came to. Under `per_client` a newcomer
    scales its examples by their own statistics, under `given` by the card's numbers, one a column.
    `class_names` and `client_names` are in number order, and () where numbers are all there is;
    `columns` are those of a table, `colour=red` for a category; `client_scales` the clients' own
    statistics, where the record tells them.
    """

    shape: Annotated[tuple[Length, ...], Field(min_length=1, max_length=3)]
    classes: Annotated[int, Field(ge=0, le=1 << 20)]
    scale: Literal["auto", "none", "per_example", "per_client", "given"]
    image_size: Annotated[int, Field(ge=8, le=256)] | None
    task: Literal["supervised", "self_supervised"]
    custom_encoder: bool
    choices: dict[str, int] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    client_names: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    column_means: tuple[float, ...] | None = None
    column_deviations: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    client_scales: dict[
        str, tuple[tuple[float, ...], tuple[Annotated[float, Field(gt=0)], ...]]
    ] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        facts: PublicFacts,
        scaling: Scaling,
        clients: Sequence[ClientData],
        scales: Mapping[str, Statistics],
        choices: dict[int, int],
        *,
        own_data: bool,
        own_encoder: bool,
    ) -> Self:
        """Of a run; the caller's own examples are used as they are, but for columns of tables."""
        data, first = facts.config.data, clients[0].train
        named = any(client.name != str(client.id) for client in clients)
        scale = "none" if own_data else data.scale
        told = facts.config.privacy.unit != "client"
        return cls(
            facts.shape,
            facts.classes,
            scaling.kind if len(facts.shape) == 1 else scale,
            None if own_data else data.image_size,
            facts.config.pools.task,
            own_encoder,
            {str(client): pool for client, pool in choices.items()} if told else {},
            first.class_names,
            tuple(client.name for client in clients) if named else (),
            first.columns,
            scaling.means,
            scaling.deviations,
            dict(scales) if told else {},
        )

    @property
    def scaling(self) -> Scaling:
        """How columns of tables are scaled."""
        kind = "none" if self.scale == "auto" else self.scale
        return Scaling(kind, self.column_means, self.column_deviations)


def save_models(
    folder: RunFolder,
    encoder: nn.Module,
    pools: Sequence[PoolModel],
    guide: Guide | None,
    card: ModelCard,
    centre: Tensor | None = None,
) -> None:
    """Write encoder, pools and card; `centre`: what the guide's sketches were centred by."""
    make_folder(folder.model)
    file = folder.model / "encoder.safetensors"
    write_atomically(file, pack(folder.view(file, _portable(encoder, ""))))
    if pools:
        tensors = dict[str, Tensor]()
        for number, pool in enumerate(pools):
            tensors |= _portable(pool, f"pool.{number}.")
        if guide is not None:
            tensors |= {"guide.mean": guide.mean, "guide.centres": guide.centres} | (
                {} if centre is None else {CENTRE: centre}
            )
        file = folder.model / "pools.safetensors"
        write_atomically(file, pack(folder.view(file, tensors)))
    folder.write(folder.model / "model.json", vars(card))


def load_card(path: Path | str) -> ModelCard:
    """The card of a finished run.

    Raises:
        RunFolderError: the run has not finished, or the card is damaged.
    """
    folder = RunFolder.open(path_of(path, "run folder"))
    folder.read_summary()
    card = read_json(folder.model / "model.json", ModelCard, _REMEDY)
    pools = folder.read_config().pools.count
    for problem, value in _damage(card, pools):
        problem = f"is damaged: {problem}"
        raise RunFolderError(problem, field="model.json", value=value, remedy=_REMEDY)
    return card


def _damage(card: ModelCard, pools: int) -> Iterator[tuple[str, object]]:
    """What cannot be in a card, with the value that shows it."""
    columns = prod(card.shape)
    if columns > _MOST_NUMBERS:
        yield "no example is so large", card.shape
    given = (card.column_means, card.column_deviations)
    if card.scale == "given" and any(card.shape != (len(each or ()),) for each in given):
        yield "not one mean and deviation a column", card.shape
    if any(not 0 <= pool < pools for pool in card.choices.values()):
        yield "a client uses a pool that there is not", pools
    if any(len(numbers) != columns for scales in card.client_scales.values() for numbers in scales):
        yield "a client's scales are not one a column", card.shape


def load_encoder(path: Path | str, encoder: nn.Module | None = None) -> nn.Module:
    """The pre-trained encoder of a run, in eval mode: `x` `[N, *shape]` -> `h` `[N, features]`.

    Args:
        path: a finished run's folder.
        encoder: a module of the same architecture, needed where the run was given one of the
            caller's own.

    Raises:
        RunFolderError: no finished run there.
        ModelError: the run used a module of the caller's own and none is given, or it does not fit.
    """
    card, config = load_card(path), RunFolder.open(path_of(path, "run folder")).read_config()
    tensors = _tensors(path_of(path, "run folder") / "model" / "encoder.safetensors")
    return restored_encoder(card, config, tensors, encoder)


def load_pools(
    path: Path | str, encoder: nn.Module | None = None
) -> tuple[list[PoolModel], Guide | None]:
    """The pool models of a run, in eval mode, and the sketch groups where the run found them;
    arguments as `load_encoder`.

    Raises:
        RunFolderError: no finished run there, or one without pools.
        ModelError: as `load_encoder`.
    """
    card, config = load_card(path), RunFolder.open(path_of(path, "run folder")).read_config()
    file = path_of(path, "run folder") / "model" / "pools.safetensors"
    if not is_file(file):
        problem = "the run has no pools"
        remedy = "run it with pools.enabled = true"
        raise RunFolderError(problem, field="run folder", value=str(path), remedy=remedy)
    return restored_pools(card, config, _tensors(file), encoder)


def restored_encoder(
    card: ModelCard,
    config: FederationConfig,
    tensors: dict[str, Tensor],
    encoder: nn.Module | None = None,
) -> nn.Module:
    """The encoder whose stored tensors these are; see `load_encoder`."""
    module = _encoder(card, config, encoder)
    _load(module, tensors, "")
    return module.eval()


def restored_pools(
    card: ModelCard,
    config: FederationConfig,
    tensors: dict[str, Tensor],
    encoder: nn.Module | None = None,
) -> tuple[list[PoolModel], Guide | None]:
    """The pool models, and sketch groups, whose stored tensors these are; see `load_pools`."""
    pools = [_pool(card, config, encoder) for _ in range(config.pools.count)]
    for k, pool in enumerate(pools):
        _load(pool, tensors, f"pool.{k}.")
    return pools, _guide(tensors, len(pools))


def model_files(path: Path | str) -> dict[str, bytes]:
    """The files of a finished run's models by name, whole.

    Raises:
        RunFolderError: one is damaged.
        FileError: one is missing.
    """
    folder = RunFolder.open(path_of(path, "run folder"))
    found = {}
    for name in (
        "encoder.safetensors",
        *(["pools.safetensors"] if folder.read_config().pools.enabled else []),
    ):
        found[name] = read_bytes(folder.model / name, most=LARGEST)
        unpack(found[name], field=name, value=str(folder.model), remedy=_REMEDY)
    return found


def _guide(tensors: dict[str, Tensor], pools: int) -> Guide | None:
    mean, centres = tensors.get("guide.mean"), tensors.get("guide.centres")
    if mean is None and centres is None:
        return None
    if mean is None or centres is None or mean.ndim != 1 or centres.shape != (pools, len(mean)):
        problem = "is damaged: its sketch groups do not fit its pools"
        raise RunFolderError(problem, field="pools.safetensors", value=pools, remedy=_REMEDY)
    return Guide(mean, centres)


def load_centre(path: Path | str) -> Tensor | None:
    """What the sketches of a run were centred by, float64 `[F]`; None where they were not."""
    return _tensors(path_of(path, "run folder") / "model" / "pools.safetensors").get(CENTRE)


def _tensors(path: Path) -> dict[str, Tensor]:
    return unpack(read_bytes(path, most=LARGEST), field=path.name, value=str(path), remedy=_REMEDY)


def _portable(module: nn.Module, prefix: str) -> dict[str, Tensor]:
    state = module.state_dict().items()
    return {prefix + name: each.detach().cpu().contiguous().clone() for name, each in state}


def below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Those whose names begin with a prefix, without it."""
    own = [name for name in tensors if name.startswith(prefix)]
    return {name.removeprefix(prefix): tensors[name] for name in own}


def _encoder(card: ModelCard, config: FederationConfig, encoder: nn.Module | None) -> nn.Module:
    if encoder is None and card.custom_encoder:
        problem = "the run was given an encoder of the caller's own"
        remedy = "pass encoder=, a module of the same class"
        raise ModelError(problem, field="encoder", value=None, remedy=remedy)
    if encoder is None:
        whitened = config.pretrain.method == "view_moments"
        return build_encoder(config.model, card.shape, 0, whitened=whitened)
    return copy.deepcopy(encoder)


def _pool(card: ModelCard, config: FederationConfig, encoder: nn.Module | None) -> PoolModel:
    module = _encoder(card, config, encoder)
    if card.task == "self_supervised":
        pool: PoolModel = EncoderProjector(
            module, build_projector(config.model, module, card.shape, 0)
        )
    else:
        pool = Classifier(module, build_head(feature_width(module, card.shape), card.classes, 0))
    return pool.eval()


def _load(module: nn.Module, tensors: dict[str, Tensor], prefix: str) -> None:
    try:
        module.load_state_dict(below(tensors, prefix))
    except RuntimeError as error:
        problem = f"the stored weights do not fit: {str(error).splitlines()[-1].strip()}"
        remedy = (
            "use the run's own kind of encoder: its [model] and pretrain.method, or a module of "
            "the class it was given"
        )
        raise ModelError.of_kind(problem, "encoder", module, remedy) from None
