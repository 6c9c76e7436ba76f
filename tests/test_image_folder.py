"""Folders of images: listed in order, decoded as they are, nothing about names or files trusted."""

import errno
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from audit_tools import tiny_model
from PIL import Image

from spray.attribution import Attribution, attribute_dataset
from spray.blocks import readable
from spray.config import DataConfig
from spray.data import AuditData
from spray.image_folder import ImageFolder, Preprocessing
from spray.workflow import load_data

PLAIN = Preprocessing(8, 8, (0.0,), (1.0,))
COLOUR = Preprocessing(8, 8, (0.0,) * 3, (1.0,) * 3)


def save(path, image=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    (image or Image.new("L", (8, 8), 100)).save(path, **options)
    return path


def gradient(low=0, high=255, dtype=np.uint8, size=8):
    return np.linspace(low, high, size * size).reshape(size, size).astype(dtype)


def only(path, preprocessing=PLAIN):
    """The one input of a folder with this one image, as pixels from 0 to 255."""
    sample = ImageFolder(path.parent.parent, preprocessing).sample(0)
    return (sample.input * 255).round().numpy()


def test_classes_files_and_labels_are_in_sorted_order(tmp_path):
    for name in ("b/2.png", "b/10.PNG", "a/z/1.png", "a/1.jpeg", "C/x.bmp", "b/notes.txt", "loose.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        save(path) if path.suffix != ".txt" else path.write_text("no image")
    folder = ImageFolder(str(tmp_path), PLAIN)
    assert isinstance(folder, AuditData)
    assert folder.ids == ["C/x.bmp", "a/1.jpeg", "a/z/1.png", "b/10.PNG", "b/2.png"]
    assert folder.classes == ("C", "a", "b")
    assert folder.labels == [0, 1, 1, 2, 2]


def test_classes_in_the_order_of_the_models_outputs(tmp_path):
    for name in ("a/1.png", "b/1.png"):
        save(tmp_path / name)
    folder = ImageFolder(tmp_path, PLAIN, ("b", "absent", "a"))
    assert folder.classes == ("b", "absent", "a")
    assert folder.labels == [2, 0]
    with pytest.raises(ValueError, match="no class of the model: b"):
        ImageFolder(tmp_path, PLAIN, ("a", "c"))
    with pytest.raises(ValueError, match="'a' is the name of several classes"):
        ImageFolder(tmp_path, PLAIN, ("a", "b", "a"))


def test_facts_that_a_model_may_have_learned_are_metadata(tmp_path):
    path = save(tmp_path / "a" / "1.png", Image.new("RGB", (20, 10)))
    sample = ImageFolder(tmp_path, PLAIN).sample(0)
    size = path.stat().st_size
    assert sample.metadata == {"width": 20, "height": 10, "aspect": 2.0, "bytes": size, "format": "PNG"}
    assert set(sample.metadata) == set(ImageFolder(tmp_path, PLAIN).metadata)


def test_a_folder_named_from_here_is_found_from_elsewhere(tmp_path, monkeypatch):
    save(tmp_path / "images" / "a" / "1.png")
    monkeypatch.chdir(tmp_path)
    folder = ImageFolder("images", PLAIN)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert folder.sample(0).label == 0


def test_links_may_not_lead_out_of_the_folder(tmp_path):
    outside = save(tmp_path / "elsewhere" / "secret.png")
    inside = save(tmp_path / "root" / "a" / "1.png")
    (tmp_path / "root" / "a" / "2.png").symlink_to(inside)
    (tmp_path / "link").symlink_to(tmp_path / "root")
    assert ImageFolder(tmp_path / "root", PLAIN).ids == ["a/1.png", "a/2.png"]
    assert ImageFolder(tmp_path / "link", PLAIN).ids == ["a/1.png", "a/2.png"]
    (tmp_path / "root" / "a" / "3.png").symlink_to(outside)
    with pytest.raises(ValueError, match=r"3\.png is a link that leads out"):
        ImageFolder(tmp_path / "root", PLAIN)
    (tmp_path / "root" / "a" / "3.png").unlink()
    (tmp_path / "root" / "b").symlink_to(outside.parent)
    with pytest.raises(ValueError, match="b is a link to a folder"):
        ImageFolder(tmp_path / "root", PLAIN)


def test_a_folder_that_cannot_be_listed_is_refused_and_not_left_out(tmp_path, monkeypatch):
    for name in "abc":
        save(tmp_path / name / "1.png")
    listed = os.scandir

    def scandir(folder):
        if Path(folder).name == "b":
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return listed(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(OSError, match=r"b cannot be listed \(Permission denied\)"):
        ImageFolder(tmp_path, PLAIN)


def test_hidden_files_are_no_images(tmp_path):
    save(tmp_path / "a" / "1.png")
    (tmp_path / "a" / "._1.png").write_bytes(b"what a Mac leaves beside a file")
    assert ImageFolder(tmp_path, PLAIN).ids == ["a/1.png"]


def test_what_is_passed_over_is_counted_by_ending(tmp_path):
    save(tmp_path / "a" / "1.png")
    for name in ("2.heic", "3.HEIC", "readme"):
        (tmp_path / "a" / name).write_bytes(b"")
    assert ImageFolder(tmp_path, PLAIN).passed_over == {".heic": 2, "": 1}
    with pytest.warns(UserWarning, match=r"3 files are left out.*2 \.heic, 1 without ending"):
        load_data(DataConfig(str(tmp_path), resize=8, crop=8))


def test_nothing_to_read_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        ImageFolder(tmp_path / "absent", PLAIN)
    save(tmp_path / "loose.png")
    with pytest.raises(FileNotFoundError, match="no image in a class folder"):
        ImageFolder(tmp_path, PLAIN)


def test_unreadable_files_say_why_and_not_where(tmp_path):
    whole = save(tmp_path / "a" / "torn.png", Image.effect_noise((64, 64), 50))
    whole.write_bytes(whole.read_bytes()[:200])
    (tmp_path / "a" / "empty.jpg").write_bytes(b"")
    (tmp_path / "a" / "text.jpg").write_text("<html>")
    folder = ImageFolder(tmp_path, PLAIN)
    (tmp_path / "a" / "gone.jpg").touch()
    listed = ImageFolder(tmp_path, PLAIN)
    (tmp_path / "a" / "gone.jpg").unlink()
    reasons = {name: readable(listed, row) for row, name in enumerate(listed.ids)}
    assert all(reason.startswith("ValueError: unreadable image: ") for reason in reasons.values())
    assert "truncated" in reasons["a/torn.png"]
    assert "no known format" in reasons["a/empty.jpg"]
    assert "no known format" in reasons["a/text.jpg"]
    assert "No such file" in reasons["a/gone.jpg"]
    assert not any(str(tmp_path) in reason for reason in reasons.values())
    with pytest.raises(ValueError, match="unreadable image"):
        folder.sample(0)


def test_every_kind_of_picture_shows_what_it_shows(tmp_path):
    grey = gradient()
    colour = np.stack([grey, grey[::-1], grey.T], 2)
    palette = Image.fromarray(colour).quantize(64)
    transparent = palette.copy()
    transparent.info["transparency"] = bytes([0] * 10)
    alpha = np.dstack([colour, np.full((8, 8), 7, np.uint8)])
    pictures = {
        "L": (Image.fromarray(grey), grey),
        "1": (Image.fromarray(grey > 128), (grey > 128) * 255),
        "16 bits": (Image.fromarray(gradient(0, 65535, np.uint16)), gradient(0, 255.5, np.uint8)),
        "RGB": (Image.fromarray(colour), colour),
        "RGBA": (Image.fromarray(alpha), colour),
        "P": (palette, np.asarray(palette.convert("RGB"))),
        "P with transparency": (transparent, np.asarray(palette.convert("RGB"))),
        "LA": (Image.fromarray(grey).convert("LA"), grey),
    }
    for name, (image, expected) in pictures.items():
        path = save(tmp_path / name / "a" / "1.png", image)
        expected = expected if expected.ndim == 3 else np.repeat(expected[..., None], 3, 2)
        shown = only(path, COLOUR).transpose(1, 2, 0)
        assert np.abs(shown - expected).max() <= 1, name
        assert only(path).shape == (1, 8, 8)


def test_16_bits_of_a_pgm_are_scaled_too(tmp_path):
    grey = gradient(0, 65535, np.uint16)
    path = tmp_path / "a" / "1.pgm"
    path.parent.mkdir()
    path.write_bytes(b"P5 8 8 65535\n" + grey.astype(">u2").tobytes())
    assert np.abs(only(path)[0] - grey / 257).max() <= 1


def test_pixels_without_a_known_range_are_refused(tmp_path):
    save(tmp_path / "a" / "1.tif", Image.fromarray(np.ones((8, 8), np.float32)))
    assert "mode 'F' have no known range" in readable(ImageFolder(tmp_path, PLAIN), 0)


def test_an_image_that_would_fill_the_memory_is_refused(tmp_path):
    save(tmp_path / "a" / "1.png", Image.new("L", (30000, 1)))
    preprocessing = Preprocessing(256, 224, (0.0,), (1.0,))
    assert "30000×1 pixels would become 7680000×256" in readable(ImageFolder(tmp_path, preprocessing), 0)


def test_preprocessing_resizes_crops_the_centre_and_normalises():
    picture = np.zeros((30, 60), np.uint8)
    picture[10:20, 25:35] = 255
    mean, std = (0.2, 0.3, 0.4), (0.5, 0.6, 0.7)
    values = Preprocessing(30, 10, mean, std)(Image.fromarray(picture))
    assert values.shape == (3, 10, 10)
    for channel in range(3):
        expected = torch.full((10, 10), (1 - mean[channel]) / std[channel])
        torch.testing.assert_close(values[channel], expected)
    assert Preprocessing(12, 10)(Image.fromarray(picture)).shape == (3, 10, 10)
    assert Preprocessing(10, 10)(Image.new("L", (1, 7))).shape == (3, 10, 10)


@pytest.mark.parametrize(
    "options",
    [
        {"mean": (0.5,)},
        {"mean": (0.5,) * 2, "std": (1.0,) * 2},
        {"std": (1.0, 0.0, 1.0)},
        {"crop": 300},
        {"crop": 0},
    ],
)
def test_preprocessing_that_cannot_be_is_refused(options):
    with pytest.raises(ValueError, match=r"mean|crop"):
        Preprocessing(**options)


@pytest.mark.skipif(sys.platform == "darwin", reason="its file system takes no such names")
def test_hostile_names_come_back_as_they_are(tmp_path):
    names = ["<script>alert(1)</script>", "..", "new\nline", "ünï 漢字", "a:b", "%2e%2e", "-rf"]
    classes = [name for name in names if name != ".."]
    for number, name in enumerate(classes):
        save(tmp_path / "root" / name / f"{name.replace('/', '_')}.png", Image.new("L", (8, 8), 30 * number))
    raw = os.fsencode(tmp_path / "root" / "a:b") + b"/\xff\xfe.png"
    with open(raw, "wb") as file:  # noqa: PTH123 - a name that is no text
        Image.new("L", (8, 8)).save(file, "PNG")
    folder = ImageFolder(tmp_path / "root", PLAIN)
    assert sorted(folder.classes) == sorted(path.name for path in (tmp_path / "root").iterdir())
    step = Attribution(block=4, grid=4, thumbnails=8)
    run = attribute_dataset(tiny_model(classes=len(folder.classes)), folder, tmp_path / "a.zarr", step)
    assert run.samples.failures == {}
    assert run.samples.read("id").tolist() == folder.ids
    assert any("\udcff" in name for name in folder.ids)
    assert run.classes == folder.classes


def test_a_pipe_is_not_waited_for(tmp_path):
    save(tmp_path / "cat/a.png")
    os.mkfifo(tmp_path / "cat/b.png")
    folder = ImageFolder(tmp_path, PLAIN)
    with pytest.raises(ValueError, match="a pipe or a device"):
        folder.sample(1)
