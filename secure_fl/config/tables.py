"""The tables of a run about training: models, objective, phases, measuring, machine."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from secure_fl.config.data_tables import SourceConfig
from secure_fl.config.section import PathText, Section


class ModelConfig(Section):
    """Encoder and projector."""

    table = "model"
    encoder: Literal["auto", "convnet", "resnet18", "series_convnet", "mlp", "scattering"] = "auto"
    """auto (resnet18 for colour, convnet for one channel or another width, series_convnet for
    series, mlp for tables) | convnet | resnet18 | series_convnet | mlp | scattering (a small head
    on fixed wavelets, for images and series: few weights for noise to fall on)
    """
    norm: Literal["auto", "group", "batch"] = "auto"
    """auto (batch for resnet18 as in the paper, else group) | group | batch"""
    features: int | None = Field(None, ge=16, le=16_384)
    """width of h; 128, and 512 for resnet18, where it is fixed"""
    projector_hidden: int | None = Field(None, ge=16, le=65_536)
    """hidden width of the projector; four times its output"""
    embedding: int | None = Field(None, ge=2, le=16_384)
    """width of z; the encoder's width, which distillation needs"""


class ObjectiveConfig(Section):
    """The self-supervised loss."""

    table = "objective"
    name: Literal[
        "ssd", "ssd_nt_xent", "align_uniform", "nt_xent", "spectral_contrastive", "masked"
    ] = "ssd"
    """ssd | ssd_nt_xent (SSD around NT-Xent) | align_uniform | nt_xent (SimCLR) |
    spectral_contrastive | masked (reconstruction)
    """
    temperature: float = Field(0.5, gt=0)
    """of nt_xent and ssd_nt_xent"""
    t: float = Field(2.0, gt=0)
    """scale of the Gaussian kernel in the uniformity loss"""
    beta: float = Field(1.0, ge=0)
    """weight of uniformity"""
    gamma: float | None = Field(None, ge=0)
    """weight of the dimension-scaled regulariser; by form: code 1, normalized 0.055, paper 0.01"""
    delta: float = Field(0.1, ge=0)
    """weight of projector distillation"""
    alpha: float = Field(10.0, ge=1)
    """how much a client's own dimensions are scaled"""
    form: Literal["code", "paper", "normalized"] = "code"
    """code (the authors' runs) | paper (printed equation) | normalized"""
    basis: Literal["shared", "axis"] = "shared"
    """shared (one random rotation, as the authors' code) | axis (as printed)"""
    assign: Literal["client_id", "position", "modulo"] = "client_id"
    """who owns which dimensions: client_id | position (in the round's list, the authors' quirk) |
    modulo (slices shared)
    """
    distillation_temperature: float = Field(0.5, gt=0)
    """the authors' code 0.5; printed equation 1"""
    direction: Literal["projector_to_encoder", "encoder_to_projector"] = Field(
        "projector_to_encoder"
    )
    """KL(z||h) as the authors' code, or KL(h||z) as printed"""
    adaptive: bool = False
    """ssd: gamma and delta follow how far clients differ, in federated pre-training: as their
    summed updates say, or under privacy their sketches, which then come first
    """
    adaptive_least: float = Field(0.5, ge=0, le=1)
    """what gamma and delta are multiplied by where clients are alike"""
    adaptive_most: float = Field(2.0, ge=1)
    """and where they have nothing in common"""


class OptimiserConfig(Section):
    """Local SGD; momentum starts afresh each time a client is called."""

    local_epochs: int = Field(5, ge=1, le=1_000_000)
    """passes over the client's data a round"""
    batch_size: int = Field(128, ge=2)
    """examples a step"""
    lr: float = Field(0.1, gt=0)
    """learning rate"""
    momentum: float = Field(0.9, ge=0, lt=1)
    """SGD momentum"""
    weight_decay: float = Field(0.0001, ge=0)
    """SGD weight decay"""
    schedule: Literal["constant", "cosine"] = "constant"
    """of the learning rate over rounds: constant (as the authors' code runs) | cosine"""
    participation: float = Field(1.0, gt=0, le=1)
    """share of clients called each round"""
    weights: Literal["examples", "uniform"] = "uniform"
    """how clients count in an average: uniform | examples (default in the open; a sum shows numbers
    of examples by difference)
    """

    def cohort_size(self, clients: int) -> int:
        """How many of so many clients a round calls, at least one."""
        return max(1, round(self.participation * clients))


