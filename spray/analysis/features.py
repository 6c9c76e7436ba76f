"""Representations: relevance maps made uniform in shape and scale, one feature vector per sample.

Lapuschkin et al. (2019), step 2 of SpRAy. Signed maps divided by their own sum are a trap (the sum may be
negative or zero), so the norms here are those of a vector: L2 or Σ|R|. Every step works row by row, so a
store is transformed shard by shard; only `PCA` looks at all rows. A map with a NaN or an infinity becomes a
row of NaN and a map of zeros a row of zeros: `usable` tells them apart, and the analysis sets both aside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal, Protocol

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

Sign = Literal["signed", "absolute", "positive"]
Norm = Literal["l2", "l1", "none"]


class Representation(Protocol):
    """Turns relevance of any layer into one vector per sample, row by row."""

    name: ClassVar[str]

    @property
    def norm(self) -> Norm:
        """To which each vector is scaled; the null of the eigengap is scaled alike."""
        ...

    def transform(self, maps: Float[np.ndarray, "n ..."]) -> Float[np.ndarray, "n d"]:
        """Feature vectors in float32; rows are independent of each other."""
        ...


def transformed(
    representation: Representation, maps: Float[np.ndarray, "n ..."], block: int = 16384
) -> Float[np.ndarray, "n d"]:
    """The feature vectors of many maps, block by block, so that only they are held beside the maps."""
    if len(maps) <= block:
        return representation.transform(maps)
    first = representation.transform(maps[:block])
    features = np.empty((len(maps), first.shape[1]), dtype=first.dtype)
    features[:block] = first
    for at in range(block, len(maps), block):
        features[at : at + block] = representation.transform(maps[at : at + block])
    return features


def normalised(features: Float[np.ndarray, "n d"], norm: Norm) -> Float[np.ndarray, "n d"]:
    """Rows scaled to norm 1 in float32; rows of zeros stay zero and rows that are not finite become NaN."""
    if norm not in ("l2", "l1", "none"):
        raise ValueError(f"unknown norm {norm!r}: choose one of 'l2', 'l1', 'none'.")
    rows = np.array(features, dtype=np.float64)
    largest = np.maximum(rows.max(axis=1, initial=0.0), -rows.min(axis=1, initial=0.0))
    bad = ~np.isfinite(largest)
    rows[bad], largest[bad] = np.nan, 1.0
    if norm != "none":
        # By the largest entry first, so that neither tiny nor huge relevance is lost in the squares.
        _divide(rows, largest)
        _divide(rows, np.linalg.norm(rows, ord=2 if norm == "l2" else 1, axis=1))
    return rows.astype(np.float32)


def _divide(rows: NDArray[np.float64], size: NDArray[np.float64]) -> None:
    rows /= np.where(size > 0, size, 1.0)[:, None]


def usable(
    features: Float[np.ndarray, "n d"],
) -> tuple[Bool[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Which rows are finite, and which of those are all zero."""
    finite: NDArray[np.bool_] = np.isfinite(features).all(axis=1)
    return finite, finite & ~np.any(features, axis=1)


def alike(features: Float[np.ndarray, "n d"], block: int = 16384) -> Int[np.ndarray, " n"]:
    """Which samples have the very same feature vector: one number for each that is there, by a 64-bit hash."""
    factors = np.random.default_rng(0).integers(1, 2**63, features.shape[1], dtype=np.uint64) * 2 + 1
    keys = np.empty(len(features), dtype=np.uint64)
    for at in range(0, len(features), block):
        bits = (features[at : at + block].astype(np.float32) + 0.0).view(np.uint32)  # −0 is 0
        mixed = (bits ^ (bits >> 15)).astype(np.uint64) * factors
        keys[at : at + block] = (mixed ^ (mixed >> np.uint64(29))).sum(axis=1)
    number: NDArray[np.int64] = np.unique(keys, return_inverse=True)[1]
    return number


