"""What may change the last bits of what is computed, and is not in its provenance: a commit names it."""

from __future__ import annotations

import functools
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from spray.attribution.tables import stored_threads
from stores import StoreError
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


@contextmanager
def threads_as_begun(out: str | Path, device: torch.device) -> Iterator[None]:
    """Have torch use as many threads as for the shards of the store at ``out`` that are there: the same bytes follow.

    Where there are fewer cores than that it is left as it is, and commits tell: threads that wait for a core cost more
    than their last bits are worth.
    """
    before, begun = torch.get_num_threads(), None
    if device.type == "cpu":
        with suppress(StoreError):  # which is told where the store is gone on with
            begun = stored_threads(out)
    try:
        if begun is not None and begun <= (os.cpu_count() or 1):
            torch.set_num_threads(begun)
        yield
    finally:
        torch.set_num_threads(before)


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
