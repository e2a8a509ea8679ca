"""Who may read each field of every file that a run writes. All writers go through this table: a
field that nobody tagged is not written.

`public`: nobody computed it from clients' examples.
`released:WHAT`: computed from what clients let go; `TAGS` says who gets it and what covers it.
`experimenter`: read off the parties by whoever simulates them. With `evaluate.enabled = false` such
fields are left out of the files.

**Guarantee**: a document written through `Manifest.view` has tagged fields only, and no
`experimenter` field where these are left out.

**Assumes**: the tags are right; tests change one example and look for a `public` field that changes
with it.

**Not covered**: the process itself, which knows everything that it simulates, and says so
in `Result`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Union

from secure_fl.config import FederationConfig
from secure_fl.errors import RunFolderError

PUBLIC, EXPERIMENTER, _UNNOISED = "public", "experimenter", "released:unnoised"
ANY, BELOW = "*", "**"
"""Any one name (of a client, a phase, a tensor); everything below."""

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
    _UNNOISED: "whoever reads sums, and under protection = plain single updates: from these as "
    "they are; no ε covers it",
    "released:stored": "one client: its own noised answers, sealed under a key outside of the "
    "folder, there to be sent again, gone when the run ends",
    EXPERIMENTER: "whoever ran this simulation: read off its parties, outside of every claim",
}
"""What each tag says: who reads the field, and what covers it."""


@dataclass(frozen=True)
class Manifest:
    """The tags of one run's files.

    Attributes:
        files: file -> name -> ... -> tag. A tag stands for one value or a list of values,
            `experimenter` also for all that is below it.
        experiments: whether fields of the experimenter's are written.
    """

    files: Rules
    experiments: bool

    @classmethod
    def of(cls, config: FederationConfig) -> Manifest:
        """The tags that follow from a configuration."""
        return cls(_files(config), config.evaluate.enabled)

    def view(self, file: str, document: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of a file's document that are written; empty where all are the experimenter's
        and left out.

        Args:
            file: its path within the run's folder, such as `model/model.json`.
            document: names and values, nested as they will be written.

        Raises:
            RunFolderError: a field, or the file, has no tag.
        """
        kept = self._kept(document, self._rules(file), file)
        return {} if kept is _LEFT_OUT else dict(kept)

    def writes(self, file: str) -> bool:
        """Whether anything of a file is written."""
        return self.experiments or bool(_tags(self._rules(file)) - {EXPERIMENTER})

    def covers(self, file: str) -> bool:
        """Whether a file is the run's own."""
        try:
            return self._rules(file) is not None
        except RunFolderError:
            return False

    def is_experimenters(self, file: str) -> bool:
        """Whether anything that is written of a file is the experimenter's."""
        return self.experiments and EXPERIMENTER in _tags(self._rules(file))

    def without_experiments(self) -> Manifest:
        """The same for a reader who is not the experimenter."""
        return replace(self, experiments=False)

    @property
    def outside(self) -> list[str]:
        """What is written and outside of every claim: files that are the experimenter's, and his
        fields of other files.
        """
        found = []
        for file, rules in self.files.items():
            if self.experiments and EXPERIMENTER in _tags(rules):
                found.append(
                    file
                    if _tags(rules) == {EXPERIMENTER}
                    else f"{file}: {', '.join(_fields(rules, EXPERIMENTER))}"
                )
        return found

    def as_dict(self) -> dict[str, Any]:
        """The content of `manifest.json`: what each tag says, and the tags of what is written."""
        files = {file: _written(rules, self.experiments) for file, rules in self.files.items()}
        files = {file: rules for file, rules in files.items() if rules}
        return {
            "tags": {tag: said for tag, said in TAGS.items() if tag in _tags(files)},
            "files": files,
        }

    def _rules(self, file: str) -> str | Rules:
        for known, rules in self.files.items():
            parts, names = known.split("/"), file.split("/")
            if len(parts) == len(names) and all(
                part in (ANY, name) for part, name in zip(parts, names, strict=True)
            ):
                return rules
        raise _untagged(file)

    def _kept(self, value: Any, rule: str | Rules | None, where: str) -> Any:
        """A value as it is written, or `_LEFT_OUT`."""
        if rule is None:
            raise _untagged(where)
        if rule == EXPERIMENTER:
            return value if self.experiments else _LEFT_OUT
        if isinstance(rule, Mapping) and BELOW in rule:
            return value
        if isinstance(value, Mapping) and isinstance(rule, Mapping):
            kept = {
                name: self._kept(item, rule.get(name, rule.get(ANY)), f"{where}/{name}")
                for name, item in value.items()
            }
            kept = {name: item for name, item in kept.items() if item is not _LEFT_OUT}
            return kept if kept or not value else _LEFT_OUT
        if isinstance(value, list | tuple):
            items = [self._kept(item, rule, where) for item in value]
            items = [item for item in items if item is not _LEFT_OUT]
            return items if items or not value else _LEFT_OUT
        if isinstance(value, Mapping) or isinstance(rule, Mapping):
            raise _untagged(where)
        return value


