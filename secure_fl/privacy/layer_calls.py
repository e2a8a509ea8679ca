"""Calls of trainable layers during one forward pass, and whether trained weights act through
these alone.

A unit's gradient is put together from every layer's inputs and the gradients by its outputs. A
weight that is used beside its own layer's call (`torch.nn.functional`, a loss that reads the
model's weights) would be left out without a word, and trained on noise alone. So the graph is
walked from the outputs back, past each recorded call: no trained weight may be met on the way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge

from secure_fl.errors import PrivacyError
from secure_fl.privacy.row_isolation import check_rows_stay_apart

_HIDDEN = "(inside torch.utils.checkpoint, which hides its layers unless use_reentrant=False)"
"""Stands for the name of a weight that cannot be known."""


@dataclass(eq=False)
class LayerCall:
    """One call of a layer: what went in, and where the gradient by what came out is found.

    Attributes:
        source: where the inputs came from; None where no gradient flows on.
        edge: of the output.
    """

    layer: nn.Module = field(repr=False)
    inputs: Tensor = field(repr=False)
    version: int
    source: GradientEdge | None
    edge: GradientEdge
    backprops: Tensor | None = field(default=None, repr=False)

    def check_inputs(self) -> None:
        """Refuse inputs that were changed in place since. Raises PrivacyError."""
        if self.inputs._version != self.version:
            problem = "its input was changed in place"
            remedy = "leave a layer's input as it is: use x = x + y in place of x += y"
            raise PrivacyError(problem, "model", type(self.layer).__name__, remedy)


@contextmanager
def recorded(model: nn.Module, rows: int) -> Iterator[list[LayerCall]]:
    """Calls of trainable layers; edges are taken before a later layer changes the output."""
    calls: list[LayerCall] = []

    def record(
        layer: nn.Module, given: tuple[Tensor, ...], named: dict[str, Tensor], output: Tensor
    ) -> None:
        inputs = given[0] if given else named["input"]
        check_rows_stay_apart(rows, inputs, output)
        if output.requires_grad:
            source = get_gradient_edge(inputs) if inputs.requires_grad else None
            version, edge = inputs._version, get_gradient_edge(output)
            calls.append(LayerCall(layer, inputs.detach(), version, source, edge))

    trainable = (layer for layer in model.modules() if _trainable(layer))
    handles = [layer.register_forward_hook(record, with_kwargs=True) for layer in trainable]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def check_only_through_layers(
    model: nn.Module, outputs: Sequence[Tensor], calls: Sequence[LayerCall]
) -> None:
    """Refuse outputs, or losses, that a trained weight reaches without passing through a call of
    its layer. Raises PrivacyError: naming the weight.
    """
    if (name := weight_beside_layers(model, outputs, calls)) is not None:
        problem = "is used beside its layer, where its gradient would be missed"
        remedy = "use the layer that holds the weight by calling it, or freeze the weight"
        raise PrivacyError(problem, f"model.{name}", "a trained weight", remedy)


def weight_beside_layers(
    model: nn.Module, outputs: Sequence[Tensor], calls: Sequence[LayerCall]
) -> str | None:
    """A trained weight that reaches the outputs beside the calls; None for none."""
    names = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
    sources: Mapping[tuple[Node, int], GradientEdge | None] = {
        (call.edge.node, call.edge.output_nr): call.source for call in calls
    }
    seen = set[Node]()
    ends = [get_gradient_edge(part) for part in outputs if part.requires_grad]
    left: list[tuple[Node, int]] = [(edge.node, edge.output_nr) for edge in ends]
    while left:
        node, number = left.pop()
        if (node, number) in sources:
            source = sources[node, number]
            left += [(source.node, source.output_nr)] if source is not None else []
            continue
        if node in seen:
            continue
        seen.add(node)
        name = names.get(id(getattr(node, "variable", None)))
        if name is not None:
            return name
        if type(node).__name__ == "CheckpointFunctionBackward":
            return _HIDDEN
        left += [(further, place) for further, place in node.next_functions if further is not None]
    return None


def _trainable(layer: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in layer.parameters(recurse=False))
