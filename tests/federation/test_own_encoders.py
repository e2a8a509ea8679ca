"""A caller's encoder is tried before the run, and what does not fit is named."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from helpers import tiny_config
from torch import nn

from secure_fl import Dataset, Federation
from secure_fl.errors import ModelError


@pytest.mark.parametrize("made_by", ["module", "function"])
@pytest.mark.parametrize("lazy", [lambda: nn.LazyLinear(16), nn.LazyBatchNorm1d])
def test_lazy_layers_are_refused_until_they_have_a_shape(
    lazy: Callable[[], nn.Module], made_by: str, images: Dataset
) -> None:
    encoder = nn.Sequential(nn.Flatten(), lazy(), nn.LazyLinear(16))
    given = encoder if made_by == "module" else (lambda seed: encoder)
    with pytest.raises(ModelError, match="has no shape before the first call") as found:
        Federation(tiny_config(), data=images, encoder=given)
    assert found.value.field.startswith("encoder.1.")
    assert "call the encoder once" in found.value.remedy
    encoder(torch.rand(2, *images.shape))
    assert Federation(tiny_config(), data=images, encoder=given).clients
