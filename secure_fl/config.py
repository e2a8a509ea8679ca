"""The configuration of a whole run, as frozen pydantic models.

One class a TOML table. Defaults are the SSD paper's where it states one. Every field carries the sentence that
`secure-fl init` writes above it, so the starter file and this module cannot drift apart. Imports no torch.
"""

from __future__ import annotations

import difflib
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from secure_fl.errors import ConfigError


class Section(BaseModel):
    """A table of the configuration: frozen, unknown keys refused, errors typed."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    table: ClassVar[str] = ""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _typed(error, type(self)) from None


class SourceConfig(Section):
    """One data set."""

    table = "data.sources"
    name: Literal["digits", "mnist5k", "mnist", "fashion_mnist", "cifar10", "cifar100", "npz"] = Field(
        "digits", description="digits | mnist5k | mnist | fashion_mnist | cifar10 | cifar100 | npz"
    )
    path: str | None = Field(None, description="folder (idx, CIFAR binary) or file (npz); not needed for digits, mnist5k and Debian's fashion_mnist")
    limit: int | None = Field(None, ge=1, description="use at most this many examples, drawn at random but the same for one seed")
    kind: Literal["auto", "image", "series"] = Field("auto", description="npz only: what a three-dimensional x is; auto reads it as series")


class DataConfig(Section):
    """What the clients hold."""

    table = "data"
    sources: tuple[SourceConfig, ...] = Field((SourceConfig(),), min_length=1, description="one or more data sets")
    image_size: int | None = Field(None, ge=8, le=256, description="resize images to this many pixels a side (needed when sources differ)")
    scale: Literal["auto", "none", "per_example"] = Field(
        "auto",
        description="auto: each series to mean 0 and deviation 1, images as they are | none | per_example; bytes are divided by 255 anyhow",
    )
    test_fraction: float = Field(0.2, gt=0, lt=1, description="held out where a source has no official test split")
    test_limit: int = Field(500, ge=1, description="test examples a client; drawn with the client's own label shares and transform")
    validation_fraction: float = Field(0.0, ge=0, lt=1, description="share of each client's training examples kept for choosing a pool")
    labelled_clients: float = Field(1.0, ge=0, le=1, description="share of clients that keep their labels; the others join without")


class PartitionConfig(Section):
    """How clients differ."""

    table = "partition"
    kind: Literal["iid", "dirichlet", "shards", "rotation", "label_permutation", "source", "natural"] = Field(
        "rotation", description="iid | dirichlet | shards | rotation | label_permutation | source | natural (npz's client column)"
    )
    clients: int = Field(8, ge=1, description="number of clients (natural: read from the data instead)")
    groups: int = Field(4, ge=1, description="rotation and label_permutation: number of groups, dealt out in turn")
    concentration: float = Field(0.1, gt=0, description="dirichlet: small is skewed; the paper uses 0.1")
    shards_per_client: int = Field(2, ge=1, description="shards: shards each client receives, cut from the examples sorted by label")
    min_examples: int = Field(2, ge=2, description="smallest training set a client may have, after validation examples are set aside")


class ViewsConfig(Section):
    """Augmentation that makes two views of an example."""

    table = "views"
    kind: Literal["auto", "photo", "glyph", "series"] = Field(
        "auto", description="auto | photo (the paper's, for colour) | glyph (one channel: no flip, gentle crop) | series"
    )
    crop_scale: tuple[float, float] | None = Field(None, description="area kept by the random crop; photo 0.08-1, glyph 0.4-1")
    flip: float | None = Field(None, ge=0, le=1, description="probability of a horizontal flip; photo 0.5, glyph 0")
    colour_jitter: float | None = Field(None, ge=0, le=1, description="strength of colour (glyph: brightness and contrast) jitter; 0.8 and 0.4")
    noise: float = Field(0.1, ge=0, description="series: deviation of added noise; a series has deviation 1 under data.scale = auto")
    mask: float = Field(0.2, ge=0, lt=1, description="series: share of time steps hidden")


class ModelConfig(Section):
    """Encoder and projector."""

    table = "model"
    encoder: Literal["auto", "convnet", "resnet18", "series_convnet", "mlp"] = Field(
        "auto",
        description="auto (resnet18 for colour, convnet for one channel, series_convnet for series) | convnet | resnet18 | series_convnet | mlp",
    )
    norm: Literal["auto", "group", "batch"] = Field("auto", description="auto (batch for resnet18 as in the paper, else group) | group | batch")
    features: int | None = Field(None, ge=16, description="width of h; 128, and 512 for resnet18, where it is fixed")
    projector_hidden: int | None = Field(None, ge=16, description="hidden width of the projector; four times its output")
    embedding: int | None = Field(None, ge=2, description="width of z; the encoder's width, which distillation needs")


class ObjectiveConfig(Section):
    """The self-supervised loss."""

    table = "objective"
    name: Literal["ssd", "ssd_nt_xent", "align_uniform", "nt_xent", "spectral_contrastive"] = Field(
        "ssd", description="ssd | ssd_nt_xent (SSD around NT-Xent) | align_uniform | nt_xent (SimCLR) | spectral_contrastive"
    )
    temperature: float = Field(0.5, gt=0, description="of nt_xent and ssd_nt_xent")
    t: float = Field(2.0, gt=0, description="scale of the Gaussian kernel in the uniformity loss")
    beta: float = Field(1.0, ge=0, description="weight of uniformity")
    gamma: float | None = Field(None, ge=0, description="weight of the dimension-scaled regulariser; by form: code 1, normalized 0.055, paper 0.01")
    delta: float = Field(0.1, ge=0, description="weight of projector distillation")
    alpha: float = Field(10.0, ge=1, description="how much a client's own dimensions are scaled")
    form: Literal["code", "paper", "normalized"] = Field("code", description="code (the authors' runs) | paper (printed equation) | normalized")
    basis: Literal["shared", "axis"] = Field("shared", description="shared (one random rotation, as the authors' code) | axis (as printed)")
    assign: Literal["client_id", "position", "modulo"] = Field(
        "client_id", description="who owns which dimensions: client_id | position (in the round's list, the authors' quirk) | modulo (slices shared)"
    )
    distillation_temperature: float = Field(0.5, gt=0, description="the authors' code 0.5; printed equation 1")
    direction: Literal["projector_to_encoder", "encoder_to_projector"] = Field(
        "projector_to_encoder", description="KL(z||h) as the authors' code, or KL(h||z) as printed"
    )


class OptimiserConfig(Section):
    """Local SGD; momentum starts afresh each time a client is called."""

    local_epochs: int = Field(5, ge=1, description="passes over the client's data a round")
    batch_size: int = Field(128, ge=2, description="examples a step")
    lr: float = Field(0.1, gt=0, description="learning rate")
    momentum: float = Field(0.9, ge=0, lt=1, description="SGD momentum")
    weight_decay: float = Field(1e-4, ge=0, description="SGD weight decay")
    schedule: Literal["constant", "cosine"] = Field(
        "constant", description="of the learning rate over rounds: constant (as the authors' code runs) | cosine"
    )
    participation: float = Field(1.0, gt=0, le=1, description="share of clients called each round")
    weights: Literal["examples", "uniform"] = Field("examples", description="how clients count in an average")


class PretrainConfig(OptimiserConfig):
    """Phase one: an encoder without labels."""

    table = "pretrain"
    mode: Literal["federated", "centralized", "load", "none"] = Field(
        "federated", description="federated | centralized (on `source`) | load (the encoder of the run folder `load_from`) | none"
    )
    rounds: int = Field(100, ge=1, description="federated rounds, or epochs/local_epochs of centralized training")
    source: SourceConfig | None = Field(None, description="centralized: the unlabelled set to train on")
    load_from: str | None = Field(None, description="load: a finished run folder with the same model")


class PrivacyConfig(Section):
    """Differential privacy. Every release is recorded in `ledger.json`; a round that would pass the budget does not start."""

    table = "privacy"
    unit: Literal["none", "example", "client"] = Field(
        "none", description="whose presence is hidden: none (said in red) | example (in each client's data) | client (needs many clients)"
    )
    epsilon: float = Field(8.0, gt=0, description="budget of the whole run, for each client's examples, or for each client")
    delta: float = Field(1e-5, gt=0, lt=0.1, description="probability of failure that goes with epsilon; below one over the number of units")
    adjacency: Literal["add-remove", "zero-out", "replace-one"] = Field(
        "zero-out", description="what neighbours differ by: add-remove (example level only) | zero-out (sizes and roster public) | replace-one"
    )
    clip: float = Field(1.0, gt=0, description="bound on the norm of an example's (or group's) gradient, or of a client's whole update")
    noise: float | None = Field(None, gt=0, description="noise multiplier of training; unset: the smallest that keeps the run within epsilon")
    mechanism: Literal["auto", "released-statistics", "group", "per-example"] = Field(
        "auto", description="example level, by the objective's coupling: auto | released-statistics | group (true NT-Xent in groups) | per-example"
    )
    statistic_share: float = Field(0.1, gt=0, lt=1, description="released-statistics: share of the budget that the statistic takes")
    features: int = Field(256, ge=8, description="released-statistics: random features that stand for the uniformity kernel")
    group_size: int = Field(4, ge=2, le=16, description="group: examples that meet in one loss")
    choice: Literal["auto", "sketch", "exponential"] = Field(
        "auto", description="example level: pools by the released sketch, at no cost | by loss, through the exponential mechanism | auto (sketch if there is one)"
    )
    choice_epsilon: float = Field(0.25, gt=0, description="exponential: cost of one choice")
    choice_every: int = Field(5, ge=1, description="exponential: rounds between choices; clients keep their pool in between")
    choice_bound: float = Field(3.0, gt=0, description="exponential: losses are cut off here, in nats")
    sketch_noise: float = Field(4.0, gt=0, description="noise multiplier of the released sketch")
    sketch_width: int = Field(32, ge=2, description="dimensions that the released sketch is projected to")
    scale_bits: int = Field(14, ge=4, le=20, description="client level: grid of 2^-bits of the norm bound that updates are rounded to")
    min_clients: int | None = Field(None, ge=2, description="client level: fewer survivors and a round is not opened; unset: three quarters of the roster")
    colluders: int = Field(1, ge=1, description="client level: clients whose noise share is not counted on")
    count_noise: float | None = Field(None, gt=0, description="client level: deviation of the noise on a pool's count; unset: calibrated")
    min_pool_clients: int = Field(2, ge=1, description="client level: pools with a smaller noised count stay as they are")
    false_pass: float = Field(0.05, gt=0, lt=1, description="client level: probability allowed that a pool of 0 or 1 clients passes the minimum")


class PoolsConfig(OptimiserConfig):
    """Phase two: the cluster pools (CP-CFL)."""

    table = "pools"
    enabled: bool = Field(True, description="false ends the run after pre-training")
    count: int = Field(4, ge=1, description="number of pool models; 1 is one global model")
    rounds: int = Field(10, ge=1, description="rounds of choosing and training, warm-up included")
    task: Literal["supervised", "self_supervised"] = Field("supervised", description="supervised | self_supervised (the objective above)")
    start: Literal["random", "pretrained", "restarts", "farthest", "sketch"] = Field(
        "sketch",
        description="random | pretrained (CP-CFL) | restarts (IFCA) | farthest (HypCluster) | sketch (k-means over clients' mean embeddings)",
    )
    encoder: Literal["finetune", "frozen", "shared"] = Field(
        "finetune", description="finetune (one a pool) | frozen (the pre-trained one, whatever the start) | shared (one, averaged over all)"
    )
    select_by: Literal["loss", "accuracy"] = Field("loss", description="what a client compares pools by")
    select_on: Literal["train", "validation"] = Field("train", description="on which of its examples")
    local_epochs: int = Field(2, ge=1, description="passes over the client's data a round")
    batch_size: int = Field(32, ge=2, description="examples a step")
    lr: float = Field(0.05, gt=0, description="learning rate")
    warmup_rounds: int = Field(2, ge=0, description="sketch: rounds on the found groups before clients choose for themselves")
    sketch: Literal["auto", "features", "labelled"] = Field(
        "auto", description="sketch: features (mean embedding) | labelled (split by label, finds permuted labels too) | auto (labelled if supervised)"
    )
    sketch_iterations: int = Field(15, ge=1, description="sketch: iterations of federated k-means")
    sketch_starts: int = Field(32, ge=1, description="sketch: k-means runs carried side by side; the tightest is kept")
    restart_attempts: int = Field(20, ge=1, description="restarts: most draws before going on with the best one")
    restart_share: float = Field(0.1, gt=0, lt=1, description="restarts: every pool must attract this share of clients")


class EvaluateConfig(Section):
    """Metrics of the representation: fitted on all clients' training examples, measured on all their test examples."""

    table = "evaluate"
    enabled: bool = Field(True, description="measure the encoder after pre-training (needs all data in one place: simulation only)")
    knn: int = Field(200, ge=1, description="neighbours of the weighted kNN")
    knn_temperature: float = Field(0.1, gt=0, description="weight of a neighbour is exp(cosine / temperature)")
    probe_epochs: int = Field(200, ge=0, description="epochs of the linear probe; 0 leaves it out")
    fine_tune: tuple[float, ...] = Field((), description="shares of labels to fine-tune the whole encoder with, for example [0.01, 0.1]")
    fine_tune_epochs: int = Field(200, ge=1, description="epochs of fine-tuning")


