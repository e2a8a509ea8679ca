"""The tables of a run about training: models, objective, phases, measuring, machine."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from secure_fl.config.data_tables import SourceConfig
from secure_fl.config.section import PathText, Section


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
        6,
        ge=1,
        le=10_000,
        description="sketch: most iterations of federated k-means, 11 where sketches are not "
        "noised; more find no more groups",
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
    workers: int = Field(
        1,
        ge=1,
        le=256,
        description="processes that clients compute in, side by side, with the same models; "
        "1: all in this one",
    )
    checkpoint_every: int = Field(1, ge=1, description="rounds between checkpoints")
