"""Several targets of each image from one forward pass: each table is that of a run of its own."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from audit_tools import Images, contents, tiny_model

import stores
from spray.attribution import Attribution, attribute_dataset
from spray.attribution.targets import Goal, expanded
from spray.blocks import channels_last
from spray.engine import Explainer
from spray.engine.errors import BadInput

STEP = Attribution("epsilon_plus", block=4, grid=5, thumbnails=8, layers=("3",))
TABLE = "relevance/epsilon_plus"


def attribute(out, target, data=None, model=None, **changes):
    step = replace(STEP, target=target, **changes)
    return attribute_dataset(model or tiny_model(), data or Images(), out, step)


def table(run, target):
    return run.table(TABLE if target == "label" else f"{TABLE}.{target}")


TARGETS = ("label", "prediction", "rank2", 2, "label-other", "prediction-0", "label-rank1")


def test_each_table_is_that_of_a_run_of_its_own_and_the_model_runs_once(tmp_path):
    model, passes = tiny_model(), []
    together = attribute(tmp_path / "together.zarr", TARGETS)
    model[0].register_forward_hook(lambda *_: passes.append(1))
    attribute(tmp_path / "counted.zarr", TARGETS, model=model)
    assert len(passes) == 1 + 5  # the probe, and 20 samples in blocks of 4
    for target in TARGETS:
        alone = attribute(tmp_path / "alone.zarr", target)  # all in one store, one after the other
        one, other = table(together, target), table(alone, target)
        assert one.columns == other.columns and one.provenance.id == other.provenance.id
        assert one.failures == other.failures
        for column in one.columns:
            np.testing.assert_array_equal(one.read(column), other.read(column))
    assert contents(tmp_path / "alone.zarr") == contents(tmp_path / "together.zarr")
    assert together.tables() == alone.tables()


def test_a_difference_explains_both_logits(tmp_path):
    run = attribute(tmp_path / "a.zarr", ("label-other", "prediction-0"))
    logits, labels = run.samples.read("logits").astype(np.float64), np.array(Images().labels)
    masked = logits.copy()
    masked[np.arange(20), labels] = -np.inf
    own = logits[np.arange(20), labels]
    np.testing.assert_allclose(table(run, "label-other").read("start"), own - masked.max(1), atol=1e-6)
    explainer = Explainer(tiny_model(), "epsilon_plus")
    inputs = channels_last(Images().images[:4])
    contrast = table(run, "prediction-0")
    for row in range(4):
        if logits[row].argmax() == 0:
            assert contrast.failures[row].startswith("its two classes are one")
            assert np.isnan(contrast.read("sum", [row])).all()
        else:
            assert contrast.read("start", [row])[0] == pytest.approx(
                logits[row].max() - logits[row, 0], abs=1e-6
            )
    assert run.samples.failures == {}  # the sample itself is sound
    assert explainer.explain(inputs, 0).logits.shape == (4, 3)


def test_a_difference_of_a_linear_model_is_exact(tmp_path):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3, bias=False)).eval()
    step = Attribution("lrp_0", target="2-0", block=4, grid=8)
    run = attribute_dataset(model, Images(), tmp_path / "a.zarr", step)
    weight = (model[1].weight[2] - model[1].weight[0]).detach()
    expected = (Images().images.flatten(1) * weight).view(20, 8, 8)
    np.testing.assert_allclose(
        run.table("relevance/lrp_0.2-0").read("input.place"), expected, rtol=1e-4, atol=1e-7
    )


def test_without_labels_the_prediction_stands_for_them(tmp_path):
    items = {row: (Images().images[row],) for row in range(20)}
    run = attribute(tmp_path / "a.zarr", ("label", "prediction", "label-other"), Images(items=items))
    np.testing.assert_array_equal(table(run, "label").read("target"), run.samples.read("prediction"))
    np.testing.assert_array_equal(
        table(run, "label").read("input.place"), table(run, "prediction").read("input.place")
    )


def test_a_target_that_is_added_later_joins_and_what_is_there_is_not_computed_again(tmp_path):
    attribute(tmp_path / "a.zarr", "label")
    before = contents(tmp_path / "a.zarr")
    run = attribute(tmp_path / "a.zarr", ("label", "prediction"))
    assert before.items() <= contents(tmp_path / "a.zarr").items()
    assert table(run, "prediction").complete and stores.check(run.path) == []


def test_the_top_is_every_rank_of_it(tmp_path):
    assert expanded("top3") == ("rank1", "rank2", "rank3")
    run = attribute(tmp_path / "a.zarr", "top2")
    order = np.argsort(-run.samples.read("logits"), axis=1, kind="stable")
    for rank in (1, 2):
        np.testing.assert_array_equal(table(run, f"rank{rank}").read("target"), order[:, rank - 1])


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("lable", "there are label, prediction, rankK"),
        ("rank0", "there are"),
        ("top", "there are"),
        ("other", "nothing to compare"),
        ("label-label", "nothing to compare"),
        ("label-", "there are"),
        ("1-2-3", "there are"),
        ("²", "there are"),
        ((), "name at least one"),
        (("top2", "rank1"), "each once"),
        ((3, "3"), "each once"),
    ],
)
def test_targets_that_make_no_sense(target, words):
    with pytest.raises(BadInput, match=words):
        Attribution(target=target)


def test_what_the_model_cannot_give_is_refused_before_anything_is_written(tmp_path):
    for target in ("rank4", 3, "label-3", -1):
        with pytest.raises(BadInput):
            attribute(tmp_path / "a.zarr", target)
    with pytest.raises(BadInput, match="leave start out"):
        attribute(tmp_path / "a.zarr", "label-other", start="unit")
    assert not (tmp_path / "a.zarr").exists()


def test_one_target_is_one_whatever_way_it_is_given():
    assert Attribution(target=("label",)) == Attribution(target="label")
    assert Goal.parse(3) == Goal.parse("3")
