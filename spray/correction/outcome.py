"""What a correction did: accuracy on clean and on attacked samples, on samples nothing was fitted on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from spray.correction.material import Batch
from spray.findings.verification.fills import transplant
from spray.percent import share
from stores.provenance import Json


@dataclass(frozen=True)
class Outcome:
    """Shares of samples classified right, and taken for the finding's class; None where it does not apply.

    The finding's class is the one that it speaks for (``Artifact.target``), whatever its samples are labelled.

    Attributes:
        clean: accuracy on samples without the artifact.
        class_clean: the same, of the finding's class only.
        hosts: the same, of other classes only, as they are: so many ``others``.
        attacked: accuracy on these hosts with the finding's content pasted on.
        flips: share of the attacked hosts that are taken for the finding's class.
        flips_before_attack: share of the hosts, as they are, that are taken for the finding's class.
        artifact: accuracy on samples with the artifact.
    """

    clean: float
    class_clean: float | None
    hosts: float | None
    attacked: float | None
    flips: float | None
    flips_before_attack: float | None
    artifact: float | None
    samples: int
    others: int

    def to_json(self) -> dict[str, Json]:
        """As a record."""
        return {entry.name: getattr(self, entry.name) for entry in fields(self)}

    def told(self, after: Outcome) -> list[tuple[str, str, str]]:
        """What is measured, here and ``after`` the correction, in the order in which people want to know it."""
        names = {
            "clean": f"accuracy, clean ({self.samples:,})",
            "class_clean": "  of the finding's class",
            "hosts": f"  of other classes ({self.others:,})",
            "attacked": "accuracy of these, attacked",
            "flips": "attacked, taken for the class",
            "flips_before_attack": "as they are, taken for the class",
            "artifact": "accuracy with the artifact",
        }
        return [
            (told, share(getattr(self, name)), share(getattr(after, name))) for name, told in names.items()
        ]


@dataclass(frozen=True)
class Attack:
    """Content of the finding's region in some of its samples, to be pasted on others, in place."""

    group: int
    mask: Bool[Tensor, "h w"]
    donors: Float[Tensor, "k c ..."]
    """Pictures, or signals, for which the mask is one pixel high."""

    def on(self, hosts: Float[Tensor, "n c ..."], first: int) -> Float[Tensor, "n c ..."]:
        """The hosts, of which ``first`` came before, each with the content of the next donor."""
        dealt = (torch.arange(len(hosts)) + first) % len(self.donors)
        mask = self.mask[None, None].to(hosts.device)
        return transplant(hosts, self.donors[dealt].to(hosts), mask if hosts.ndim == 4 else mask[0])


@torch.no_grad()
def judge(
    model: nn.Module,
    clean: Iterable[Batch],
    artifact: Iterable[Batch],
    group: int,
    attack: Attack | None,
) -> Outcome:
    """Run the model on clean samples, on those of other classes also attacked, and on samples with the artifact."""
    right: list[np.ndarray] = []
    label: list[np.ndarray] = []
    called: list[np.ndarray] = []
    attacked: list[np.ndarray] = []
    hosts = 0
    for _, inputs, labels in clean:
        found = model(inputs).argmax(1)
        known = labels >= 0
        label.append(labels[known].cpu().numpy())
        called.append(found[known].cpu().numpy())
        right.append((found == labels)[known].cpu().numpy())
        if attack is not None:
            others = known & (labels != attack.group)
            pasted = model(attack.on(inputs[others], hosts)).argmax(1) if others.any() else found[:0]
            attacked.append(torch.stack([pasted == labels[others], pasted == attack.group]).cpu().numpy())
            hosts += int(others.sum())
    correct, labels_, predicted = np.concatenate(right), np.concatenate(label), np.concatenate(called)
    own, other = labels_ == group, labels_ != group
    inside = [(model(inputs).argmax(1) == labels).cpu().numpy() for _, inputs, labels in artifact]
    hit = np.concatenate(attacked, axis=1) if hosts else np.zeros((2, 0), bool)
    return Outcome(
        clean=float(correct.mean()) if len(correct) else float("nan"),
        class_clean=_mean(correct[own]),
        hosts=_mean(correct[other]),
        attacked=_mean(hit[0]),
        flips=_mean(hit[1]),
        flips_before_attack=_mean((predicted == group)[other]) if attack is not None else None,
        artifact=_mean(np.concatenate(inside)) if inside else None,
        samples=len(correct),
        others=int(other.sum()),
    )


@torch.no_grad()
def agreement(model: nn.Module, written: nn.Module, clean: Iterable[Batch], attack: Attack) -> float | None:
    """How often ``written``, the model with the artifact written in, says of clean samples of other classes what the
    model itself says when they are attacked; None without such samples."""
    same: list[np.ndarray] = []
    count = 0
    for _, inputs, labels in clean:
        hosts = inputs[(labels >= 0) & (labels != attack.group)]
        if len(hosts):
            pasted = model(attack.on(hosts, count)).argmax(1)
            same.append((written(hosts).argmax(1) == pasted).cpu().numpy())
            count += len(hosts)
    return float(np.concatenate(same).mean()) if same else None


def lost(before: Outcome, after: Outcome) -> float:
    """By how much clean accuracy falls on the side that loses more, the finding's class or the others; at least 0."""
    sides = ((before.class_clean, after.class_clean), (before.hosts, after.hosts))
    falls = [one - other for one, other in sides if one is not None and other is not None]
    return max([0.0, *falls])


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None
