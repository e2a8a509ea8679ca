"""Where and how precisely a client computes."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from secure_fl.config import RuntimeConfig
from secure_fl.errors import ConfigError


@dataclass(frozen=True)
class Compute:
    """A device and a precision."""

    device: torch.device
    mixed: bool = False

    @classmethod
    def of(cls, config: RuntimeConfig) -> Compute:
        """Resolve `auto`, and set the number of threads of this process.

        Raises:
            ConfigError: cuda is asked for and not there.
        """
        available = torch.cuda.is_available()
        if config.device == "cuda" and not available:
            problem = "torch sees no CUDA device"
            remedy = 'set it to "auto" or "cpu"'
            raise ConfigError(problem, field="runtime.device", value="cuda", remedy=remedy)
        torch.set_num_threads(config.threads)
        name = ("cuda" if available else "cpu") if config.device == "auto" else config.device
        return cls(torch.device(name), config.precision == "mixed")

    def autocast(self) -> AbstractContextManager[object]:
        """bfloat16 on the processor, float16 on cuda; does nothing in float32."""
        dtype = torch.float16 if self.device.type == "cuda" else torch.bfloat16
        return torch.autocast(self.device.type, dtype=dtype, enabled=self.mixed)
