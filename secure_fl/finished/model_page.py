"""The model card of an export: what models are and take, and what was protected against whom."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from secure_fl.config import FederationConfig
from secure_fl.federation.run_folder.summary import Charged, SketchPrivacy, Summary

_HEAD = """---
library_name: secure_fl
tags:
- federated-learning
- privacy
---
"""


def model_page(config: FederationConfig, card: Mapping[str, Any], summary: Summary) -> str:
    """Markdown; card and summary come without the experimenter's fields."""
    sections = [*_models(config, card, summary), *_loading(card), *_privacy(summary)]
    return "\n".join([_HEAD, f"# {config.name}", "", *sections, ""])


def _models(config: FederationConfig, card: Mapping[str, Any], summary: Summary) -> Iterator[str]:
    shape = " × ".join(map(str, card["shape"]))
    pools = ""
    if config.pools.enabled:
        pools = f", and {config.pools.count} pool models, each for the clients whom it suits"
    yield (
        f"An encoder pre-trained by federated learning over {summary.clients} clients{pools}, "
        "made with secure_fl."
    )
    yield ""
    yield (
        f"- Examples: float32, {shape} each; unsigned bytes are divided by 255; scaling "
        f"`{card['scale']}`"
    )
    if card.get("image_size"):
        yield f"- Images are resized to {card['image_size']} × {card['image_size']}"
    if card.get("classes"):
        names = card.get("class_names") or ()
        yield f"- Classes: {card['classes']}" + (f" ({', '.join(names)})" if names else "")
    yield f"- Pools: {card['task'].replace('_', '-')}" if config.pools.enabled else "- Pools: none"
    yield f"- Parameters of the encoder: {summary.encoder_parameters}"
    yield ""


def _loading(card: Mapping[str, Any]) -> Iterator[str]:
    own = ", encoder=YourModule()" if card["custom_encoder"] else ""
    yield "## Use"
    yield ""
    yield "```python"
    yield "from secure_fl.export import load_exported"
    yield ""
    yield f'models = load_exported("this/folder"{own})'
    yield "features = models.embed(models.prepare(x))             # [N, features]"
    if card["task"] == "supervised":
        yield "probabilities = models.probabilities(models.prepare(x), pool=0)"
    yield "```"
    yield ""
    yield (
        "Which pool suits a client is for its own examples to say: "
        "`secure_fl.finished.assign.assign(models, x, y)`."
    )
    yield ""


def _privacy(summary: Summary) -> Iterator[str]:
    yield "## What is protected, and against whom"
    yield ""
    if summary.charged is not None:
        yield from _claims(summary.charged)
    for row in summary.secrecy:
        kept = f"cannot read {row.holds}. Reads" if row.holds else "reads"
        yield f"- **{row.adversary}** {kept} {row.reads}."
    yield ""
    yield "Not protected:"
    yield ""
    yield from (f"- {line}" for line in summary.unprotected)


def _claims(record: Charged) -> Iterator[str]:
    covers = record.covers if isinstance(record, SketchPrivacy) else "the whole run"
    yield f"Differential privacy of {covers}, by adversary:"
    yield ""
    yield "| adversary | ε | δ | unit | neighbours differ by | assumes |"
    yield "|---|---|---|---|---|---|"
    for claim in record.claims:
        epsilon = "no bound" if claim.epsilon is None else f"{claim.epsilon:.2f}"
        assumes = "; ".join(claim.assumes)
        yield (
            f"| {claim.adversary} | {epsilon} | {claim.delta:g} | {claim.unit} | "
            f"{claim.adjacency} | {assumes} |"
        )
    yield ""
