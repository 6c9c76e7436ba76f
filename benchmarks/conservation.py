"""Where the relevance of a published network goes on real photos: to the input, to biases, to ε, or astray.

    python benchmarks/conservation.py --photos imagenet_sample.zip [--composites epsilon_plus_flat …] [--count 1000]

EfficientNet-Lite0 with its published weights, float32, the predicted class of every photo. Per composite, against the
relevance put in: the share that arrives at the input and that absorbed by biases, mean and range, that of ε, and the
largest that no book explains; Σ|R| / |ΣR|; how many logits were negative.
"""

from __future__ import annotations

import sys
from pathlib import Path

if sys.path[0] == str(Path(__file__).parent):
    sys.path.append(sys.path.pop(0))  # scripts of this folder that are named like packages would hide those

import argparse
import json

import torch
from carton import network, normalised, photos
from torch import Tensor

from spray.engine import Explainer

COMPOSITES = ("epsilon_plus_flat", "epsilon_plus_flat_no_bias", "epsilon_gamma_box", "lrp_epsilon")


def books(composite: str, images: Tensor, batch: int) -> dict[str, Tensor]:
    """The checks of every photo."""
    explainer = Explainer(network(), composite)
    checks = [
        explainer.explain(normalised(images[i : i + batch])).checks for i in range(0, len(images), batch)
    ]
    return {name: torch.cat([each[name] for each in checks]) for name in checks[0]}


def summary(checks: dict[str, Tensor]) -> dict[str, float | list[float] | int]:
    """Shares of the relevance put in."""
    start = checks["start"]
    shares = {
        name: checks[name] / start for name in ("sum", "absorbed_bias", "absorbed_epsilon", "unaccounted")
    }
    ratio = checks["absolute"] / checks["sum"].abs()
    return {
        "photos": len(start),
        "arrives": float(shares["sum"].mean()),
        "arrives_range": [float(shares["sum"].min()), float(shares["sum"].max())],
        "bias": float(shares["absorbed_bias"].mean()),
        "bias_range": [float(shares["absorbed_bias"].min()), float(shares["absorbed_bias"].max())],
        "epsilon": float(shares["absorbed_epsilon"].mean()),
        "unaccounted_at_most": float(shares["unaccounted"].abs().max()),
        "absolute_over_sum_median": float(ratio.median()),
        "negative_logits": int((start < 0).sum()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--photos", type=Path, required=True, help="zip with labels.tsv and the photos it names"
    )
    parser.add_argument("--composites", nargs="*", default=list(COMPOSITES))
    parser.add_argument("--count", type=int, default=None, help="only so many photos")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    images, _ = photos(arguments.photos, arguments.count)
    for composite in arguments.composites:
        row = {"composite": composite, **summary(books(composite, images, arguments.batch))}
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
