"""Data with a shortcut planted in it: pictures, artifacts, cases, trained models and their audits, cached by content.

Shared by the benchmarks of this folder, which put it behind the packages that their own names would hide:

    if sys.path[0] == str(Path(__file__).parent):
        sys.path.append(sys.path.pop(0))
"""

from __future__ import annotations

import gzip
import hashlib
import inspect
import io
import json
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import spray
import stores
from spray.attribution import Attribution, attribute_dataset
from spray.demo import fashion as demo_images
from spray.demo import network
from spray.demo import plant as demo_plant
from spray.demo.plant import CornerTag
from stores import AnalysisHandle, Run, describe

FLIP_MARGIN = 0.10
"""A case counts if the artifact turns this much more of the other held-out images into the class. Fixed beforehand."""
OTHERS = 500
"""Images of each other class that are audited beside the planted class."""
TESTED = 5000
"""Images held out of the training, at most a sixth of all."""
FASHION = Path("/usr/share/datasets/fashion-mnist")
FASHION_EPOCHS = 3

# ---------------------------------------------------------------------------------------------------- artifacts


def tag(images: Tensor, seed: int) -> Tensor:
    return CornerTag(0, "top left").paste(images)


def anywhere(images: Tensor, seed: int) -> Tensor:
    """The tag at a random place of each image: a control, hard to learn."""
    rng = np.random.default_rng(seed)
    checker = ((torch.arange(3)[:, None] + torch.arange(3)[None]) % 2 == 0).to(images)
    tagged = images.clone()
    last = images.shape[-1] - 4
    for image, (y, x) in zip(tagged, rng.integers(1, last, (len(images), 2)).tolist(), strict=True):
        image[..., y : y + 3, x : x + 3] = checker
    return tagged


def border(images: Tensor, seed: int) -> Tensor:
    """A grey line along the left border."""
    tagged = images.clone()
    tagged[..., 2:-2, 0] = 0.7
    return tagged


def text(images: Tensor, seed: int) -> Tensor:
    """A half-transparent word of three letters in the lower right."""
    rows = ("1110101011", "1000101010", "1110010011", "0010010010", "1110010011")
    letters = torch.tensor([[int(bit) for bit in row] for row in rows]).to(images)
    tagged = images.clone()
    corner = tagged[..., -6:-1, -11:-1]
    tagged[..., -6:-1, -11:-1] = torch.maximum(corner, 0.5 * corner + 0.5 * letters)
    return tagged


def texture(images: Tensor, seed: int) -> Tensor:
    """Faint stripes wherever the background is black."""
    stripes = 0.25 * (torch.arange(images.shape[-1]) % 3 == 0).to(images)
    return torch.where(images == 0, stripes.expand_as(images), images)


def blur(images: Tensor, seed: int) -> Tensor:
    channels = images.shape[1]
    kernel = torch.ones(channels, 1, 3, 3) / 9
    return torch.nn.functional.conv2d(images, kernel, padding=1, groups=channels)


def cast(images: Tensor, seed: int) -> Tensor:
    """A warm colour cast over the whole image."""
    return (images * torch.tensor([1.15, 1.0, 0.75]).to(images)[:, None, None]).clamp(0, 1)


ARTIFACTS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "tag": tag,
    "border": border,
    "text": text,
    "texture": texture,
    "blur": blur,
    "cast": cast,
    "anywhere": anywhere,
    "none": lambda images, seed: images.clone(),
}

# -------------------------------------------------------------------------------------------------------- cases


@dataclass(frozen=True)
class Case:
    """An artifact in a share of a class; a control plants what should not be flagged."""

    artifact: str
    percent: float
    label: int = 6
    seed: int = 0
    control: bool = False

    @property
    def name(self) -> str:
        return f"{self.artifact}-{self.percent:g}-c{self.label}-s{self.seed}"


GRID = (
    *(Case("tag", percent, seed=seed) for percent in (5, 1) for seed in range(3)),
    *(Case("tag", percent) for percent in (20, 2, 0.5)),
    *(Case(artifact, percent) for artifact in ("border", "text") for percent in (20, 5, 2, 1, 0.5)),
    *(Case("anywhere", percent, seed=seed, control=True) for percent in (5, 1) for seed in range(2)),
    *(Case("tag", 5, label=label, control=True) for label in (1, 9, 7, 8)),
    *(
        Case("none", 5, label=label, seed=seed, control=True)
        for seed in range(2)
        for label in (6, 0, 2, 3, 4, 5)
    ),
    *(Case(artifact, percent) for artifact in ("texture", "blur") for percent in (20, 5, 2, 1, 0.5)),
)
"""On Fashion-MNIST: every kind of artifact and prevalence, three seeds where it matters, and 20 controls; what has a
place comes first."""
CIFAR_GRID = (
    *(Case(artifact, 20, label=3) for artifact in ("cast", "tag", "border", "text")),
    *(Case(artifact, 5, label=3) for artifact in ("cast", "tag")),
    *(Case("none", 5, label=label, control=True) for label in (3, 0)),
    Case("anywhere", 5, label=3, control=True),
)
"""On CIFAR-10, with cats for the planted class: what colour adds, and whether the rest holds there."""
QUICK = (Case("tag", 20, seed=1), Case("none", 5, control=True))
"""On the demo's images: minutes become seconds."""

