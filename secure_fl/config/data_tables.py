"""The tables of a run about its examples: where they are, who holds them and how views are made."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from secure_fl.config.section import PathText, Section, require

PACKAGED = ("digits", "mnist5k", "mnist", "fashion_mnist", "cifar10", "cifar100")
"""Sets that everybody has the same of: classes and shapes are known, and nobody is a client."""


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
    ] = "digits"
    """digits | mnist5k | mnist | fashion_mnist | cifar10 | cifar100; your own: npz | npy | images |
    csv | parquet
    """
    path: PathText | None = None
    """folder (idx, CIFAR binary, images) or file; npz, npy, csv, parquet: also a folder or a glob,
    one file a client, named after it; not needed for digits, mnist5k and Debian's fashion_mnist
    """
    limit: int | None = Field(None, ge=1)
    """use at most this many examples, drawn at random but the same for one seed"""
    kind: Literal["auto", "image", "series", "vector"] = "auto"
    """npz and npy: what x is; auto: four dimensions are images, three series, two vectors"""
    layout: Literal["auto", "channels_first", "channels_last"] = "auto"
    """which axis of images and series holds the channels; auto finds it or refuses: auto |
    channels_first | channels_last
    """
    label: str | None = None
    """column (npz: array) with the labels; where it is not set, `label` or `y` if there is one"""
    client: str | None = None
    """column (npz: array) that says who holds an example; unset: `client` if there is one"""
    split: str | None = None
    """column (npz: array) with train, validation or test (0, 1, 2); unset: `split`, if any"""
    group: str | None = None
    """column (npz: array) whose equal values (a patient) stay together; unset: `group`, if any"""
    features: tuple[str, ...] | None = Field(None, min_length=1)
    """csv and parquet: columns that make up an example; all others where it is not set"""
    categories: dict[str, tuple[str, ...]] | None = None
    """csv and parquet: the values of text columns, { colour = ['red', 'blue'] }; where it is not
    set they are found in the data, which private runs refuse
    """

    @model_validator(mode="after")
    def _settings_fit(self) -> Self:
        """Refuse settings that the source would not read."""
        tables, arrays = self.name in ("csv", "parquet"), self.name in ("npz", "npy")
        unread: tuple[str, ...] = () if tables else ("features", "categories")
        unread += () if tables or arrays else ("label", "client", "split", "group")
        unread += () if arrays else ("kind", "layout")
        problem = "means nothing for this source"
        remedy = f"leave it out: {self.name} does not read it"
        require(
            (value in (None, "auto"), f"data.sources.{setting}", value, problem, remedy)
            for setting in unread
            for value in [getattr(self, setting)]
        )
        return self


class DataConfig(Section):
    """What the clients hold."""

    table = "data"
    sources: tuple[SourceConfig, ...] = Field((SourceConfig(),), min_length=1)
    """one or more data sets"""
    classes: int | None = Field(None, ge=1)
    """number of classes; private runs need it or class_names for data of your own, since labels are
    private (known sets know it)
    """
    class_names: tuple[str, ...] | None = Field(None, min_length=1)
    """the classes in the order of their numbers; others are refused, everybody may know them"""
    image_size: int | None = Field(None, ge=8, le=256)
    """resize images to this many pixels a side (needed when images or sources differ)"""
    scale: Literal["auto", "none", "per_example", "per_client", "given"] = "auto"
    """auto: each series to mean 0 and deviation 1, images as they are, columns of tables as given
    or per_client | none | per_example | per_client (tables: by each client's own training examples)
    | given (tables: column_means); bytes are divided by 255 anyhow
    """
    column_means: tuple[Annotated[float, Field(ge=-1e30, le=1e30)], ...] | None = Field(
        None, min_length=1
    )
    """tables: the mean of each column, the same for all clients and newcomers; needed under
    example-level privacy, where it must be known beforehand and not computed from the clients'
    examples
    """
    column_deviations: tuple[Annotated[float, Field(ge=1e-30, le=1e30)], ...] | None = Field(
        None, min_length=1
    )
    """tables: the deviation of each column, with column_means; 1 for one that is only shifted"""
    test_fraction: float = Field(0.2, gt=0, lt=1)
    """held out where neither the source nor a split column says what is for testing"""
    test_limit: int = Field(500, ge=1)
    """test examples a client; by its own label shares (private runs: at random)"""
    validation_fraction: float = Field(0.0, ge=0, lt=1)
    """share of each client's training examples kept for choosing a pool"""
    labelled_clients: float = Field(1.0, ge=0, le=1)
    """share of clients that keep their labels; the others join without"""

    @model_validator(mode="after")
    def _names_agree(self) -> Self:
        names = self.class_names or ()
        require([
            (len(set(names)) == len(names), "data.class_names", names,
             "names a class twice", "name each class once"),
            (not names or self.classes in (None, len(names)), "data.classes", self.classes,
             f"data.class_names has {len(names)} names",
             f"leave it out, or set it to {len(names)}"),
        ])  # fmt: skip
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
    ] = "auto"
    """auto (natural where the data say who holds what, else iid; known images: rotation) | iid |
    dirichlet | shards | rotation | label_permutation | source | natural (each client its own
    examples)
    """
    clients: int = Field(12, ge=1, le=1_000_000)
    """number of clients (natural: read from the data instead)"""
    groups: int = Field(3, ge=1, le=10_000)
    """rotation and label_permutation: number of groups, dealt out in turn"""
    concentration: float = Field(0.1, gt=0)
    """dirichlet: small is skewed; the paper uses 0.1"""
    shards_per_client: int = Field(2, ge=1, le=10_000)
    """shards: shards each client receives, cut from the examples sorted by label"""
    min_examples: int = Field(2, ge=2)
    """smallest training set a client may have, after validation examples are set aside"""
    ignore_clients: bool = False
    """deal the examples anew although the data say who holds them, which dissolves real clients"""

    @property
    def grouped(self) -> bool:
        """Whether clients are made to differ in known groups."""
        return self.kind in ("rotation", "label_permutation")


class ViewsConfig(Section):
    """Augmentation that makes two views of an example."""

    table = "views"
    kind: Literal["auto", "photo", "glyph", "series", "table"] = "auto"
    """auto | photo (the paper's, for colour) | glyph (one channel: no flip, gentle crop) | series |
    table (columns replaced)
    """
    crop_scale: tuple[float, float] | None = None
    """area kept by the random crop; photo 0.08-1, glyph 0.4-1, either for view moments 0.6-1"""
    flip: float | None = Field(None, ge=0, le=1)
    """probability of a horizontal flip; photo 0.5, glyph 0"""
    colour_jitter: float | None = Field(None, ge=0, le=1)
    """strength of colour (glyph: brightness and contrast) jitter; 0.8 and 0.4"""
    turn: float | None = Field(None, ge=0, le=180)
    """images: degrees turned by at most, either way; 180 where turned images mean the same, which
    is the default for view moments where partition.kind = rotation; 0 otherwise
    """
    noise: float = Field(0.1, ge=0)
    """series and tables: deviation of added noise; a series, or a table's column, has deviation 1
    under data.scale = auto
    """
    mask: float = Field(0.2, ge=0, lt=1)
    """series: share of time steps hidden"""
    corrupt: float = Field(0.15, ge=0, lt=1)
    """table: share of an example's columns replaced by draws from a standard normal"""