class _LeftOut:
    """Stands for a field that is not written."""


_LEFT_OUT = _LeftOut()


def _untagged(where: str) -> RunFolderError:
    remedy = f"tag it in secure_fl/federation/manifest.py: {PUBLIC}, released:... or {EXPERIMENTER}"
    return RunFolderError(
        "a field without a tag is not written", field=where, value="not shown", remedy=remedy
    )


def _tags(rules: str | Rules) -> set[str]:
    return (
        {rules}
        if isinstance(rules, str)
        else {tag for rule in rules.values() for tag in _tags(rule)}
    )


def _fields(rules: str | Rules, tag: str, prefix: str = "") -> list[str]:
    """Paths with a tag."""
    if isinstance(rules, str):
        return [prefix] if rules == tag else []
    return [
        path
        for name, rule in rules.items()
        for path in _fields(rule, tag, f"{prefix}/{name}" if prefix else name)
    ]


def _written(rules: str | Rules, experiments: bool) -> Any:
    """The rules of what is written."""
    if isinstance(rules, str):
        return rules if experiments or rules != EXPERIMENTER else {}
    kept = {name: _written(rule, experiments) for name, rule in rules.items()}
    return {name: rule for name, rule in kept.items() if rule}


def _files(config: FederationConfig) -> Rules:
    """The table."""
    private = config.privacy.unit != "none"
    encoder = {
        "none": PUBLIC,
        "federated": "released:pretrain" if private else _UNNOISED,
        "centralized": "released:central",
        "load": "released:loaded",
    }[config.pretrain.mode]
    groups = "released:sketch" if config.noises_sketches else _UNNOISED
    pools = "released:cluster" if private else _UNNOISED
    # The name of a release holds a digest of the question, which is made of models and centres that
    # were released before.
    questions = pools if private else groups
    # Declared under privacy, else read off the labels; every model's head shows it.
    classes = PUBLIC if private else _UNNOISED
    # A name that nobody declared was read off the labels.
    class_names = EXPERIMENTER if config.data.class_names is None else PUBLIC
    # Rates and steps follow sizes, so example-level claims take them as public; at client level
    # nothing follows from them.
    sizes = PUBLIC if config.privacy.unit == "example" else EXPERIMENTER
    return {
        "config.toml": {BELOW: PUBLIC},
        # As it was before the run was made longer, once for each time.
        "configs/*": {BELOW: PUBLIC},
        "manifest.json": {BELOW: PUBLIC},
        ".lock": PUBLIC,
        ".lock-holder": PUBLIC,
        "metrics.jsonl": _record(groups, pools, questions),
        "summary.json": _summary(groups, pools, classes, sizes, questions),
        "ledger.json": _ledger(questions),
        "transcript.jsonl": _transcript(groups, pools, questions),
        # Digests of files that have fields of the experimenter's.
        "digests.json": EXPERIMENTER,
        "partition.json": EXPERIMENTER,
        "embedding.json": EXPERIMENTER,
        # The page of `secure-fl report`, which shows what the other files say.
        "report.html": EXPERIMENTER if config.evaluate.enabled else pools,
        "central.json": {"salt": PUBLIC, "digests": "released:central"},
        "checkpoints/*/manifest.json": _checkpoint(groups, pools, questions),
        "checkpoints/*/state.safetensors": _state(encoder, groups, pools),
        "private-results/*/*": "released:stored",
        "private-results.made": questions,
        "model/model.json": {
            **dict.fromkeys(
                (
                    "shape",
                    "scale",
                    "image_size",
                    "column_means",
                    "column_deviations",
                    "task",
                    "custom_encoder",
                ),
                PUBLIC,
            ),
            "classes": classes,
            "class_names": class_names,
            # A private run's are declared; otherwise values of text columns may be among
            # their names.
            "columns": PUBLIC if private else EXPERIMENTER,
            **dict.fromkeys(("choices", "client_names", "client_scales"), EXPERIMENTER),
        },
        "model/encoder.safetensors": {ANY: encoder},
        "model/pools.safetensors": {
            **dict.fromkeys(("guide.mean", "guide.centres", "guide.public_centre"), groups),
            ANY: pools,
        },
    }


