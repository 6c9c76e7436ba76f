"""What the tests of an audit share: a tiny model, tiny data sets of every kind of trouble, and a store's bytes."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

CLASSES = ("round", "square", "long")


def tiny_model(channels: int = 1, classes: int = 3, seed: int = 0) -> nn.Sequential:
    """Two convolutions and a linear head for 8×8 images, in evaluation mode."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(6 * 16, classes),
    ).eval()


class Images:
    """A map-style data set of random 8×8 images; ``items`` replaces rows, an exception there is raised."""

    classes = CLASSES

    def __init__(self, count: int = 20, channels: int = 1, items: dict[int, object] | None = None) -> None:
        generator = torch.Generator().manual_seed(1)
        self.images = torch.rand(count, channels, 8, 8, generator=generator)
        self.labels = [row % 3 for row in range(count)]
        self.items = items or {}

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> object:
        item = self.items.get(row, (self.images[row], self.labels[row]))
        if isinstance(item, Exception):
            raise item
        return item


def contents(root: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }
