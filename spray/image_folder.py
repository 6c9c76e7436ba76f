"""A folder of images, ``class/name.jpg``, as audit data: listed once, decoded on demand, nothing trusted."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from spray.data import MASK, Sample

EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"}
)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
LARGEST = 2**26
"""Pixels after resizing; above, an image of one by many thousand pixels would fill the memory."""


@dataclass(frozen=True)
class Preprocessing:
    """Shorter side to ``resize``, centre crop to ``crop``, values to [0, 1], then (x − mean) / std.

    One entry in ``mean`` means greyscale, three mean RGB.
    """

    resize: int = 256
    crop: int = 224
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or len(self.mean) not in (1, 3):
            raise ValueError(
                f"mean has {len(self.mean)} and std {len(self.std)} entries; give 1 (grey) or 3 (RGB) of each."
            )
        if min(self.std) <= 0 or not 0 < self.crop <= self.resize:
            raise ValueError("std must be positive, and crop positive and no larger than resize.")

    def __call__(self, image: Image.Image) -> Float[Tensor, "c h w"]:
        """The picture as the model's input.

        Raises:
            ValueError: its values have no known range, or it is so narrow that resizing it would fill the memory.
        """
        picture = _eight_bit(image).convert("L" if len(self.mean) == 1 else "RGB")
        picture = self._placed(picture, Image.Resampling.BICUBIC)
        values = torch.from_numpy(np.array(picture, dtype=np.float32) / 255)
        values = values[None] if values.ndim == 2 else values.permute(2, 0, 1)
        mean = torch.tensor(self.mean, dtype=torch.float32)[:, None, None]
        std = torch.tensor(self.std, dtype=torch.float32)[:, None, None]
        return ((values - mean) / std).contiguous()

    def mask(self, image: Image.Image) -> Bool[Tensor, "h w"]:
        """Where the object is in the model's input, of a picture that is not 0 there: any colour, any palette entry.

        Where parts of the picture are transparent the others are the object. JPEG smears what is around an edge: there
        more than half of the largest value is.
        """
        inside = Image.fromarray(_is_object(image))
        return torch.from_numpy(np.array(self._placed(inside, Image.Resampling.NEAREST), dtype=bool))

    def _placed(self, picture: Image.Image, how: Image.Resampling) -> Image.Image:
        """Resized and cropped."""
        scale = self.resize / min(picture.size)
        width, height = (max(self.crop, round(side * scale)) for side in picture.size)
        if width * height > LARGEST:
            raise ValueError(f"{picture.width}×{picture.height} pixels would become {width}×{height}")
        left, top = (width - self.crop) // 2, (height - self.crop) // 2
        resized = picture.resize((width, height), how)
        return resized.crop((left, top, left + self.crop, top + self.crop))


@dataclass(frozen=True)
class ImageFolder:
    """Images under ``root/CLASS/…``; classes and files in sorted order, ids are the paths relative to root.

    File facts that a model may have learned instead of the object (size, aspect, bytes, format) are metadata, and so is
    where the object is, if there is a folder of masks: ``masks/CLASS/NAME`` of the image, with its own or another
    ending, as large as the image and not 0 on the object.

    Raises:
        FileNotFoundError: there is no such folder, no image in it, or no mask for any.
        OSError: a folder in it cannot be listed.
        ValueError: a folder is no class or several, or a link leads out of the root.
    """

    root: Path
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    classes: Sequence[str] = ()
    """Names in the order of the model's outputs; empty: the folder names, sorted."""
    masks: Path | None = None
    ids: Sequence[str] = field(init=False)
    labels: Sequence[int] = field(init=False)
    passed_over: Counter[str] = field(init=False)
    """Files in class folders that are taken for no image, counted by ending; hidden ones are not counted."""
    masked: Mapping[str, Path] = field(init=False)
    """The mask of each image that has one."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", Path(self.root).absolute())  # workers may be in other folders
        files, passed_over = _images(self.root)
        object.__setattr__(self, "passed_over", passed_over)
        folders = sorted({file.parts[0] for file in files})
        names = tuple(self.classes) or tuple(folders)
        if repeated := [folder for folder in folders if names.count(folder) > 1]:
            raise ValueError(
                f"'{repeated[0]}' is the name of several classes, so the folder's label is not known. "
                "Tell them apart in the list of classes and rename the folder."
            )
        if unknown := [folder for folder in folders if folder not in names]:
            raise ValueError(
                f"{self.root} has folders that are no class of the model: {', '.join(unknown[:5])}. "
                f"The classes given begin {', '.join(names[:5])}: rename the folders, or give other classes."
            )
        object.__setattr__(self, "classes", names)
        object.__setattr__(self, "ids", [file.as_posix() for file in files])
        index = {name: number for number, name in enumerate(names)}
        object.__setattr__(self, "labels", [index[file.parts[0]] for file in files])
        object.__setattr__(self, "masked", {} if self.masks is None else _masks(self.masks, files))

    @property
    def metadata(self) -> Mapping[str, type]:
        """Columns: width, height (pixels), aspect (width / height), bytes, format; the mask, where there are some."""
        facts = {"width": int, "height": int, "aspect": float, "bytes": int, "format": str}
        return facts | ({} if self.masks is None else {MASK: Tensor})

    @property
    def mean(self) -> Sequence[float]:
        """Per-channel mean of the normalisation."""
        return self.preprocessing.mean

    @property
    def std(self) -> Sequence[float]:
        """Per-channel standard deviation of the normalisation."""
        return self.preprocessing.std

    def sample(self, row: int) -> Sample:
        """Decode one image, and its mask; an unreadable file raises ``ValueError`` with its reason."""
        path = self.root / self.ids[row]
        image, size = _read(path, "image")
        facts: dict[str, Any] = {"width": image.width, "height": image.height}
        facts |= {"aspect": image.width / image.height, "format": image.format or "", "bytes": size}
        if mask := self.masked.get(self.ids[row]):
            facts[MASK] = self._mask(mask, image)
        return Sample(self.preprocessing(image), self.labels[row], facts)

    def _mask(self, path: Path, image: Image.Image) -> Bool[Tensor, "h w"]:
        mask, _ = _read(path, "mask")
        if mask.size != image.size:
            raise ValueError(
                f"mask of {mask.width}×{mask.height} pixels, expected the image's {image.width}×{image.height}"
            )
        return self.preprocessing.mask(mask)


def _read(path: Path, what: str) -> tuple[Image.Image, int]:
    """A picture, decoded, and how many bytes its file has.

    Raises:
        ValueError: it is unreadable; with the reason.
    """
    try:
        there = path.stat()
        if not stat.S_ISREG(there.st_mode):
            raise ValueError(f"unreadable {what}: it is no file, but a pipe or a device")
        with Image.open(path) as image:
            image.load()
            return image, there.st_size
    except UnidentifiedImageError as error:
        raise ValueError(f"unreadable {what}: no known format") from error
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        # The path in a system error's text would make the same data set's store differ from place to place.
        reason = error.strerror if isinstance(error, OSError) and error.errno else str(error)
        raise ValueError(f"unreadable {what}: {reason}") from error


def _is_object(mask: Image.Image) -> Bool[np.ndarray, "h w"]:
    """Where a mask says that the object is."""
    bands = mask.getbands()
    if "A" in bands and not (opaque := np.asarray(mask.getchannel("A")) > 0).all():
        return opaque
    values = np.asarray(mask if len(bands) == 1 else mask.convert("RGB"))
    told = values > values.max(initial=0) / 2 if mask.format == "JPEG" else values != 0
    inside: Bool[np.ndarray, "h w"] = np.any(np.atleast_3d(told), axis=2)
    return inside


def _eight_bit(image: Image.Image) -> Image.Image:
    """Images of 16 bits scaled (Pillow would clip them to white), palettes with transparency in their colours."""
    # Of 16-bit PGM Pillow makes 32-bit integers, scaled to the range of 16.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        return Image.fromarray((np.asarray(image).astype(np.uint32) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of mode '{image.mode}' have no known range; save them with 8 or 16 bits")
    return image.convert("RGBA") if image.mode == "P" else image


def _images(root: Path) -> tuple[list[Path], Counter[str]]:
    """Image files one class folder or more below root, relative to it, sorted; and the endings of all other files.

    Links to files may lead to other places in the folder; links that lead out of it, or to folders, are refused.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"There is no folder {root.resolve()}. Expected {root}/CLASS/NAME.jpg.")
    inside = root.resolve()
    files = []
    passed_over: Counter[str] = Counter()

    def refuse(error: OSError) -> None:
        raise OSError(
            f"{error.filename} cannot be listed ({error.strerror}), so the images in it would be missing without a "
            "word. Make it readable, or move it away."
        ) from error

    for folder, folders, names in os.walk(root, onerror=refuse):
        for name in folders:
            if Path(folder, name).is_symlink():
                raise ValueError(
                    f"{Path(folder, name)} is a link to a folder, which is not followed; move the folder itself here."
                )
        for name in names:
            path = Path(folder, name)
            if path.parent == root or name.startswith("."):
                continue
            if path.suffix.lower() not in EXTENSIONS:
                passed_over[path.suffix.lower()] += 1
                continue
            if path.is_symlink() and not path.resolve().is_relative_to(inside):
                raise ValueError(f"{path} is a link that leads out of {root}; copy the file or leave it out.")
            files.append(path.relative_to(root))
    if not files:
        raise FileNotFoundError(
            f"{root} holds no image in a class folder. Expected {root}/CLASS/NAME with one of: "
            f"{', '.join(sorted(EXTENSIONS))}."
        )
    return sorted(files), passed_over


def _masks(root: Path, images: Sequence[Path]) -> dict[str, Path]:
    """The mask of each image, by its id: the file of its name, or of its name with another ending that no image has.

    Raises:
        FileNotFoundError: there is no mask for any of them.
        ValueError: there are two for one.
    """
    files = _images(root)[0]
    own = set(images)
    others = [file for file in files if file not in own]
    by_name = {file.with_suffix(""): file for file in others}
    if len(by_name) < len(others):
        twice = next(file for file in others if by_name[file.with_suffix("")] != file)
        raise ValueError(
            f"{root} has two masks for one image, {twice} and {by_name[twice.with_suffix('')]}; leave one there."
        )
    there = own & set(files)
    found = {image: image if image in there else by_name.get(image.with_suffix("")) for image in images}
    masks = {image.as_posix(): root.absolute() / mask for image, mask in found.items() if mask is not None}
    if not masks:
        raise FileNotFoundError(
            f"{root} holds no mask for any of the {len(images)} images. Expected the images' own paths there, such as "
            f"{root / images[0].with_suffix('.png')}."
        )
    return masks
