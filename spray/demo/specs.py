"""The demo's data for the command line: ``--model spray.demo.network:small_cnn --data spray.demo.specs:planted``."""

from __future__ import annotations

import torch
from torch.utils.data import TensorDataset

from spray.data import AuditData, as_audit_data
from spray.demo import fashion
from spray.demo.run import TRAINED_ON, Demo


def planted() -> AuditData:
    """All images as ``spray demo`` audits them, a fifth of the shirts with the tag."""
    data, tag = fashion.load(), Demo().tag
    chosen, images = tag.chosen(data.labels), data.images.clone()
    images[chosen] = tag.paste(images[chosen])
    pairs = TensorDataset(images, data.labels)
    return as_audit_data(pairs, classes=fashion.CLASSES, mean=(0.0,), std=(1.0,))


def unseen() -> AuditData:
    """The images that the demo's model was not trained on, without tags: what a correction is judged by."""
    data = fashion.load()
    order = torch.randperm(len(data.labels), generator=torch.Generator().manual_seed(Demo().seed))
    rows = order[TRAINED_ON:].sort().values
    pairs = TensorDataset(data.images[rows], data.labels[rows])
    return as_audit_data(
        pairs, classes=fashion.CLASSES, ids=[str(int(row)) for row in rows], mean=(0.0,), std=(1.0,)
    )