def _mark(questions: str) -> Rules:
    """How far the ledger had come; its last hash is over the names of releases."""
    return {"length": PUBLIC, "head": questions}


def _record(groups: str, pools: str, questions: str) -> Rules:
    """A line of `metrics.jsonl`. How long a round took follows how many examples were drawn, which
    is secret.
    """
    read_off = (
        "loss",
        "terms",
        "accuracy",
        "accuracy_std",
        "accuracy_min",
        "test_loss",
        "accuracies",
        "choices",
        "pools",
        "cut",
    )
    watched = ("balanced_accuracy", "majority", "exploded", "alerts")
    measured = ("initial", "pretrained", "measured_on")
    metrics: dict[str, str | Rules] = {
        "privacy": dict.fromkeys(("epsilon", "delta", "unit"), PUBLIC),
        "ledger": _mark(questions),
        "refused": PUBLIC,
        **dict.fromkeys(("groups_opened", "groups_left_out"), pools),
        **dict.fromkeys(("spread", "unexplained", "counts"), groups),
        **dict.fromkeys(("accepted", "centre"), _UNNOISED),
        # Sums of test scores, which are made without differential privacy only.
        "tested": dict.fromkeys(
            ("clients", "mean_accuracy", "accuracy_deviation", "mean_loss"), _UNNOISED
        ),
        **dict.fromkeys((*read_off, *watched, *measured), EXPERIMENTER),
    }
    return {
        **dict.fromkeys(("phase", "round", "clients"), PUBLIC),
        # A pool that is too small is not opened, which takes fewer bytes.
        **dict.fromkeys(("bytes_down", "bytes_up"), pools),
        **dict.fromkeys(("seconds", "sum_seconds"), EXPERIMENTER),
        "metrics": metrics,
    }


