"""Configurations: every key and type checked, paths relative to their file, flags laid over files."""

import re
from pathlib import Path

import pytest

from spray.cli.options import settings
from spray.config import AuditConfig, ConfigError, load_config, report_beside

COMPLETE = """
out = "stores/run.zarr"
device = "cpu"

[model]
spec = "code/model.py:load"
weights = "w.pt"

[data]
spec = "photos"
crop = 8
mean = [0.5, 1, 0]

[attribution]
target = 3
layers = ["layer4", "fc"]
full = true

[analysis]
neighbours = 7
"""


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "audit.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_a_file_is_read_with_its_paths_relative_to_itself(write, tmp_path):
    config = load_config(write(COMPLETE))
    assert config.model.spec == f"{tmp_path}/code/model.py:load"
    assert config.model.weights == f"{tmp_path}/w.pt"
    assert config.data.spec == f"{tmp_path}/photos"
    assert config.data.mean == (0.5, 1.0, 0.0)
    assert config.data.std == AuditConfig().data.std
    assert config.attribution.layers == ("layer4", "fc")
    assert (config.attribution.target, config.attribution.full) == (3, True)
    assert (config.analysis.neighbours, config.analysis.picture) == (7, "auto")
    assert (config.out, config.report) == (f"{tmp_path}/stores/run.zarr", f"{tmp_path}/report.html")


@pytest.mark.parametrize(
    "spec", ["torchvision:resnet18", "package.module:load", "s3://bucket/run.zarr", "/absolute/path", "~/x"]
)
def test_what_is_no_relative_path_stays(write, tmp_path, spec):
    config = load_config(write(f'out = "{spec}"\n[model]\nspec = "{spec}"\n'))
    expected = str(Path(spec).expanduser()) if spec.startswith("~") else spec
    assert config.model.spec == expected
    if ":" not in spec or "://" in spec:
        assert config.out == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("modle = 1", "unknown entry 'modle'. Known here: analysis, attribution, data, device, model"),
        ("[attribution]\nblocks = 3", "attribution: unknown entry 'blocks'"),
        ("[attribution]\nblock = '3'", "attribution: block: got '3', expected int"),
        ("[attribution]\nblock = true", "got True, expected int"),
        ("[attribution]\nblock = 3.0", "got 3.0, expected int"),
        ("[attribution]\ntarget = 1.5", "got 1.5, expected str or int"),
        ("[attribution]\nlayers = 'fc'", "got 'fc', expected a list"),
        ("[attribution]\nlayers = [1]", "got 1, expected str"),
        ("[data]\nmean = ['a']", "got 'a', expected float"),
        ("data = 'photos'", "got 'photos', expected a section"),
        ("out = 3", "out: got 3, expected str"),
        ("out = ", "is no valid TOML"),
    ],
)
def test_mistakes_are_named_with_what_was_expected(write, text, words):
    path = write(text)
    with pytest.raises(ConfigError, match=f"{re.escape(str(path))}.*{re.escape(words)}"):
        load_config(path)


def test_a_file_that_is_not_there_or_not_text(tmp_path):
    with pytest.raises(ConfigError, match="There is no configuration"):
        load_config(tmp_path / "audit.toml")
    (tmp_path / "audit.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="no valid TOML"):
        load_config(tmp_path / "audit.toml")


def test_flags_are_laid_over_the_file(write, tmp_path):
    flags = {
        "model": "torchvision:resnet18",
        "data": None,
        "weights": None,
        "mean": "0.25",
        "crop": None,
        "layers": (),
        "full": False,
        "target": "prediction",
        "neighbours": 5,
        "seed": 3,
        "report_path": "r.html",
        "out": None,
        "device": "cuda",
    }
    config = settings(write(COMPLETE), flags)
    assert config.model.spec == "torchvision:resnet18"
    assert config.model.weights == f"{tmp_path}/w.pt"
    assert config.data.spec == f"{tmp_path}/photos"
    assert (config.data.mean, config.data.crop) == ((0.25,), 8)
    assert config.attribution.layers == ("layer4", "fc")
    assert (config.attribution.full, config.attribution.target) == (False, "prediction")
    assert (config.analysis.neighbours, config.analysis.seed, config.verify.seed) == (5, 3, 3)
    assert (config.out, config.report, config.device) == (f"{tmp_path}/stores/run.zarr", "r.html", "cuda")
    assert settings(None, dict.fromkeys(flags)) == AuditConfig()
    with pytest.raises(ConfigError, match="--std: got 'a,b', expected numbers"):
        settings(None, {"std": "a,b"})


def test_the_report_goes_beside_a_local_store_only(tmp_path, monkeypatch):
    assert report_beside("runs/a.zarr/") == Path("runs/a.html")
    (tmp_path / "here.zarr").mkdir()
    monkeypatch.chdir(tmp_path / "here.zarr")
    assert report_beside(".") == tmp_path / "here.html"
    with pytest.raises(ConfigError, match="remote: say where"):
        report_beside("s3://bucket/a.zarr")
