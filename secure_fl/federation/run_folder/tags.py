"""Who may read each field of every file that a run writes, as a table: a tag for each field.

`public`: nobody computed it from clients' examples.
`released:WHAT`: computed from what clients let go; `TAGS` says who gets it and what covers it.
`experimenter`: read off the parties by whoever simulates them. With `evaluate.enabled = false` such
fields are left out of the files.

A field that is not in the table is not written (`Manifest.view`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Union

from secure_fl.config import FederationConfig

PUBLIC, EXPERIMENTER, UNNOISED = "public", "experimenter", "released:unnoised"
ANY, BELOW = "*", "**"
"""Any one name (of a client, a phase, a tensor); everything below."""

REPORT = "report.html"
MADE_LATER = (REPORT, "privacy-card.html", "privacy-card.json", "audit.json", "audit/*")
"""What is made of a finished run, and made anew: no digest of the run's covers it."""

Rules = Mapping[str, Union[str, "Rules"]]

TAGS = {
    PUBLIC: "anybody: settings, shapes, charges; nobody computed it from clients' examples",
    "released:pretrain": "whoever gets the models: from noised pre-training, charged in "
    "ledger.json under `pretrain`",
    "released:sketch": "whoever gets the groups: from noised sketches and what was released "
    "before, charged under `centre` and `sketch`",
    "released:cluster": "whoever gets the models: from noised training of pools and what was "
    "released before, charged under `cluster` and `choice`",
    "released:central": "whoever gets the models: from a set that a server trained on in the "
    "clear; under privacy it holds no client's example",
    "released:loaded": "whoever gets the models: from the run in pretrain.load_from; under "
    "privacy its charges are in ledger.json under `loaded/`",
    UNNOISED: "whoever reads sums, and under protection = plain single updates: from these as "
    "they are; no ε covers it",
    "released:stored": "one client: its own noised answers, sealed under a key outside of the "
    "folder, there to be sent again, gone when the run ends",
    EXPERIMENTER: "whoever ran this simulation: read off its parties, outside of every claim",
}
"""What each tag says: who reads the field, and what covers it."""


@dataclass(frozen=True)
class _Sources:
    """What the fields of one configuration's files come from, each as a tag.

    Attributes:
        encoder: the pre-trained encoder.
        groups: what was found from sketches.
        differences: how far clients differ in pre-training: by their sketches under example-level
            privacy, else by their updates.
        pools: the pools' models, and all that follows from them.
        questions: the names of releases. Such a name holds a digest of the question, which is made
            of models and centres that were released before.
        classes: how many classes there are: declared under privacy, else read off the labels;
            every model's head shows it.
        class_names: a name that nobody declared was read off the labels.
        columns: the columns' names. A private run's are declared; otherwise values of text columns
            may be among them.
        sizes: how many examples there are. Rates and steps follow sizes, so example-level claims
            take them as public; at client level nothing follows from them.
    """

    encoder: str
    groups: str
    differences: str
    pools: str
    questions: str
    classes: str
    class_names: str
    columns: str
    sizes: str

    @classmethod
    def of(cls, config: FederationConfig) -> _Sources:
        private = config.privacy.unit != "none"
        encoder = {
            "none": PUBLIC,
            "federated": "released:pretrain" if private else UNNOISED,
            "centralized": "released:central",
            "load": "released:loaded",
        }
        groups = "released:sketch" if config.noises_sketches else UNNOISED
        pools = "released:cluster" if private else UNNOISED
        return cls(
            encoder=encoder[config.pretrain.mode],
            groups=groups,
            differences=groups if private else UNNOISED,
            pools=pools,
            questions=pools if private else groups,
            classes=PUBLIC if private else UNNOISED,
            class_names=EXPERIMENTER if config.data.class_names is None else PUBLIC,
            columns=PUBLIC if private else EXPERIMENTER,
            sizes=PUBLIC if config.privacy.unit == "example" else EXPERIMENTER,
        )


