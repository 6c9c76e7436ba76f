"""What the tests of an audit share: a tiny model, tiny data sets of every kind of trouble, and a store's bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from click.testing import CliRunner
from PIL import Image
from torch import nn

from spray.cli import main

CLASSES = ("round", "square", "long")
MODEL = """
import torch
from torch import nn

def load():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 64, 2)
    ).eval()
"""
"""A project's model.py."""
TOML = """
device = "cpu"
[model]
spec = "model.py:load"
[data]
spec = "images"
resize = 8
crop = 8
mean = [0.5]
std = [0.25]
[attribution]
composite = "epsilon_plus"
layers = ["0"]
block = 8
thumbnails = 8
[analysis]
neighbours = 3
picture = "none"
[verify]
members = 10
budget = 60
"""
"""Its audit.toml, for the pictures of ``draw_pictures``."""


def spray(*arguments: object) -> str:
    """What a command that succeeds prints."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def draw_pictures(folder: Path, classes: Sequence[str], count: int) -> None:
    """Random 8×8 pictures, 00.png, 01.png, …, dealt to one folder for each class."""
    rng = np.random.default_rng(0)
    for number in range(count):
        path = folder / classes[number % len(classes)] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(256, size=(8, 8), dtype=np.uint8)).save(path)


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
        if isinstance(item, BaseException):
            raise item
        return item


def contents(root: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }
