"""Which relevance by channel shows a shortcut? Composite and sign, chosen without a look at the carton of `carton.py`.

    python benchmarks/channels.py --photos imagenet_sample.zip

The same network, other shortcuts: a small copy of one photo stands in a corner of a tenth of the others, and draws
them towards that photo's class. Relevance is that of this class for all photos, by channel of the last block, summed
over place; one joint analysis for each composite and sign. The best cluster counts, chosen with the truth: which
representation separates the marked photos at all is the question here, not what is flagged. Chosen are the composite
and sign with the highest mean F1 over all shortcuts that the network uses.
"""

from __future__ import annotations

import sys
from pathlib import Path

if sys.path[0] == str(Path(__file__).parent):
    sys.path.append(sys.path.pop(0))  # scripts of this folder that are named like packages would hide those

import argparse
import json
import tempfile

import numpy as np
import torch
from carton import Split, f1, kept_features, network, photos
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import TensorDataset

import spray
from spray.analysis.features import Channels
from spray.attribution import Attribution, attribute_dataset

COMPOSITES = ("epsilon_plus", "epsilon_alpha2_beta1", "lrp_epsilon")
"""What composites do behind the first layer; the head's first layer is none of the network's."""
SIGNS = ("signed", "absolute", "positive")
SMALL = 80
"""Side of the copy, in pixels."""
RAISED = 3.0
"""The network uses a shortcut that makes its class so many times as likely, by the median."""


def pasted(images: Tensor, photo: Tensor) -> Tensor:
    """With a small copy of the photo in the lower right."""
    marked = images.clone()
    marked[..., -SMALL - 8 : -8, -SMALL - 8 : -8] = interpolate(photo[None], SMALL, mode="area")[0]
    return marked


def shortcut(donor: int, split: Split, images: Tensor, features: Tensor, target: int, percent: float) -> dict:
    """How well each composite and sign tells the marked photos, for one donor."""
    chosen = np.random.default_rng(donor).permutation(len(images))[: round(percent / 100 * len(images))]
    truth = np.isin(np.arange(len(images)), np.setdiff1d(chosen, [donor]))
    seen = features.clone()
    seen[truth] = split.features(pasted(images[truth], images[donor]))
    ratio = split.probabilities(seen[truth])[:, target] / split.probabilities(features[truth])[:, target]
    result = {"class": target, "marked": int(truth.sum()), "times": round(float(ratio.median()), 1), "f1": {}}
    if result["times"] < RAISED:
        return result
    for composite in COMPOSITES:
        attribution = Attribution(composite, target=target, layers=("0",), thumbnails=0)
        with tempfile.TemporaryDirectory() as folder:
            dataset = TensorDataset(seen, torch.full((len(seen),), target))
            run = attribute_dataset(split.head, dataset, Path(folder) / "audit.zarr", attribution)
            relevance = run.table(attribution.table).read("0.channel")
        for sign in SIGNS:
            found = spray.Analysis(picture="none", representation=Channels(sign)).group(relevance)
            labels = np.full(len(truth), -1)
            labels[found.rows] = found.clusterings["hdbscan"].labels
            scores = [f1(labels == cluster, truth) for cluster in range(labels.max() + 1)]
            result["f1"][f"{composite}, {sign}"] = max(scores, default=0.0)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--images", type=int, default=500, help="use so many of the photos")
    parser.add_argument("--shortcuts", type=int, default=6)
    parser.add_argument("--percent", type=float, default=10)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "spray-strategies")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    images, labels = photos(options.photos)
    split = Split(network())
    features = kept_features(split, images, "clean", np.arange(len(images)), options.cache)
    images, labels, features = (each[: options.images] for each in (images, labels, features))
    sure = split.probabilities(features)[torch.arange(len(labels)), labels]
    donors = [int(row) for row in torch.nonzero(sure > 0.9)[: options.shortcuts, 0]]
    results = []
    for donor in donors:
        results.append(shortcut(donor, split, images, features, int(labels[donor]), options.percent))
        if not options.json:
            print(results[-1], flush=True)
    used = [result["f1"] for result in results if result["f1"]]
    means = (
        {name: round(float(np.mean([each[name] for each in used])), 3) for name in used[0]} if used else {}
    )
    summary = {"used": len(used), "mean_f1": means, "chosen": max(means, key=means.__getitem__, default=None)}
    print(json.dumps({"shortcuts": results, **summary}, indent=1) if options.json else summary)


if __name__ == "__main__":
    main()