def _summary(groups: str, pools: str, classes: str, sizes: str, questions: str) -> Rules:
    def cost(counts: str) -> Rules:
        return {
            **dict.fromkeys(("rounds", "bytes_down", "bytes_up"), counts),
            **dict.fromkeys(("seconds", "sum_seconds"), EXPERIMENTER),
        }

    return {
        **dict.fromkeys(
            ("name", "status", "seed", "unprotected", "clients", "encoder_parameters"), PUBLIC
        ),
        "examples": sizes,
        "pool_parameters": classes,
        # The first two end when what they found has settled; the third opens pools that are
        # large enough.
        "costs": {
            "sketch": cost(groups),
            "restarts": cost(_UNNOISED),
            "cluster": cost(pools),
            "evaluate": cost(pools),
            ANY: cost(PUBLIC),
        },
        "versions": {ANY: PUBLIC},
        "secrecy": {BELOW: PUBLIC},
        "privacy": {
            **dict.fromkeys(
                ("unit", "adjacency", "delta", "budget", "epsilon", "releases", "outside"), PUBLIC
            ),
            "ledger": _mark(questions),
            "clients": {ANY: PUBLIC},
            "claims": {BELOW: PUBLIC},
            "pools": EXPERIMENTER,
        },
        "sketches": {
            **dict.fromkeys(
                ("covers", "unit", "adjacency", "epsilon", "delta", "releases"), PUBLIC
            ),
            "ledger": _mark(questions),
            "claims": {BELOW: PUBLIC},
        },
        **dict.fromkeys(("label_skew", "representation", "pools", "alerts"), EXPERIMENTER),
    }


def _ledger(questions: str) -> Rules:
    release: Rules = {"key": questions, "hash": questions, "event": {BELOW: PUBLIC}, ANY: PUBLIC}
    told: Rules = {
        "claims": {BELOW: PUBLIC},
        "stated": {ANY: PUBLIC},
        "budget": {ANY: PUBLIC},
        "format": PUBLIC,
    }
    return {"releases": release, "mark": _mark(questions), "digest": questions, **told}


def _transcript(groups: str, pools: str, questions: str) -> Rules:
    """A line's hash is over all of it, and everything that parties sign is about keys, uploads
    and questions.
    """
    facts: dict[str, str | Rules] = {
        **dict.fromkeys(
            (
                "federation",
                "protection",
                "key_holder",
                "clients",
                "fewest",
                "colluders",
                "revision",
            ),
            PUBLIC,
        ),
        **dict.fromkeys(
            ("client", "sender", "phase", "reason", "by", "maker", "first", "last", "length"),
            PUBLIC,
        ),
        **dict.fromkeys(
            (
                "place",
                "step",
                "attempt",
                "cohort",
                "left_out",
                "threshold",
                "minimum",
                "unit",
                "pools",
                "exact",
                "survivors",
            ),
            PUBLIC,
        ),
        **{key: {ANY: PUBLIC} for key in ("versions", "missed")},
        # Counts up over all phases; some end when what they found has settled.
        "round": groups,
        "head": questions,
        **dict.fromkeys(
            (
                "digest",
                "roster",
                "fingerprint",
                "policy",
                "plan",
                "checkpoint",
                "configuration",
                "key",
                "view",
                "counts",
                "passing",
            ),
            pools,
        ),
        **{key: {ANY: pools} for key in ("uploads", "files")},
    }
    return {"kind": PUBLIC, "facts": facts, **dict.fromkeys(("before", "hash", "evidence"), pools)}


def _checkpoint(groups: str, pools: str, questions: str) -> Rules:
    facts = {
        "sketch.spread": groups,
        **dict.fromkeys(("pretrain.bound", "cluster.bound"), pools),
        "central.rounds": PUBLIC,
        **dict.fromkeys(("restarts.done", "restarts.fewest", "farthest.able"), _UNNOISED),
    }
    return {
        **dict.fromkeys(("schema", "digest", "step", "round"), PUBLIC),
        "lines": groups,
        "facts": facts,
        "ledger": _mark(questions),
        "sha256": {ANY: pools},
        "check": pools,
    }


def _state(encoder: str, groups: str, pools: str) -> Rules:
    return {
        **dict.fromkeys(("model", "encoder"), encoder),
        **dict.fromkeys(
            (
                "sketch.public_centre",
                "sketch.mean",
                "sketch.centres",
                "guide.mean",
                "guide.centres",
            ),
            groups,
        ),
        **dict.fromkeys(("pools.shared", "pools.pooled"), pools),
        "candidates": _UNNOISED,
    }
