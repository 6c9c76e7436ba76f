"""Fashion-MNIST's 10,000 test images, which ship inside the package (MIT licence, Zalando SE)."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

CLASSES = (
    "T-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
IMAGES = "t10k-images-idx3-ubyte.gz"
LABELS = "t10k-labels-idx1-ubyte.gz"
SHA256 = {
    IMAGES: "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
    LABELS: "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
}


@dataclass(frozen=True)
class Fashion:
    """Images in [0, 1] and their labels."""

    images: Float[Tensor, "n 1 28 28"]
    labels: Int[Tensor, " n"]


def load() -> Fashion:
    """The embedded images, checked against their digests.

    Raises:
        RuntimeError: a file of the installation is damaged.
    """
    images = np.frombuffer(_read(IMAGES), np.uint8, offset=16).reshape(-1, 1, 28, 28)
    labels = np.frombuffer(_read(LABELS), np.uint8, offset=8)
    return Fashion(
        torch.from_numpy(images.astype(np.float32) / 255), torch.from_numpy(labels.astype(np.int64))
    )


def _read(name: str) -> bytes:
    packed = files("spray.demo").joinpath("data", name).read_bytes()
    if hashlib.sha256(packed).hexdigest() != SHA256[name]:
        raise RuntimeError(f"The embedded file {name} is damaged: install spray-audit again.")
    return gzip.decompress(packed)