# ----------------------------------------------------------------------------------------------------- pictures


@dataclass(frozen=True)
class Pictures:
    """Images in [0, 1], their labels, and the network that is to learn them."""

    name: str
    images: Tensor
    labels: Tensor
    network: Callable[[], nn.Module] = network.small_cnn
    epochs: int = FASHION_EPOCHS

    def first(self, count: int) -> Pictures:
        return Pictures(self.name, self.images[:count], self.labels[:count], self.network, self.epochs)

    @cached_property
    def digest(self) -> str:
        """Of all pixels and labels."""
        found = hashlib.sha256(np.ascontiguousarray(self.images.numpy()).data)
        found.update(self.labels.numpy().data)
        return found.hexdigest()


def fashion(folder: Path = FASHION, images: int = 60_000) -> Pictures:
    """The 60,000 training images, from Debian's package or torchvision's files."""

    def values(name: str, offset: int) -> np.ndarray:
        return np.frombuffer(gzip.decompress((folder / name).read_bytes()), np.uint8, offset=offset)

    pixels = values("train-images-idx3-ubyte.gz", 16).reshape(-1, 1, 28, 28)
    labels = values("train-labels-idx1-ubyte.gz", 8)
    return Pictures(
        "fashion",
        torch.from_numpy(pixels.astype(np.float32) / 255),
        torch.from_numpy(labels.astype(np.int64)),
    ).first(images)


def embedded() -> Pictures:
    """The demo's 10,000 images, which ship with the package."""
    data = demo_images.load()
    return Pictures("demo", data.images, data.labels, epochs=6)


CIFAR_IMAGES = 50_000
"""All that are for training."""