def rules_of(config: FederationConfig) -> Rules:
    """The table: file -> name -> ... -> tag, as `Manifest.files` describes it."""
    sources = _Sources.of(config)
    shown = EXPERIMENTER if config.evaluate.enabled else sources.pools
    return {
        "config.toml": {BELOW: PUBLIC},
        # As it was before the run was made longer, once for each time.
        "configs/*": {BELOW: PUBLIC},
        "manifest.json": {BELOW: PUBLIC},
        ".lock": PUBLIC,
        ".lock-holder": PUBLIC,
        "metrics.jsonl": _record(sources),
        "summary.json": _summary(sources),
        "ledger.json": _ledger(sources.questions),
        "transcript.jsonl": _transcript(sources),
        # Digests of files that have fields of the experimenter's.
        "digests.json": EXPERIMENTER,
        "partition.json": EXPERIMENTER,
        "embedding.json": EXPERIMENTER,
        # Of `secure-fl report`: pages and a card that show what the other files say.
        **_all("report.html privacy-card.html", shown),
        "privacy-card.json": _card(sources),
        # An audit has all clients' examples at hand, and shows what attacks make of them.
        "audit.json": EXPERIMENTER,
        "audit/*": EXPERIMENTER,
        "central.json": {"salt": PUBLIC, "digests": "released:central"},
        "checkpoints/*/manifest.json": _checkpoint(sources),
        "checkpoints/*/state.safetensors": _state(sources),
        "private-results/*/*": "released:stored",
        "private-results.made": sources.questions,
        "model/model.json": _model(sources),
        "model/encoder.safetensors": {ANY: sources.encoder},
        "model/pools.safetensors": {
            **_all("guide.mean guide.centres guide.public_centre", sources.groups),
            ANY: sources.pools,
        },
    }


def is_made_later(name: str) -> bool:
    """Whether a file of a run's folder is one of `MADE_LATER`."""
    return any(fnmatchcase(name, made) for made in MADE_LATER)


def _all(names: str, tag: str | Rules) -> dict[str, str | Rules]:
    """One tag for each of several names, given with spaces in between."""
    return dict.fromkeys(names.split(), tag)


def _model(sources: _Sources) -> Rules:
    """What a saved model says of itself."""
    return {
        **_all("shape scale image_size column_means column_deviations task custom_encoder", PUBLIC),
        "classes": sources.classes,
        "class_names": sources.class_names,
        "columns": sources.columns,
        **_all("choices client_names client_scales", EXPERIMENTER),
    }


def _mark(questions: str) -> Rules:
    """How far the ledger had come; its last hash is over the names of releases."""
    return {"length": PUBLIC, "head": questions}


def _record(sources: _Sources) -> Rules:
    """A line of `metrics.jsonl`. Seconds follow how many examples were drawn, which is secret."""
    read_off = (
        "loss terms accuracy accuracy_std accuracy_min test_loss accuracies choices pools cut"
    )
    watched = "balanced_accuracy majority exploded alerts"
    measured = "initial pretrained measured_on"
    metrics: Rules = {
        "privacy": _all("epsilon delta unit", PUBLIC),
        "ledger": _mark(sources.questions),
        "refused": PUBLIC,
        **_all("groups_opened groups_left_out", sources.pools),
        **_all("spread difference unexplained counts", sources.groups),
        "separation": _all("difference gamma delta", sources.differences),
        **_all("accepted centre differences", UNNOISED),
        # Sums of test scores, which are made without differential privacy only.
        "tested": _all("clients mean_accuracy accuracy_deviation mean_loss", UNNOISED),
        **_all(f"{read_off} {watched} {measured}", EXPERIMENTER),
    }
    return {
        **_all("phase round clients", PUBLIC),
        # A pool that is too small is not opened, which takes fewer bytes.
        **_all("bytes_down bytes_up", sources.pools),
        **_all("seconds sum_seconds", EXPERIMENTER),
        "metrics": metrics,
    }


