"""The demo's classifier: a small CNN, trained in seconds on two cores."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from spray.progress import Report, silent

BATCH = 100


def small_cnn(classes: int = 10, channels: int = 1) -> nn.Sequential:
    """Three convolutions and two linear layers for 28×28 images (106,000 parameters)."""
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(32 * 7 * 7, 64),
        nn.ReLU(inplace=True),
        nn.Linear(64, classes),
    )


def train(
    model: nn.Module,
    images: Float[Tensor, "n c h w"],
    labels: Int[Tensor, " n"],
    *,
    epochs: int = 6,
    peak_rate: float = 4e-3,
    seed: int = 0,
    report: Report = silent,
    what: str = "train",
) -> nn.Module:
    """Train with Adam under a one-cycle schedule; the same seed gives the same weights on one machine.

    The model is initialised anew from the seed, trained in place and returned in evaluation mode.
    """
    torch.manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.reset_parameters()
    order = torch.Generator().manual_seed(seed)
    # channels_last halves the time of small convolutions on CPUs.
    model.train().to(memory_format=torch.channels_last)
    steps = -(-len(images) // BATCH) * epochs
    optimizer = torch.optim.Adam(model.parameters(), lr=peak_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak_rate, total_steps=steps)
    for epoch in range(epochs):
        for rows in torch.randperm(len(images), generator=order).split(BATCH):
            batch = images[rows].contiguous(memory_format=torch.channels_last)
            optimizer.zero_grad()
            F.cross_entropy(model(batch), labels[rows]).backward()
            optimizer.step()
            schedule.step()
        report(epoch + 1, epochs, what)
    return model.eval().to(memory_format=torch.contiguous_format)


@torch.no_grad()
def predict(model: nn.Module, images: Float[Tensor, "n c h w"]) -> Int[Tensor, " n"]:
    """Predicted classes, in batches."""
    return torch.cat([model(batch).argmax(1) for batch in images.split(1000)])
