"""The tables of a run: data, models, objective, phases, machine. Privacy has a file of its own."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from secure_fl.config.section import PathText, Section
from secure_fl.errors import ConfigError

PACKAGED = ("digits", "mnist5k", "mnist", "fashion_mnist", "cifar10", "cifar100")
"""Sets that everybody has the same of: their classes and shapes are known, and they have no clients
of their own.
"""


class SourceConfig(Section):
    """One data set."""

    table = "data.sources"
    name: Literal[
        "digits",
        "mnist5k",
        "mnist",
        "fashion_mnist",
        "cifar10",
        "cifar100",
        "npz",
        "npy",
        "images",
        "csv",
        "parquet",
    ] = Field(
        "digits",
        description="digits | mnist5k | mnist | fashion_mnist | cifar10 | cifar100; your own: npz "
        "| npy | images | csv | parquet",
    )
    path: PathText | None = Field(
        None,
        description="folder (idx, CIFAR binary, images) or file; npz, npy, csv, parquet: also a "
        "folder or a glob, one file a client, named after it; not needed for digits, mnist5k and "
        "Debian's fashion_mnist",
    )
    limit: int | None = Field(
        None,
        ge=1,
        description="use at most this many examples, drawn at random but the same for one seed",
    )
    kind: Literal["auto", "image", "series", "vector"] = Field(
        "auto",
        description="npz and npy: what x is; auto reads four dimensions as images, three as "
        "series and two as vectors",
    )
    layout: Literal["auto", "channels_first", "channels_last"] = Field(
        "auto",
        description="which axis of images and series holds the channels; auto finds it or "
        "refuses: auto | channels_first | channels_last",
    )
    label: str | None = Field(
        None,
        description="column (npz: array) with the labels; where it is not set, `label` or `y` if "
        "there is one",
    )
    client: str | None = Field(
        None,
        description="column (npz: array) that says who holds an example; where it is not set, "
        "`client` if there is one",
    )
    split: str | None = Field(
        None,
        description="column (npz: array) with train, validation or test (0, 1, 2); where it is "
        "not set, `split` if there is one",
    )
    group: str | None = Field(
        None,
        description="column (npz: array) whose equal values (one patient, one recording) stay "
        "together; where it is not set, `group`",
    )
    features: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="csv and parquet: columns that make up an example; all "
        "others where it is not set",
    )
    categories: dict[str, tuple[str, ...]] | None = Field(
        None,
        description="csv and parquet: the values of text columns, { colour = ['red', 'blue'] }; "
        "where it is not set they are found in the data, which private runs refuse",
    )

    @model_validator(mode="after")
    def _settings_fit(self) -> Self:
        """Refuse settings that the source would not read."""
        tables, arrays = self.name in ("csv", "parquet"), self.name in ("npz", "npy")
        unread: tuple[str, ...] = () if tables else ("features", "categories")
        unread += () if tables or arrays else ("label", "client", "split", "group")
        unread += () if arrays else ("kind", "layout")
        for setting in unread:
            if getattr(self, setting) not in (None, "auto"):
                remedy = f"leave it out: {self.name} does not read it"
                raise ConfigError(
                    "means nothing for this source",
                    field=f"data.sources.{setting}",
                    value=getattr(self, setting),
                    remedy=remedy,
                )
        return self


class DataConfig(Section):
    """What the clients hold."""

    table = "data"
    sources: tuple[SourceConfig, ...] = Field(
        (SourceConfig(),), min_length=1, description="one or more data sets"
    )
    classes: int | None = Field(
        None,
        ge=1,
        description="number of classes; private runs need it or class_names for data of your own, "
        "since labels are private (known sets know it)",
    )
    class_names: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="the classes by name, in the order of their numbers; other labels are "
        "refused, and everybody may know the names",
    )
    image_size: int | None = Field(
        None,
        ge=8,
        le=256,
        description="resize images to this many pixels a side (needed "
        "when images or sources differ)",
    )
    scale: Literal["auto", "none", "per_example", "per_client", "given"] = Field(
        "auto",
        description="auto: each series to mean 0 and deviation 1, images as they are, columns of "
        "tables as given or per_client | none | per_example | per_client (tables: by each "
        "client's own training examples) | given (tables: column_means); "
        "bytes are divided by 255 anyhow",
    )
    column_means: tuple[Annotated[float, Field(ge=-1e30, le=1e30)], ...] | None = Field(
        None,
        min_length=1,
        description="tables: the mean of each column, the same for all clients and newcomers; "
        "needed under example-level privacy, where it must be known beforehand and not computed "
        "from the clients' examples",
    )
    column_deviations: tuple[Annotated[float, Field(ge=1e-30, le=1e30)], ...] | None = Field(
        None,
        min_length=1,
        description="tables: the deviation of each column, with column_means; 1 for a column that "
        "should only be shifted",
    )
    test_fraction: float = Field(
        0.2,
        gt=0,
        lt=1,
        description="held out where neither the source nor a split column says what is for testing",
    )
    test_limit: int = Field(
        500,
        ge=1,
        description="test examples a client; by its own label shares (private runs: at random)",
    )
    validation_fraction: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of each client's training examples kept for choosing a pool",
    )
    labelled_clients: float = Field(
        1.0,
        ge=0,
        le=1,
        description="share of clients that keep their labels; the others join without",
    )

    @model_validator(mode="after")
    def _names_agree(self) -> Self:
        names = self.class_names
        if names is not None and len(set(names)) < len(names):
            raise ConfigError(
                "names a class twice",
                field="data.class_names",
                value=names,
                remedy="name each class once",
            )
        if names is not None and self.classes not in (None, len(names)):
            remedy = f"leave it out, or set it to {len(names)}"
            raise ConfigError(
                f"data.class_names has {len(names)} names",
                field="data.classes",
                value=self.classes,
                remedy=remedy,
            )
        return self

    @property
    def packaged(self) -> bool:
        """Whether every source is a set that everybody has the same of, so that who its clients are
        is known from the configuration.
        """
        return all(source.name in PACKAGED for source in self.sources)


class PartitionConfig(Section):
    """How clients differ."""

    table = "partition"
    kind: Literal[
        "auto", "iid", "dirichlet", "shards", "rotation", "label_permutation", "source", "natural"
    ] = Field(
        "auto",
        description="auto (natural where the data say who holds what, else iid; known images: "
        "rotation) | iid | dirichlet | shards | rotation | label_permutation | source | natural "
        "(each client its own examples)",
    )
    clients: int = Field(
        12,
        ge=1,
        le=1_000_000,
        description="number of clients (natural: read from the data instead)",
    )
    groups: int = Field(
        3,
        ge=1,
        le=10_000,
        description="rotation and label_permutation: number of groups, dealt out in turn",
    )
    concentration: float = Field(
        0.1, gt=0, description="dirichlet: small is skewed; the paper uses 0.1"
    )
    shards_per_client: int = Field(
        2,
        ge=1,
        le=10_000,
        description="shards: shards each client receives, cut from the examples sorted by label",
    )
    min_examples: int = Field(
        2,
        ge=2,
        description="smallest training set a client may have, after "
        "validation examples are set aside",
    )
    ignore_clients: bool = Field(
        False,
        description="deal the examples anew although the data say who holds them, which dissolves "
        "real clients",
    )

    @property
    def grouped(self) -> bool:
        """Whether clients are made to differ in known groups."""
        return self.kind in ("rotation", "label_permutation")


class ViewsConfig(Section):
    """Augmentation that makes two views of an example."""

    table = "views"
    kind: Literal["auto", "photo", "glyph", "series", "table"] = Field(
        "auto",
        description="auto | photo (the paper's, for colour) | glyph (one channel: no flip, gentle "
        "crop) | series | table (columns replaced)",
    )
    crop_scale: tuple[float, float] | None = Field(
        None, description="area kept by the random crop; photo 0.08-1, glyph 0.4-1"
    )
    flip: float | None = Field(
        None, ge=0, le=1, description="probability of a horizontal flip; photo 0.5, glyph 0"
    )
    colour_jitter: float | None = Field(
        None,
        ge=0,
        le=1,
        description="strength of colour (glyph: brightness and contrast) jitter; 0.8 and 0.4",
    )
    noise: float = Field(
        0.1,
        ge=0,
        description="series and tables: deviation of added noise; a series, or a table's column, "
        "has deviation 1 under data.scale = auto",
    )
    mask: float = Field(0.2, ge=0, lt=1, description="series: share of time steps hidden")
    corrupt: float = Field(
        0.15,
        ge=0,
        lt=1,
        description="table: share of an example's columns replaced by draws from a standard normal",
    )


class ModelConfig(Section):
    """Encoder and projector."""

    table = "model"
    encoder: Literal["auto", "convnet", "resnet18", "series_convnet", "mlp"] = Field(
        "auto",
        description="auto (resnet18 for colour, convnet for one channel or another width, "
        "series_convnet for series, mlp for tables) | convnet | resnet18 | series_convnet | mlp",
    )
    norm: Literal["auto", "group", "batch"] = Field(
        "auto", description="auto (batch for resnet18 as in the paper, else group) | group | batch"
    )
    features: int | None = Field(
        None,
        ge=16,
        le=16_384,
        description="width of h; 128, and 512 for resnet18, where it is fixed",
    )
    projector_hidden: int | None = Field(
        None, ge=16, le=65_536, description="hidden width of the projector; four times its output"
    )
    embedding: int | None = Field(
        None,
        ge=2,
        le=16_384,
        description="width of z; the encoder's width, which distillation needs",
    )


class ObjectiveConfig(Section):
    """The self-supervised loss."""

    table = "objective"
    name: Literal[
        "ssd", "ssd_nt_xent", "align_uniform", "nt_xent", "spectral_contrastive", "masked"
    ] = Field(
        "ssd",
        description="ssd | ssd_nt_xent (SSD around NT-Xent) | align_uniform | nt_xent (SimCLR) | "
        "spectral_contrastive | masked (reconstruction)",
    )
    temperature: float = Field(0.5, gt=0, description="of nt_xent and ssd_nt_xent")
    t: float = Field(2.0, gt=0, description="scale of the Gaussian kernel in the uniformity loss")
    beta: float = Field(1.0, ge=0, description="weight of uniformity")
    gamma: float | None = Field(
        None,
        ge=0,
        description="weight of the dimension-scaled regulariser; by form: code 1, normalized "
        "0.055, paper 0.01",
    )
    delta: float = Field(0.1, ge=0, description="weight of projector distillation")
    alpha: float = Field(10.0, ge=1, description="how much a client's own dimensions are scaled")
    form: Literal["code", "paper", "normalized"] = Field(
        "code", description="code (the authors' runs) | paper (printed equation) | normalized"
    )
    basis: Literal["shared", "axis"] = Field(
        "shared",
        description="shared (one random rotation, as the authors' code) | axis (as printed)",
    )
    assign: Literal["client_id", "position", "modulo"] = Field(
        "client_id",
        description="who owns which dimensions: client_id | position (in the round's list, the "
        "authors' quirk) | modulo (slices shared)",
    )
    distillation_temperature: float = Field(
        0.5, gt=0, description="the authors' code 0.5; printed equation 1"
    )
    direction: Literal["projector_to_encoder", "encoder_to_projector"] = Field(
        "projector_to_encoder", description="KL(z||h) as the authors' code, or KL(h||z) as printed"
    )


class OptimiserConfig(Section):
    """Local SGD; momentum starts afresh each time a client is called."""

    local_epochs: int = Field(
        5, ge=1, le=1_000_000, description="passes over the client's data a round"
    )
    batch_size: int = Field(128, ge=2, description="examples a step")
    lr: float = Field(0.1, gt=0, description="learning rate")
    momentum: float = Field(0.9, ge=0, lt=1, description="SGD momentum")
    weight_decay: float = Field(1e-4, ge=0, description="SGD weight decay")
    schedule: Literal["constant", "cosine"] = Field(
        "constant",
        description="of the learning rate over rounds: constant (as the "
        "authors' code runs) | cosine",
    )
    participation: float = Field(1.0, gt=0, le=1, description="share of clients called each round")
    weights: Literal["examples", "uniform"] = Field(
        "uniform",
        description="how clients count in an average: uniform | examples (default in the open; a "
        "sum shows numbers of examples by difference)",
    )

    def cohort_size(self, clients: int) -> int:
        """How many of so many clients a round calls, at least one."""
        return max(1, round(self.participation * clients))


class PretrainConfig(OptimiserConfig):
    """Phase one: an encoder without labels."""

    table = "pretrain"
    mode: Literal["federated", "centralized", "load", "none"] = Field(
        "federated",
        description="federated | centralized (on `source`) | load (the encoder of the run folder "
        "`load_from`) | none",
    )
    rounds: int = Field(
        100,
        ge=1,
        le=1_000_000,
        description="federated rounds, or epochs/local_epochs of centralized training",
    )
    source: SourceConfig | None = Field(
        None, description="centralized: the unlabelled set to train on"
    )
    load_from: PathText | None = Field(
        None, description="load: a finished run folder with the same model"
    )


class PoolsConfig(OptimiserConfig):
    """Phase two: the cluster pools (CP-CFL)."""

    table = "pools"
    enabled: bool = Field(True, description="false ends the run after pre-training")
    count: int = Field(
        3, ge=1, le=10_000, description="number of pool models; 1 is one global model"
    )
    rounds: int = Field(
        10, ge=1, le=1_000_000, description="rounds of choosing and training, warm-up included"
    )
    task: Literal["supervised", "self_supervised"] = Field(
        "supervised", description="supervised | self_supervised (the objective above)"
    )
    start: Literal["random", "pretrained", "restarts", "farthest", "sketch"] = Field(
        "sketch",
        description="random | pretrained (CP-CFL) | restarts (IFCA) | farthest (HypCluster) | "
        "sketch (k-means over clients' sketches)",
    )
    encoder: Literal["finetune", "frozen", "shared"] = Field(
        "finetune",
        description="finetune (one a pool) | frozen (the pre-trained one, whatever the start) | "
        "shared (one, averaged over all)",
    )
    select_by: Literal["loss", "accuracy"] = Field(
        "loss", description="what a client compares pools by"
    )
    select_on: Literal["train", "validation"] = Field(
        "train", description="on which of its examples"
    )
    local_epochs: int = Field(
        2, ge=1, le=1_000_000, description="passes over the client's data a round"
    )
    batch_size: int = Field(32, ge=2, description="examples a step")
    lr: float = Field(0.05, gt=0, description="learning rate")
    warmup_rounds: int = Field(
        2,
        ge=0,
        description="sketch: rounds on the found groups before clients may leave them; fewer "
        "where pools.rounds leaves none after",
    )
    keep_margin: float = Field(
        0.1,
        ge=0,
        le=1,
        description="sketch: share by which another pool's loss (or error) must be lower for a "
        "client to leave its found group; 0: choose freely",
    )
    sketch: Literal["auto", "features", "labelled"] = Field(
        "auto",
        description="sketch: features (a client's mean example) | labelled (by label: finds "
        "permuted labels too) | auto (labelled if supervised)",
    )
    sketch_of: Literal["examples", "encoder"] = Field(
        "examples",
        description="sketch: examples (pooled pixels; values, squares and spectrum of series; "
        "columns) | encoder (embeddings by the pre-trained one)",
    )
    sketch_iterations: int = Field(
        15, ge=1, le=10_000, description="sketch: iterations of federated k-means"
    )
    sketch_starts: int = Field(
        128,
        ge=1,
        le=10_000,
        description="sketch: k-means runs side by side, of which the tightest is kept; 32 where "
        "sketches are not noised",
    )
    restart_attempts: int = Field(
        20, ge=1, le=10_000, description="restarts: most draws before going on with the best one"
    )
    restart_share: float = Field(
        0.1, gt=0, lt=1, description="restarts: every pool must attract this share of clients"
    )


class EvaluateConfig(Section):
    """What the experimenter reads off a simulation: accuracies, choices, losses, and metrics of the
    representation over all clients' examples.
    """

    table = "evaluate"
    enabled: bool = Field(
        True,
        description="measure the encoder (simulation only); false leaves all that the "
        "experimenter reads off the clients out of the record",
    )
    knn: int = Field(200, ge=1, le=1_000_000, description="neighbours of the weighted kNN")
    knn_temperature: float = Field(
        0.1, gt=0, description="weight of a neighbour is exp(cosine / temperature)"
    )
    probe_epochs: int = Field(
        200, ge=0, le=1_000_000, description="epochs of the linear probe; 0 leaves it out"
    )
    fine_tune: tuple[float, ...] = Field(
        (),
        description="shares of labels to fine-tune the whole encoder with, for example [0.01, 0.1]",
    )
    fine_tune_epochs: int = Field(200, ge=1, le=1_000_000, description="epochs of fine-tuning")


class RuntimeConfig(Section):
    """The machine."""

    table = "runtime"
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto | cpu | cuda")
    precision: Literal["float32", "mixed"] = Field(
        "float32",
        description="float32 | mixed (bfloat16 on the processor, float16 "
        "with loss scaling on cuda)",
    )
    threads: int = Field(1, ge=1, le=1_024, description="torch threads a client")
    checkpoint_every: int = Field(1, ge=1, description="rounds between checkpoints")