class PretrainConfig(OptimiserConfig):
    """Phase one: an encoder without labels."""

    table = "pretrain"
    mode: Literal["federated", "centralized", "load", "none"] = "federated"
    """federated | centralized (on `source`) | load (encoder of the run `load_from`) | none"""
    rounds: int = Field(100, ge=1, le=1_000_000)
    """federated rounds, or epochs/local_epochs of centralized training"""
    source: SourceConfig | None = None
    """centralized: the unlabelled set to train on"""
    load_from: PathText | None = None
    """load: a finished run folder with the same model"""
    method: Literal["auto", "train", "view_moments"] = "auto"
    """federated: train (the objective, by averaging) | view_moments (two sums: fixed public
    features, whitened by how views of one example differ; `rounds` is 2) | auto (view_moments for
    private examples, unless a setting of training is set); load: how the encoder of the run
    `load_from` was made, auto: as that run says
    """
    views_per_example: int = Field(8, ge=2, le=64)
    """view_moments: views of an example, whose differences are averaged away"""
    moment_clip: float = Field(0.1, gt=0, le=1)
    """view_moments: bound on the norm of one example's matrix"""
    prior: Literal["synthetic", "none"] = "synthetic"
    """view_moments: synthetic (views of drawn shapes, of nobody's data, fill in what noise hides) |
    none
    """

    head: Literal["fisher", "whitening"] = "fisher"
    """view_moments: fisher (by what examples differ in, beside what changes from view to view;
    twice the numbers in the sum) | whitening (by the latter alone)
    """

    @property
    def trains(self) -> bool:
        """Whether clients train an encoder round by round."""
        return self.mode == "federated" and self.method == "train"

    @property
    def sums_moments(self) -> bool:
        """Whether clients sum how their examples' views differ."""
        return self.mode == "federated" and self.method == "view_moments"


class PoolsConfig(OptimiserConfig):
    """Phase two: the cluster pools (CP-CFL)."""

    table = "pools"
    enabled: bool = True
    """false ends the run after pre-training"""
    count: int = Field(3, ge=1, le=10_000)
    """number of pool models; 1 is one global model"""
    rounds: int = Field(10, ge=1, le=1_000_000)
    """rounds of choosing and training, warm-up included"""
    task: Literal["supervised", "self_supervised"] = "supervised"
    """supervised | self_supervised (the objective above)"""
    start: Literal["random", "pretrained", "restarts", "farthest", "sketch"] = "sketch"
    """random | pretrained (CP-CFL) | restarts (IFCA) | farthest (HypCluster) | sketch (k-means over
    clients' sketches)
    """
    encoder: Literal["finetune", "frozen", "shared"] = "finetune"
    """finetune (one a pool) | frozen (the pre-trained one, whatever the start) | shared (one,
    averaged over all)
    """
    select_by: Literal["loss", "accuracy"] = "loss"
    """what a client compares pools by"""
    select_on: Literal["train", "validation"] = "train"
    """on which of its examples"""
    local_epochs: int = Field(2, ge=1, le=1_000_000)
    """passes over the client's data a round"""
    batch_size: int = Field(32, ge=2)
    """examples a step"""
    lr: float = Field(0.05, gt=0)
    """learning rate"""
    warmup_rounds: int = Field(2, ge=0)
    """sketch: rounds on the found groups before clients may leave them; fewer in short runs"""
    keep_margin: float = Field(0.1, ge=0, le=1)
    """sketch: share by which another pool's loss (or error) must be lower for a client to leave its
    found group; 0: choose freely
    """
    sketch: Literal["auto", "features", "labelled", "conditional"] = "auto"
    """sketch: features (a client's mean example) | labelled (by label: finds permuted labels too) |
    conditional (compared by the labels both have: where clients hold different labels) | auto
    (labelled if supervised)
    """
    sketch_of: Literal["auto", "examples", "scattering", "features", "encoder"] = "auto"
    """sketch: examples (pooled pixels; values, squares and spectrum of series; columns) |
    scattering | features (512 random ones of the scattering) | encoder (embeddings by the
    pre-trained one) | auto (examples)
    """
    sketch_iterations: int = Field(6, ge=1, le=10_000)
    """sketch: most iterations of federated k-means; 11 where sketches are not noised"""
    sketch_starts: int = Field(128, ge=1, le=10_000)
    """sketch: k-means runs side by side, the tightest is kept; 32 where sketches are not noised,
    but conditional ones
    """
    restart_attempts: int = Field(20, ge=1, le=10_000)
    """restarts: most draws before going on with the best one"""
    restart_share: float = Field(0.1, gt=0, lt=1)
    """restarts: every pool must attract this share of clients"""


class EvaluateConfig(Section):
    """What the experimenter reads off a simulation: accuracies, choices, losses, and metrics of the
    representation over all clients' examples.
    """

    table = "evaluate"
    enabled: bool = True
    """measure the encoder (simulation only); false records nothing that is read off clients"""
    knn: int = Field(200, ge=1, le=1_000_000)
    """neighbours of the weighted kNN"""
    knn_temperature: float = Field(0.1, gt=0)
    """weight of a neighbour is exp(cosine / temperature)"""
    probe_epochs: int = Field(200, ge=0, le=1_000_000)
    """epochs of the linear probe; 0 leaves it out"""
    fine_tune: tuple[float, ...] = ()
    """shares of labels to fine-tune the whole encoder with, for example [0.01, 0.1]"""
    fine_tune_epochs: int = Field(200, ge=1, le=1_000_000)
    """epochs of fine-tuning"""


class RuntimeConfig(Section):
    """The machine."""

    table = "runtime"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto | cpu | cuda"""
    precision: Literal["float32", "mixed"] = "float32"
    """float32 | mixed (bfloat16 on the processor, float16 with loss scaling on cuda)"""
    threads: int = Field(1, ge=1, le=1_024)
    """torch threads a client"""
    workers: int = Field(1, ge=1, le=256)
    """processes that clients compute in, side by side, with the same models; 1: all in this one"""
    checkpoint_every: int = Field(1, ge=1)
    """rounds between checkpoints"""
