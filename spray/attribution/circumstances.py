"""What may change the last bits of what is computed, and is not in its provenance: a commit names it."""

from __future__ import annotations

import functools
import os
import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

import torch

from stores.provenance import Json

LIBRARIES = ("spray-audit", "numpy", "numcodecs", "pillow", "torchvision")
KERNELS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR")
"""Variables of the environment by which libraries are told to do without some instructions."""


def circumstances(device: torch.device) -> dict[str, Json]:
    """Of a computation on this device, in this process."""
    found: dict[str, Json] = {"libraries": _libraries()}
    if device.type == "cpu":
        found["threads"] = torch.get_num_threads()
        found["processor"] = _processor()
    if device.type == "cuda":
        found["device"] = torch.cuda.get_device_name(device)
    return found


@functools.cache
def _libraries() -> dict[str, Json]:
    """Versions of what decodes images, computes and compresses; torch's is in the provenance."""
    found: dict[str, Json] = {}
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _processor() -> dict[str, Json]:
    """What decides which kernels compute on a CPU: other instructions sum in another order."""
    limits = {name: os.environ[name] for name in KERNELS if name in os.environ}
    return {
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "machine": platform.machine(),
        "mkldnn": bool(torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled),
        "precision": torch.get_float32_matmul_precision(),
        **limits,
    }
