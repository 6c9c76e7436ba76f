"""Pictures on their way to the browser: int8 relevance, one WebP atlas per class, arrays as base64."""

from __future__ import annotations

import base64
import gzip
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int8, UInt8

from reports.theme import LEVELS

ATLAS_SIDE = 16_000
"""WebP ends at 16,383 pixels a side."""
BLOCK = 16
"""WebP predicts and quantises blocks of 16 pixels: tiles begin on block borders, or neighbours bleed."""


def quantise(
    maps: Float[np.ndarray, "n y x"], step: int = 1
) -> tuple[Int8[np.ndarray, "n y x"], Float[np.ndarray, " n"]]:
    """Relevance as int8 in [−127, 127], symmetric about zero, each map scaled to its largest |R|.

    Codes are multiples of ``step`` (and ±127): fewer levels compress better, and 63 of them look like 255.

    Returns the codes and the scales: ``codes * scale / 127`` is the relevance. A map that is zero everywhere
    has scale 0, one with a value that is not finite has scale NaN; both have codes 0.
    """
    size = np.abs(maps).astype(np.float64)
    scale = size.max(axis=(1, 2), initial=0.0)
    scale[~np.isfinite(size).all(axis=(1, 2))] = np.nan
    usable = np.isfinite(scale) & (scale > 0)
    codes = np.zeros(maps.shape, dtype=np.int8)
    ratio = maps[usable].astype(np.float64) / scale[usable, None, None]
    levels = np.rint(ratio * (LEVELS / step)) * step
    codes[usable] = np.clip(levels, -LEVELS, LEVELS).astype(np.int8)
    return codes, scale.astype(np.float32)


@dataclass(frozen=True)
class Atlas:
    """Many small pictures in one: picture ``i`` lies at column ``i % columns`` and row ``i // columns``."""

    webp: bytes
    columns: int
    stride: tuple[int, int]
    """Distance in pixels of one tile to the next, y and x."""
    size: tuple[int, int]
    """Height and width of a picture."""


def atlas(pictures: UInt8[np.ndarray, "n y x c"], quality: int = 82) -> Atlas | None:
    """One WebP picture of all pictures; None where there is none.

    Raises:
        ValueError: more pixels than one WebP picture can hold.
    """
    count, height, width, channels = pictures.shape
    if count == 0:
        return None
    stride = -(-height // BLOCK) * BLOCK, -(-width // BLOCK) * BLOCK
    columns = min(count, max(1, int(np.ceil(np.sqrt(count * stride[0] / stride[1])))))
    rows = -(-count // columns)
    if max(rows * stride[0], columns * stride[1]) > ATLAS_SIDE:
        raise ValueError(
            f"{count} pictures of {height}×{width} do not fit one atlas of {ATLAS_SIDE}×{ATLAS_SIDE} pixels. "
            "Store smaller thumbnails, or serve the store instead of writing a file."
        )
    # Edge pixels are repeated into the gap between tiles, so that the codec sees no border there.
    padding = ((0, 0), (0, stride[0] - height), (0, stride[1] - width), (0, 0))
    tiles = np.pad(pictures, padding, mode="edge")
    blank = np.zeros((rows * columns - count, *tiles.shape[1:]), dtype=np.uint8)
    grid = np.concatenate([tiles, blank]).reshape(rows, columns, *stride, channels)
    sheet = grid.transpose(0, 2, 1, 3, 4).reshape(rows * stride[0], columns * stride[1], channels)
    return Atlas(webp(sheet, quality), columns, stride, (height, width))


def webp(picture: UInt8[np.ndarray, "y x c"], quality: int) -> bytes:
    """One picture of one, three or four channels as WebP."""
    from PIL import Image

    image = Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture)
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", quality=quality, method=4)
    return buffer.getvalue()


def packed(array: np.ndarray, *, compress: bool = False) -> dict[str, Any]:
    """An array for JSON: little-endian bytes in base64, gzip inside where ``compress``; same array, same text."""
    little = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
    content = little.tobytes()
    if compress:
        content = gzip.compress(content, compresslevel=6, mtime=0)
    return {
        "dtype": array.dtype.name,
        "shape": list(array.shape),
        "gzip": compress,
        "data": base64.b64encode(content).decode("ascii"),
    }
