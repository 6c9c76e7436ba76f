"""The demo's parts, and (slow) the whole of it with other seeds, corners and classes."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from spray.demo import fashion
from spray.demo.network import predict, small_cnn, train
from spray.demo.plant import CORNERS, CornerTag
from spray.demo.run import Demo


def test_the_embedded_images_are_fashion_mnist() -> None:
    data = fashion.load()
    assert data.images.shape == (10_000, 1, 28, 28)
    assert data.images.min() == 0 and data.images.max() == 1
    assert torch.bincount(data.labels).tolist() == [1000] * 10
    assert len(fashion.CLASSES) == 10


def test_a_damaged_file_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fashion.SHA256, fashion.LABELS, "0" * 64)
    with pytest.raises(RuntimeError, match="damaged"):
        fashion.load()


@pytest.mark.parametrize("corner", CORNERS)
def test_the_tag_is_in_its_corner_and_nowhere_else(corner: str) -> None:
    images = torch.full((2, 1, 28, 28), 0.5)
    tagged = CornerTag(label=0, corner=corner).paste(images)
    changed = (tagged != images).nonzero()[:, 2:]
    assert changed.unique(dim=0).shape[0] == 9
    top, left = changed.float().mean(0) < 14
    assert corner == f"{'top' if top else 'bottom'} {'left' if left else 'right'}"
    assert torch.equal(images, torch.full((2, 1, 28, 28), 0.5))


def test_a_share_of_the_class_is_chosen_by_seed() -> None:
    labels = torch.arange(1000) % 10
    chosen = CornerTag(label=3, share=0.2, seed=1).chosen(labels)
    assert chosen.sum() == 20 and (labels[chosen] == 3).all()
    assert torch.equal(chosen, CornerTag(label=3, share=0.2, seed=1).chosen(labels))
    assert not torch.equal(chosen, CornerTag(label=3, share=0.2, seed=2).chosen(labels))


def test_bad_tags_are_refused() -> None:
    with pytest.raises(ValueError, match="top left"):
        CornerTag(label=0, corner="middle")
    with pytest.raises(ValueError, match="share"):
        CornerTag(label=0, share=0)


def test_training_learns_and_repeats_itself() -> None:
    data = fashion.load()
    rows = (data.labels <= 1).nonzero()[:300, 0]
    images, labels = data.images[rows], data.labels[rows]

    def trained() -> nn.Module:
        return train(small_cnn(classes=2), images, labels, epochs=3, seed=5)

    first, second = trained(), trained()
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not first.training
    assert (predict(first, images) == labels).double().mean() > 0.85


CASES = [
    Demo(CornerTag(label=6, corner="top left", seed=1), seed=1),
    Demo(CornerTag(label=2, corner="top right", seed=2), seed=2),
    Demo(CornerTag(label=0, corner="bottom left", seed=3), seed=3),
    Demo(CornerTag(label=4, corner="bottom right", seed=4), seed=4),
    Demo(CornerTag(label=3, corner="top right", seed=5), seed=5),
]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_four_of_five_plants_are_found_and_no_control_is_flagged(tmp_path: Path) -> None:
    good = []
    for place, case in enumerate(CASES):
        summary = case.run(tmp_path / str(place))
        print(json.dumps(summary))
        planted, control = summary["planted"], summary["control"]
        assert isinstance(planted, dict) and isinstance(control, dict)
        good.append(
            planted["class_rank"] == 1
            and planted["cluster_rank"] == 1
            and (planted["purity"] or 0) >= 0.98
            and planted["recall"] >= 0.95
            and control["flagged"] == 0
        )
    assert sum(good) >= 4, good