class RuntimeConfig(Section):
    """The machine."""

    table = "runtime"
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto | cpu | cuda")
    precision: Literal["float32", "mixed"] = Field(
        "float32", description="float32 | mixed (bfloat16 on the processor, float16 with loss scaling on cuda)"
    )
    threads: int = Field(1, ge=1, description="torch threads a client")
    checkpoint_every: int = Field(1, ge=1, description="rounds between checkpoints")


class FederationConfig(Section):
    """A whole run. Without arguments: digits, eight clients in four rotation groups, SSD, then four pools.

    Raises:
        ConfigError: naming the field, the value and the remedy.
    """

    name: str = Field("secure-fl", min_length=1, max_length=80, description="shown in reports")
    seed: int = Field(0, ge=0, description="everything random follows from it")
    data: DataConfig = DataConfig()
    partition: PartitionConfig = PartitionConfig()
    views: ViewsConfig = ViewsConfig()
    model: ModelConfig = ModelConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    pretrain: PretrainConfig = PretrainConfig()
    pools: PoolsConfig = PoolsConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    runtime: RuntimeConfig = RuntimeConfig()

    @property
    def augments(self) -> bool:
        """Whether any phase makes views of examples."""
        trained = self.pretrain.mode in ("federated", "centralized")
        measured = self.evaluate.enabled and self.pretrain.mode != "none"
        return trained or measured or (self.pools.enabled and self.pools.task == "self_supervised")

    @model_validator(mode="after")
    def _tables_agree(self) -> Self:
        for holds, field, value, problem, remedy in self._rules():
            if not holds:
                raise ConfigError(problem, field=field, value=value, remedy=remedy)
        return self

    def _rules(self) -> list[tuple[bool, str, object, str, str]]:
        """What must hold between tables: (holds, field, value, problem, remedy)."""
        pretrain, pools, data = self.pretrain, self.pools, self.data
        crop = self.views.crop_scale
        shares = self.evaluate.fine_tune
        # fmt: off
        return [
            (pretrain.mode != "centralized" or pretrain.source is not None, "pretrain.source", None,
             "centralized pre-training has no data", 'name a set in [pretrain.source], or set pretrain.mode = "federated"'),
            (pretrain.mode != "load" or pretrain.load_from is not None, "pretrain.load_from", None,
             "no run folder to load from", "set pretrain.load_from to a finished run folder"),
            (not pools.enabled or pools.start != "pretrained" or pretrain.mode != "none", "pools.start", pools.start,
             "there is no pre-trained encoder", 'set pools.start = "random" or pretrain.mode = "federated"'),
            (pools.enabled or pretrain.mode != "none", "pools.enabled", pools.enabled,
             "both phases are switched off", "enable the pools or choose a pretrain.mode"),
            (not pools.enabled or pools.select_on == "train" or data.validation_fraction > 0, "data.validation_fraction", data.validation_fraction,
             "clients are to choose on validation data but keep none", 'set data.validation_fraction = 0.1, or pools.select_on = "train"'),
            (not pools.enabled or pools.task == "supervised" or pools.select_by == "loss", "pools.select_by", pools.select_by,
             "a self-supervised pool has no accuracy", 'set pools.select_by = "loss"'),
            (not pools.enabled or pools.start != "sketch" or pools.warmup_rounds < pools.rounds, "pools.warmup_rounds", pools.warmup_rounds,
             "no round is left after the warm-up", f"set it below pools.rounds = {pools.rounds}"),
            (crop is None or 0 < crop[0] <= crop[1] <= 1, "views.crop_scale", crop,
             "not an ascending pair within (0, 1]", "for example [0.4, 1.0]"),
            (all(0 < share <= 1 for share in shares), "evaluate.fine_tune", shares,
             "not a list of shares within (0, 1]", "for example [0.01, 0.1]"),
        ]
        # fmt: on


def _typed(error: ValidationError, section: type[Section]) -> ConfigError:
    """The first of pydantic's complaints, as ours."""
    first = error.errors()[0]
    path = ".".join(str(part) for part in (*filter(None, [section.table]), *first["loc"]))
    if first["type"] == "extra_forbidden":
        known = list(section.model_fields)
        near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1)
        remedy = f"did you mean {near[0]!r}?" if near else "known keys: " + ", ".join(known)
        return ConfigError("unknown key", field=path, value=first["input"], remedy=remedy)
    problem = str(first["msg"]).removeprefix("Value error, ")
    field = section.model_fields.get(str(first["loc"][0])) if first["loc"] else None
    remedy = f"{field.description}" if field is not None and field.description else "see `secure-fl init` for a commented example"
    return ConfigError(problem, field=path or "configuration", value=first.get("input"), remedy=remedy)
