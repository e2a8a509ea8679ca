"""What sits on an encoder: the self-supervised phase's projector, the supervised one's head."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from secure_fl.errors import ModelError
from secure_fl.models.norms import Norm, norm_layer


class Projector(nn.Sequential):
    """SSD's projector, `[N, features]` -> `[N, embedding]`: Linear, norm, ReLU, Linear."""

    def __init__(self, features: int, hidden: int, embedding: int, norm: Norm = "batch") -> None:
        super().__init__(
            nn.Linear(features, hidden),
            norm_layer(norm, hidden, 0),
            nn.ReLU(),
            nn.Linear(hidden, embedding),
        )


class EncoderProjector(nn.Module):
    """What the self-supervised phase trains: `x` -> `(h, z)`."""

    def __init__(self, encoder: nn.Module, projector: nn.Module) -> None:
        super().__init__()
        self.encoder, self.projector = encoder, projector

    @property
    def top(self) -> nn.Module:
        """What sits on the encoder."""
        return self.projector

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`h` `[N, features]` and `z` `[N, embedding]`."""
        h: Tensor = self.encoder(x)
        return h, self.projector(h)


class Classifier(nn.Module):
    """What a supervised pool is: encoder and linear head, `x` -> logits `[N, classes]`."""

    def __init__(self, encoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    @property
    def top(self) -> nn.Module:
        """What sits on the encoder."""
        return self.head

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.encoder(x))
        return logits


def feature_width(encoder: nn.Module, shape: tuple[int, ...]) -> int:
    """Width of `h`, found by passing one zero example through.

    Raises:
        ModelError: the encoder cannot take the shape, or does not return `[N, features]`.
    """
    was_training = encoder.training
    encoder.eval()
    device = next((p.device for p in encoder.parameters()), None)
    try:
        with torch.no_grad():
            h = encoder(torch.zeros(1, *shape, device=device))
    except Exception as error:
        problem = f"cannot take an example of shape {shape}: {error}"
        remedy = 'pass an encoder made for this shape, or set model.encoder = "auto"'
        raise ModelError.of_kind(problem, "encoder", encoder, remedy) from None
    encoder.train(was_training)
    if not isinstance(h, Tensor) or h.ndim != 2:
        raise ModelError(
            "does not return [N, features]",
            field="encoder",
            value=tuple(h.shape) if isinstance(h, Tensor) else type(h).__name__,
            remedy="flatten or pool its output",
        )
    return h.shape[1]