@lru_cache(maxsize=32)
def _pooling(length: int, size: int) -> NDArray[np.float64]:
    """The matrix [size, length] that averages over equal windows; those may share a cell at their border."""
    edges = np.linspace(0, length, size + 1)
    cells = np.arange(length)
    low = np.maximum(edges[:-1, None], cells[None])
    high = np.minimum(edges[1:, None], cells[None] + 1)
    windows: NDArray[np.float64] = np.clip(high - low, 0, None) * (size / length)
    return windows


def _apply_sign(maps: NDArray[np.floating], sign: Sign) -> NDArray[np.floating]:
    if sign == "signed":
        return maps
    if sign == "absolute":
        return np.asarray(np.abs(maps))
    if sign == "positive":
        return np.asarray(np.maximum(maps, 0))
    raise ValueError(f"unknown sign {sign!r}: choose one of 'signed', 'absolute', 'positive'.")


def _places(maps: Float[np.ndarray, "n ..."], step: str) -> Float[np.ndarray, "n y x"]:
    """Maps by place: channels, where there are any, are summed."""
    if maps.ndim == 4:
        return np.asarray(maps.sum(axis=1, dtype=np.float64))
    if maps.ndim == 3:
        return np.asarray(maps, dtype=np.float64)
    raise ValueError(
        f"{step} needs maps of shape [n, y, x] or [n, channel, y, x]; got {list(maps.shape)}. "
        "Relevance without places is for the representation 'channels'."
    )


def _pooled(maps: Float[np.ndarray, "n y x"], size: int | None) -> Float[np.ndarray, "n v u"]:
    """Average pooling to at most size × size (never enlarged)."""
    if size is None:
        return maps
    if size < 1:
        raise ValueError(f"maps cannot be pooled to {size} × {size}; choose a size of at least 1.")
    height, width = maps.shape[1:]
    rows, columns = _pooling(height, min(size, height)), _pooling(width, min(size, width))
    with np.errstate(invalid="ignore"):  # what is not finite stays so, and is set aside later
        return np.asarray(rows @ maps @ columns.T)


@dataclass(frozen=True)
class Pooled:
    """Relevance by place: channels summed, averaged to a small grid, normalised. SpRAy's own representation.

    ``size``: side of the grid, or None for the maps as they are stored; smaller maps are not enlarged.
    """

    size: int | None = None
    sign: Sign = "signed"
    norm: Norm = "l2"
    name: ClassVar[str] = "pooled"

    def transform(self, maps: Float[np.ndarray, "n ..."]) -> Float[np.ndarray, "n d"]:
        """Feature vectors of length y·x of the grid."""
        places = _apply_sign(_places(maps, "the representation 'pooled'"), self.sign)
        pooled = _pooled(places, self.size)
        return normalised(pooled.reshape(len(maps), int(np.prod(pooled.shape[1:]))), self.norm)


@dataclass(frozen=True)
class Channels:
    """Relevance by channel, summed over place: concepts, wherever in the image (Achtibat et al. 2023)."""

    sign: Sign = "signed"
    norm: Norm = "l2"
    name: ClassVar[str] = "channels"

    def transform(self, maps: Float[np.ndarray, "n channel ..."]) -> Float[np.ndarray, "n channel"]:
        """Feature vectors of one number per channel."""
        if maps.ndim < 2:
            raise ValueError(
                f"the representation 'channels' needs relevance [n, channel, …]; got {list(maps.shape)}."
            )
        places = tuple(range(2, maps.ndim))
        return normalised(_apply_sign(maps.sum(axis=places, dtype=np.float64), self.sign), self.norm)


@dataclass(frozen=True)
class Magnitude:
    """Fourier magnitude of the pooled map: invariant to shift, a texture without its place."""

    size: int | None = None
    sign: Sign = "signed"
    norm: Norm = "l2"
    name: ClassVar[str] = "magnitude"

    def transform(self, maps: Float[np.ndarray, "n ..."]) -> Float[np.ndarray, "n d"]:
        """Magnitudes of the non-redundant half of the spectrum, row-major."""
        places = _apply_sign(_places(maps, "the representation 'magnitude'"), self.sign)
        with np.errstate(invalid="ignore"):  # what is not finite stays so, and is set aside later
            spectrum = np.abs(np.fft.rfft2(_pooled(places, self.size)))
        return normalised(spectrum.reshape(len(maps), int(np.prod(spectrum.shape[1:]))), self.norm)


