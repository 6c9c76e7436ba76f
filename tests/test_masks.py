"""Masks of objects: from a folder or with the samples, pooled into the cells of the maps, up to the score."""

from pathlib import Path

import numpy as np
import pytest
import torch
from audit_tools import Images, tiny_model
from PIL import Image
from torch import Tensor

import stores
from spray.attribution import Attribution, attribute_dataset
from spray.attribution.records import object_shares
from spray.config import DataConfig
from spray.data import AuditData
from spray.engine.errors import BadInput
from spray.findings.outcomes import Outcomes
from spray.image_folder import ImageFolder, Preprocessing
from spray.loading import SpecError
from spray.workflow import load_data

STEP = Attribution(composite="epsilon_plus", block=4, grid=4)


def save(path: Path, image: Image.Image) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path


def upper_half(size: tuple[int, int] = (16, 8), mode: str = "L", value: object = 255) -> Image.Image:
    image = Image.new(mode, size)
    image.paste(value, (0, 0, size[0], size[1] // 2))  # type: ignore[arg-type]
    return image


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Four images of 16×8 pixels, three of them with masks of other endings and kinds."""
    for name in ("a/1.jpg", "a/2.png", "b/1.png", "b/2.png"):
        save(tmp_path / "images" / name, Image.new("RGB", (16, 8), (90, 60, 30)))
    save(tmp_path / "masks" / "a/1.png", upper_half())
    palette = upper_half(mode="P", value=15)
    palette.putpalette([0, 0, 0] * 256)  # black everywhere, as a picture
    save(tmp_path / "masks" / "a/2.png", palette)
    save(tmp_path / "masks" / "b/1.png", upper_half(mode="RGB", value=(0, 0, 7)))
    return tmp_path / "images", tmp_path / "masks"


def test_masks_of_a_folder_follow_the_images_through_resizing_and_cropping(
    folders: tuple[Path, Path],
) -> None:
    images, masks = folders
    folder = ImageFolder(images, Preprocessing(8, 8), masks=masks)
    assert isinstance(folder, AuditData) and folder.metadata["mask"] is Tensor
    for row in range(3):
        mask = folder.sample(row).metadata["mask"]
        assert mask.shape == (8, 8) and mask[:4].all() and not mask[4:].any()
    assert "mask" not in folder.sample(3).metadata
    left = Image.new("L", (16, 8))
    left.paste(1, (0, 0, 8, 8))
    save(masks / "b/2.png", left)
    cropped = ImageFolder(images, Preprocessing(8, 8), masks=masks).sample(3).metadata["mask"]
    assert cropped[:, :4].all() and not cropped[:, 4:].any()


def test_transparency_and_the_smear_of_jpeg_are_no_object(tmp_path: Path) -> None:
    preprocessing = Preprocessing(64, 64)
    upper = np.zeros((64, 64), bool)
    upper[:29] = True
    cut_out = np.zeros((64, 64, 4), np.uint8)
    cut_out[..., 3] = 255 * upper  # a black object, cut out
    white = np.full((64, 64, 4), 255, np.uint8)
    white[..., 3] = 255 * upper
    opaque = np.full((64, 64, 4), 255, np.uint8)
    opaque[29:, :, :3] = 0
    for pixels in (cut_out, white, opaque):
        assert np.array_equal(preprocessing.mask(Image.fromarray(pixels)).numpy(), upper)
    path = save(tmp_path / "mask.jpg", Image.fromarray((255 * upper).astype(np.uint8)))
    with Image.open(path) as smeared:
        assert (np.asarray(smeared) != 0).sum() > upper.sum()
        assert np.array_equal(preprocessing.mask(smeared).numpy(), upper)


def test_a_folder_audited_with_masks_knows_the_objects(folders: tuple[Path, Path], tmp_path: Path) -> None:
    images, masks = folders
    with pytest.warns(UserWarning, match="1 of 4 images have no mask there"):
        data = load_data(DataConfig(spec=str(images), resize=8, crop=8, masks=str(masks)))
    run = attribute_dataset(tiny_model(3, classes=2), data, tmp_path / "run.zarr", STEP)
    objects = Outcomes(run).objects(np.arange(4), (4, 4))
    assert objects is not None and np.isnan(objects[3]).all()
    assert (objects[:3, :2] == 1).all() and (objects[:3, 2:] == 0).all()
    assert np.allclose(Outcomes(run).objects(np.arange(3), (2, 2)), objects[:3, ::2, ::2])
    assert "mask" not in Outcomes(run).metadata(np.arange(4))
    with pytest.raises(stores.StoreError, match="differs"):
        attribute_dataset(tiny_model(3, classes=2), ImageFolder(images, Preprocessing(8, 8)), run.path, STEP)


def test_samples_bring_masks_as_metadata_and_a_wrong_one_costs_its_own_row(tmp_path: Path) -> None:
    mask = torch.zeros(8, 8, dtype=torch.uint8)
    mask[:, :3] = 7
    data = Images(6)
    good = [
        (data.images[row], 0, {"mask": kind}) for row, kind in enumerate((mask, mask.bool(), mask.numpy()))
    ]
    data.items = dict(enumerate(good)) | {3: (data.images[3], 1, {"mask": torch.ones(5, 5)})}
    data.items[4] = (data.images[4], 1, {"mask": None})
    data.metadata = {"mask": Tensor}  # type: ignore[attr-defined]
    for workers in (0, 2):
        step = Attribution(composite="epsilon_plus", block=4, grid=4, workers=workers)
        run = attribute_dataset(tiny_model(), data, tmp_path / f"run{workers}.zarr", step)
        assert run.samples.failures == {
            3: "mask of shape (5, 5), expected that of the input's places, (8, 8)"
        }
        shares = run.samples.read("mask", np.array([0, 1, 2, 4]))
        assert (shares[:3] == np.array([1, 0.5, 0, 0])).all() and np.isnan(shares[3]).all()


def test_shares_of_cells_that_do_not_divide_the_picture_against_counting_finer() -> None:
    mask = np.random.default_rng(0).random((10, 7)) < 0.5
    (shares,) = object_shares([mask], torch.zeros(1, 10, 7), 4)
    fine = np.kron(mask, np.ones((4, 4)))  # 40×28: four by four cells of 10×7
    assert np.allclose(shares, fine.reshape(4, 10, 4, 7).mean((1, 3)), atol=1e-6)
    assert object_shares([mask[0], None], torch.zeros(2, 7), 4).shape == (2, 1, 4)


def test_masks_that_cannot_be_are_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    images, masks = folders
    save(masks / "b/2.png", Image.new("L", (4, 4)))
    folder = ImageFolder(images, Preprocessing(8, 8), masks=masks)
    with pytest.raises(ValueError, match="mask of 4×4 pixels, expected the image's 16×8"):
        folder.sample(3)
    (masks / "b/2.png").write_text("torn")
    with pytest.raises(ValueError, match="unreadable mask: no known format"):
        folder.sample(3)
    save(masks / "a/1.bmp", upper_half())
    with pytest.raises(ValueError, match="two masks for one image"):
        ImageFolder(images, masks=masks)
    save(tmp_path / "others" / "a/9.png", upper_half())
    with pytest.raises(FileNotFoundError, match="holds no mask for any of the 4 images"):
        ImageFolder(images, masks=tmp_path / "others")
    with pytest.raises(FileNotFoundError, match="no folder"):
        ImageFolder(images, masks=tmp_path / "nowhere")
    with pytest.raises(SpecError, match="brings its own, as metadata 'mask'"):
        load_data(DataConfig(spec="tests.nowhere:data", masks=str(masks)))
    vectors = [(torch.randn(12), 0, {"mask": torch.ones(12)})] * 4
    data = Images()
    data.items, data.metadata = dict(enumerate(vectors)), {"mask": Tensor}  # type: ignore[attr-defined]
    data.images = torch.randn(20, 12)
    model = torch.nn.Sequential(torch.nn.Linear(12, 3)).eval()
    with pytest.raises(BadInput, match="is no picture"):
        attribute_dataset(model, data, tmp_path / "vectors.zarr", STEP)
    data.metadata = {"mask": Tensor, "outline": Tensor}  # type: ignore[attr-defined]
    with pytest.raises(BadInput, match=r"Tensor for 'mask' alone"):
        attribute_dataset(model, data, tmp_path / "vectors.zarr", STEP)


def test_an_image_is_no_other_images_mask(tmp_path: Path) -> None:
    """1.jpg and 1.png are two images; the mask 1.png is that of the second alone."""
    for name in ("images/a/1.jpg", "images/a/1.png", "masks/a/1.png"):
        save(tmp_path / name, upper_half())
    folder = ImageFolder(tmp_path / "images", Preprocessing(8, 8, (0.0,), (1.0,)), masks=tmp_path / "masks")
    assert list(folder.masked) == ["a/1.png"]