def _summary(sources: _Sources) -> Rules:
    """The run's results."""
    told: Rules = {"ledger": _mark(sources.questions), "claims": {BELOW: PUBLIC}}
    charged = "unit adjacency delta epsilon releases"
    return {
        **_all("name status seed unprotected clients encoder_parameters", PUBLIC),
        "examples": sources.sizes,
        "pool_parameters": sources.classes,
        "costs": {
            # The first two end when what they found has settled.
            "sketch": _cost(sources.groups),
            "restarts": _cost(UNNOISED),
            # The others open pools that are large enough.
            **_all("cluster evaluate", _cost(sources.pools)),
            ANY: _cost(PUBLIC),
        },
        "versions": {ANY: PUBLIC},
        "secrecy": {BELOW: PUBLIC},
        "privacy": {
            **_all(f"{charged} budget outside", PUBLIC),
            **told,
            "clients": {ANY: PUBLIC},
            "pools": EXPERIMENTER,
        },
        "sketches": {**_all(f"{charged} covers", PUBLIC), **told},
        **_all("label_skew representation pools alerts", EXPERIMENTER),
    }


def _card(sources: _Sources) -> Rules:
    """A run on one sheet."""
    told = "format run privacy sums readers assumptions not_covered unprotected versions"
    return {
        **_all(told, {BELOW: PUBLIC}),
        "data": {
            **_all("clients shape", PUBLIC),
            "examples": sources.sizes,
            "classes": sources.classes,
        },
        "accuracy": EXPERIMENTER,
        "audit": EXPERIMENTER,
        "record": {
            **_all("fits findings configuration", PUBLIC),
            **_all("transcript signatures", sources.pools),
            "ledger": _mark(sources.questions),
        },
    }


def _cost(counts: str) -> Rules:
    """What one phase took; the tag of how many rounds and bytes."""
    return {
        **_all("rounds bytes_down bytes_up", counts),
        **_all("seconds sum_seconds", EXPERIMENTER),
    }


def _ledger(questions: str) -> Rules:
    release: Rules = {"key": questions, "hash": questions, "event": {BELOW: PUBLIC}, ANY: PUBLIC}
    told: Rules = {"claims": {BELOW: PUBLIC}, **_all("stated budget", {ANY: PUBLIC})}
    chain: Rules = {"mark": _mark(questions), "digest": questions, "format": PUBLIC}
    return {"releases": release, **chain, **told}


def _transcript(sources: _Sources) -> Rules:
    """A line's hash is over all of it; what parties sign is about keys, uploads and questions."""
    parties = "federation protection key_holder clients fewest colluders revision"
    events = "client sender phase reason by maker first last length"
    sums = "place step attempt cohort left_out threshold minimum unit pools exact survivors"
    signed = (
        "digest roster fingerprint policy plan checkpoint configuration key view counts passing"
    )
    facts: Rules = {
        **_all(f"{parties} {events} {sums}", PUBLIC),
        **_all("versions missed", {ANY: PUBLIC}),
        # Counts up over all phases; some end when what they found has settled.
        "round": sources.groups,
        "head": sources.questions,
        **_all(signed, sources.pools),
        **_all("uploads files", {ANY: sources.pools}),
    }
    return {"kind": PUBLIC, "facts": facts, **_all("before hash evidence", sources.pools)}


def _checkpoint(sources: _Sources) -> Rules:
    """How far a run had come."""
    facts = {
        **_all("sketch.spread sketch.difference", sources.groups),
        "pretrain.difference": sources.differences,
        **_all("pretrain.bound cluster.bound", sources.pools),
        "central.rounds": PUBLIC,
        **_all("restarts.done restarts.fewest farthest.able", UNNOISED),
    }
    return {
        **_all("schema digest step round", PUBLIC),
        "lines": sources.groups,
        "facts": facts,
        "ledger": _mark(sources.questions),
        "sha256": {ANY: sources.pools},
        "check": sources.pools,
    }


def _state(sources: _Sources) -> Rules:
    """The tensors of a checkpoint."""
    sketches = "sketch.public_centre sketch.mean sketch.centres guide.mean guide.centres"
    return {
        **_all("model encoder moments.centre", sources.encoder),
        **_all(sketches, sources.groups),
        **_all("pools.shared pools.pooled", sources.pools),
        "candidates": UNNOISED,
    }