@dataclass(frozen=True)
class Radial:
    """Mean Fourier magnitude by spatial frequency: invariant to shift and, nearly, to rotation."""

    size: int | None = None
    sign: Sign = "signed"
    norm: Norm = "l2"
    name: ClassVar[str] = "radial"

    def transform(self, maps: Float[np.ndarray, "n ..."]) -> Float[np.ndarray, "n d"]:
        """One number per whole frequency from 0 (the mean) to the Nyquist frequency of the shorter side.

        Of maps that are one line, to that of the line: its spectrum.
        """
        places = _apply_sign(_places(maps, "the representation 'radial'"), self.sign)
        pooled = _pooled(places, self.size)
        height, width = pooled.shape[1:]
        if max(height, width) == 1:
            raise ValueError(
                "the representation 'radial' is of how relevance changes from place to place, and these maps "
                f"{list(maps.shape)} are one place{'' if self.size is None else f' at size {self.size}'}; "
                "take maps of more places, or 'pooled'."
            )
        with np.errstate(invalid="ignore"):  # as in `Magnitude`
            magnitude = np.abs(np.fft.fft2(pooled)).reshape(len(maps), height * width)
        # Frequencies in cycles per shorter side, so that a ring means the same in both directions.
        side = min(height, width) if min(height, width) > 1 else max(height, width)
        radius = np.hypot(np.fft.fftfreq(height)[:, None] * side, np.fft.fftfreq(width)[None] * side)
        ring = np.minimum(np.rint(radius).astype(int), side // 2).ravel()
        rings = np.zeros((height * width, side // 2 + 1))
        rings[np.arange(height * width), ring] = 1.0
        with np.errstate(invalid="ignore"):
            means = magnitude @ (rings / np.maximum(rings.sum(axis=0), 1))
        return normalised(means, self.norm)


@dataclass(frozen=True)
class Joint:
    """Several representations of the same relevance side by side, each of length 1 and thus weighted alike.

    With ``norm="none"`` they stay as they are, and weigh as much as they are long.
    """

    parts: tuple[Representation, ...]
    norm: Norm = "l2"
    name: ClassVar[str] = "joint"

    def __post_init__(self) -> None:
        for part in self.parts:
            require_row_by_row(part)

    def transform(self, maps: Float[np.ndarray, "n ..."]) -> Float[np.ndarray, "n d"]:
        """The parts' feature vectors, one after the other."""
        if not self.parts:
            raise ValueError(
                "the representation 'joint' needs at least one part, such as Joint((Pooled(),))."
            )
        return normalised(
            np.concatenate([self._weighted(part, maps) for part in self.parts], axis=1), self.norm
        )

    def _weighted(self, part: Representation, maps: Float[np.ndarray, "n ..."]) -> Float[np.ndarray, "n d"]:
        features = part.transform(maps)
        return features if self.norm == "none" or part.norm == "l2" else normalised(features, "l2")


@dataclass(frozen=True)
class PCA:
    """The leading principal components of the features: fewer columns for the neighbours of large groups.

    The only step that looks at all rows. It runs on d × d moments, gathered block by block in float64, or, of
    fewer samples than columns, on the n × n products between them. Where there are no more columns than
    ``dimensions``, features pass unchanged.
    """

    dimensions: int = 50
    name: ClassVar[str] = "pca"
    always: ClassVar[bool] = False
    """Whether it is part of the representation, or a help for approximate neighbours alone."""

    def __post_init__(self) -> None:
        if self.dimensions < 1:
            raise ValueError(f"a PCA keeps at least one dimension; got {self.dimensions}.")

    def transform(self, features: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n p"]:
        """Centred coordinates in the leading components, by falling variance; each axis has a fixed sign."""
        count, width = features.shape
        if width <= self.dimensions or count < 2:
            return features
        blocks = range(0, count, 16384)
        mean = sum(features[at : at + 16384].sum(axis=0, dtype=np.float64) for at in blocks) / count
        if count < width:
            return self._from_products(features, np.asarray(mean)).astype(np.float32)
        moments = np.zeros((width, width))
        for at in blocks:
            block = features[at : at + 16384].astype(np.float64) - mean
            moments += block.T @ block
        axes = np.linalg.eigh(moments)[1][:, ::-1][:, : self.dimensions]
        axes *= np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
        coordinates = np.empty((count, axes.shape[1]), dtype=np.float32)
        for at in blocks:
            coordinates[at : at + 16384] = (features[at : at + 16384].astype(np.float64) - mean) @ axes
        return coordinates

    def _from_products(
        self, features: Float[np.ndarray, "n d"], mean: Float[np.ndarray, " d"]
    ) -> Float[np.ndarray, "n p"]:
        """The same from X Xᵀ = U Λ Uᵀ: coordinates are U √Λ, along the axes Xᵀ U / √Λ; 0 beyond the rank of X."""
        count, width = features.shape
        products = np.zeros((count, count))
        step = max(1, (1 << 22) // count)
        columns = [slice(at, at + step) for at in range(0, width, step)]
        for some in columns:
            block = features[:, some].astype(np.float64) - mean[some]
            products += block @ block.T
        values, vectors = np.linalg.eigh(products)
        values, vectors = values[::-1][: self.dimensions], vectors[:, ::-1][:, : self.dimensions]
        real = values > values[0] * count * np.finfo(np.float64).eps
        vectors = vectors[:, real]
        largest = np.zeros(vectors.shape[1])
        for some in columns:
            axes = (features[:, some].astype(np.float64) - mean[some]).T @ vectors
            here = axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])]
            largest = np.where(np.abs(here) > np.abs(largest), here, largest)
        coordinates = np.zeros((count, self.dimensions))
        coordinates[:, : len(largest)] = vectors * np.sqrt(values[real]) * np.sign(largest)
        return coordinates


@dataclass(frozen=True)
class Reduced(PCA):
    """Principal components as what is analysed, however few the samples; centred, and not normalised again."""

    name: ClassVar[str] = "reduced"
    always: ClassVar[bool] = True


def require_row_by_row(representation: Representation) -> None:
    """Refuse what is no step that takes samples one by one, with the step that was meant, where that can be told."""
    if isinstance(representation, PCA):
        raise ValueError(
            f"{representation} looks at all samples, and a representation takes one at a time. For principal "
            f"components of it as what is analysed say Analysis(reduction=Reduced({representation.dimensions}))."
        )
    if isinstance(representation, type) or not callable(getattr(representation, "transform", None)):
        raise ValueError(
            f"a representation is a step, such as Pooled() or Joint((Pooled(), Radial())); got {representation!r}."
        )


def require_channels(representation: Representation, column: str, shape: Sequence[int]) -> None:
    """Refuse channels of relevance that has none, or one, whose sum over place is one number per sample."""
    parts = representation.parts if isinstance(representation, Joint) else (representation,)
    if not any(isinstance(part, Channels) for part in parts):
        return
    if column.endswith(".place") and len(shape) > 1:
        raise ValueError(
            f"{column} holds relevance by place, and the representation 'channels' would take its rows for channels. "
            f"Analyse {column.removesuffix('.place')}.channel, or places by 'pooled'."
        )
    if len(shape) > 1 and shape[0] == 1:
        raise ValueError(
            f"{column} has one channel, and the representation 'channels' would be one number a sample. "
            "Analyse the channels of a layer that has several, or places by 'pooled'."
        )


REPRESENTATIONS: dict[str, type[Pooled | Channels | Magnitude | Radial]] = {
    step.name: step for step in (Pooled, Channels, Magnitude, Radial)
}
"""Representations by name, for the command line; `Joint` combines them, `Reduced` keeps their principal components."""