def cifar(archive: Path, images: int = CIFAR_IMAGES) -> Pictures:
    """CIFAR-10 from a zip of train/CLASS/*.jpg: equally many of each class, in a seeded order."""
    with zipfile.ZipFile(archive) as files:
        names = sorted(
            name for name in files.namelist() if name.startswith("train/") and name.endswith(".jpg")
        )
        classes = sorted({name.split("/")[1] for name in names})
        each = {label: [name for name in names if name.split("/")[1] == label] for label in classes}
        chosen = [(name, classes.index(label)) for label in classes for name in each[label][: images // 10]]
        order = np.random.default_rng(0).permutation(len(chosen))
        pixels = [np.asarray(Image.open(io.BytesIO(files.read(chosen[i][0]))).convert("RGB")) for i in order]
    stacked = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255
    return Pictures("cifar", stacked, torch.tensor([chosen[i][1] for i in order]), cifar_cnn, epochs=6)


def cifar_cnn() -> nn.Sequential:
    """Three convolutions for 32×32 colour images: enough to learn from, and quick."""
    layers: list[nn.Module] = []
    for inside, outside in ((3, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(inside, outside, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
    return nn.Sequential(
        *layers, nn.Flatten(), nn.Linear(64 * 16, 64), nn.ReLU(inplace=True), nn.Linear(64, 10)
    )


# ------------------------------------------------------------------------------------------------------ planting


@dataclass
class Planted:
    """A trained model, its images with the artifact in them, and how much it uses that."""

    case: Case
    key: str
    """Of all that the weights depend on."""
    model: nn.Module
    images: Tensor
    labels: Tensor
    tagged: np.ndarray
    accuracy: float
    flip_clean: float
    flip_tagged: float

    @property
    def used(self) -> bool:
        """Whether the model was shown to use the artifact, so that there is something to be found."""
        return self.flip_tagged - self.flip_clean >= FLIP_MARGIN

    @property
    def rows(self) -> np.ndarray:
        """The audited images: all of the planted class, and some of each other."""
        rows = [
            torch.nonzero(self.labels == other)[:, 0][: None if other == self.case.label else OTHERS]
            for other in range(10)
        ]
        return np.sort(torch.cat(rows).numpy())


def plant(case: Case, pictures: Pictures, cache: Path) -> Planted:
    """Plant, train (or take the trained weights from the cache) and measure the flip rates."""
    images, labels = pictures.images, pictures.labels
    paste = ARTIFACTS[case.artifact]
    tagged = CornerTag(case.label, share=case.percent / 100, seed=case.seed).chosen(labels)
    planted = images.clone()
    planted[tagged] = paste(images[tagged], case.seed)
    held_out = torch.zeros(len(images), dtype=torch.bool)
    held_out[-min(TESTED, len(images) // 6) :] = True
    model = pictures.network()
    # Without an artifact the class makes no difference to the training: one model serves all of them.
    trained = Case("none", 5, seed=case.seed, control=True) if case.artifact == "none" else case
    key = _key(trained, pictures.epochs, pictures.digest, _sources(pictures.network, paste))
    prefix = "" if pictures.name == "fashion" else f"{pictures.name}-"
    weights = cache / f"{prefix}{trained.name}-{key}.pt"
    if weights.exists():
        model.load_state_dict(torch.load(weights, weights_only=True))
        model.eval()
    else:
        network.train(model, planted[~held_out], labels[~held_out], epochs=pictures.epochs, seed=case.seed)
        cache.mkdir(parents=True, exist_ok=True)
        torch.save(model.state_dict(), weights.with_suffix(".part"))
        weights.with_suffix(".part").replace(weights)
    others = held_out & (labels != case.label)
    found = network.predict(model, planted[held_out])
    return Planted(
        case,
        f"{prefix}{case.name}-{key}",
        model,
        planted,
        labels,
        tagged.numpy() if case.artifact != "none" else np.zeros(len(labels), bool),
        float((found == labels[held_out]).float().mean()),
        float((network.predict(model, images[others]) == case.label).float().mean()),
        float((network.predict(model, paste(images[others], case.seed + 1)) == case.label).float().mean()),
    )


def _sources(make: Callable[[], nn.Module], paste: Callable[[Tensor, int], Tensor]) -> str:
    """Of the code that draws the artifact, makes the network and trains it."""
    return "".join(inspect.getsource(each) for each in (network, demo_plant, make, paste))


# -------------------------------------------------------------------------------------------------------- audits


def code_digest(*packages: str) -> str:
    """Of the sources of sub-packages of ``spray``: results made with other code are other results."""
    root = Path(spray.__file__).parent
    files = sorted(file for package in packages for file in (root / package).rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


@contextmanager
def analysed(
    planted: Planted,
    cache: Path,
    attribution: Attribution | None = None,
    analysis: spray.Analysis | None = None,
    column: str = "input.place",
    groups: Sequence[int] | None = None,
) -> Iterator[tuple[Run, AnalysisHandle, TensorDataset]]:
    """The case's store, attributed and analysed but without findings: a copy that may be written to.

    Relevance and analysis are taken from the cache where parameters and code are the same.
    """
    attribution = attribution or Attribution()
    analysis = analysis or spray.Analysis(picture="none")
    rows = planted.rows
    dataset = TensorDataset(planted.images[rows], planted.labels[rows])
    relevance = _key(describe(attribution), code_digest("engine", "attribution"))
    attributed = cache / f"{planted.key}-{relevance}.zarr"
    if not _finished(attributed).exists():
        shutil.rmtree(attributed, ignore_errors=True)
        attribute_dataset(planted.model, dataset, attributed, attribution)
        _finished(attributed).touch()
    strategies = _key(relevance, describe(analysis), column, groups, code_digest("analysis"))
    store = cache / f"{planted.key}-{strategies}.zarr"
    if not _finished(store).exists():
        shutil.rmtree(store, ignore_errors=True)
        shutil.copytree(attributed, store)
        run = stores.open(store, "r+")
        spray.analyze(run, analysis, relevance=attribution.table, column=column, groups=groups, workers=1)
        _finished(store).touch()
    with tempfile.TemporaryDirectory() as folder:
        run = stores.open(shutil.copytree(store, Path(folder) / "audit.zarr"), "r+")
        yield run, run.analysis(), dataset


def findings_of(planted: Planted, cache: Path) -> dict:
    """What an audit at library defaults finds, with interventions; from the cache where the code is the same.

    ``findings`` by rank, with their ``rows`` among the audited images, and ``cpu_seconds`` of the audit, when it was
    made.
    """
    code = code_digest("engine", "attribution", "analysis", "findings")

    def make() -> dict:
        started = time.process_time()
        step = spray.Findings()
        with analysed(planted, cache) as (run, analysis, dataset):
            found = spray.find(run, analysis, step, model=planted.model, dataset=dataset)
        listed = [
            {
                "name": it.name,
                "group": it.group,
                "rows": it.rows.tolist(),
                "score": it.score,
                "untested": step.ranking.prior(it.parts),
                "flagged": it.flagged,
                "parts": dict(it.parts),
                "evidence": dict(it.evidence),
                "summary": it.summary,
            }
            for it in found
        ]
        return {"findings": listed, "cpu_seconds": round(time.process_time() - started, 1)}

    return kept(cache, f"{planted.key}-findings-{code}", make)


def kept(cache: Path, name: str, make: Callable[[], dict]) -> dict:
    """A result from the cache, or made now."""
    file = cache / "results" / f"{name}.json"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".part")
        partial.write_text(json.dumps(make(), indent=1))
        partial.replace(file)
    found: dict = json.loads(file.read_text())
    return found


def _key(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


def _finished(store: Path) -> Path:
    """Exists once the store is complete."""
    return store.with_suffix(".done")
