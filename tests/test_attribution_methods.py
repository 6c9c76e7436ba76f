"""Other methods through the same door: stored, checked, analysed and compared like relevance of the engine's own."""

import numpy as np
import pytest
import torch
from audit_tools import Images, contents, tiny_model

import spray
import stores
from spray.analysis import Analysis, analyze
from spray.attribution import Attribution, attribute_dataset
from spray.blocks import channels_last
from spray.engine.errors import BadInput
from spray.engine.methods import Captum, Function
from spray.findings import find

STEP = {"block": 4, "grid": 8, "thumbnails": 8}
QUICK = Analysis(picture="none")


def occluded(model, inputs, targets):
    """How far the target's logit falls when a quarter of the image is blanked."""
    relevance = torch.zeros_like(inputs)
    with torch.no_grad():
        before = model(inputs).gather(1, targets[:, None])[:, 0]
        for y in (0, 4):
            for x in (0, 4):
                blanked = inputs.clone()
                blanked[:, :, y : y + 4, x : x + 4] = 0
                fall = before - model(blanked).gather(1, targets[:, None])[:, 0]
                relevance[:, :, y : y + 4, x : x + 4] = fall[:, None, None, None] / 16
    return relevance


def test_a_function_is_stored_and_analysed_beside_a_composite(tmp_path):
    out = tmp_path / "a.zarr"
    attribute_dataset(tiny_model(), Images(), out, Attribution("epsilon_plus", **STEP))
    step = Attribution(Function("occlusion", occluded, "1"), **STEP)
    run = attribute_dataset(tiny_model(), Images(), out, step)
    assert run.tables() == ["samples", "relevance/epsilon_plus", "relevance/occlusion"]
    table = run.table("relevance/occlusion")
    expected = occluded(tiny_model(), Images().images, torch.tensor(Images().labels))[:, 0]
    np.testing.assert_allclose(table.read("input.place"), expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(table.read("sum"), expected.sum((1, 2)), rtol=1e-3, atol=1e-5)
    composite = table.provenance.steps[1]["composite"]
    assert (composite["name"], composite["version"]) == ("occlusion", "1") and "function" not in composite
    handle = analyze(run, QUICK, relevance="relevance/occlusion")
    assert [handle.read(group).status for group in handle.groups] == ["ok"] * 3
    find(run, handle)
    before = contents(out)
    attribute_dataset(tiny_model(), Images(), out, step)
    assert contents(out) == before and stores.check(out) == []
    with pytest.raises(stores.StoreError, match=r'composite\.version .stored "1", now "2"'):
        attribute_dataset(
            tiny_model(), Images(), out, Attribution(Function("occlusion", occluded, "2"), **STEP)
        )


def test_an_attributor_of_captum_goes_through_the_whole_audit(tmp_path):
    captum = pytest.importorskip("captum.attr", reason="captum is not installed")
    method = Captum("IntegratedGradients", {"n_steps": 8})
    step = Attribution(method, target=("label", "prediction"), **STEP)
    audit = spray.audit(tiny_model(), Images(36), tmp_path / "a.zarr", attribution=step, analysis=QUICK)
    table = audit.run.table("relevance/captum.IntegratedGradients")
    images, labels = channels_last(Images(36).images[:4]), torch.tensor(Images(36).labels[:4])
    peer = captum.IntegratedGradients(tiny_model()).attribute(images, target=labels, n_steps=8)
    np.testing.assert_allclose(
        table.read("input.place", slice(0, 4)), peer[:, 0].detach(), rtol=1e-3, atol=1e-6
    )
    assert audit.run.table("relevance/captum.IntegratedGradients.prediction").complete
    assert table.provenance.steps[1]["composite"]["settings"] == {"n_steps": 8}
    assert audit.report().stat().st_size > 10_000


def test_a_method_whose_maps_are_no_maps_is_refused_and_holes_cost_their_rows(tmp_path):
    wrong = Function("wrong", lambda model, inputs, targets: inputs.sum(1))
    with pytest.raises(BadInput, match="wrong returned shape"):
        attribute_dataset(tiny_model(), Images(), tmp_path / "a.zarr", Attribution(wrong, **STEP))
    assert not (tmp_path / "a.zarr").exists()

    def holes(model, inputs, targets):
        relevance = inputs.clone()
        relevance[inputs.amax((1, 2, 3)) >= Images().images[6].amax()] = float("nan")
        return relevance

    run = attribute_dataset(
        tiny_model(), Images(), tmp_path / "b.zarr", Attribution(Function("holes", holes), **STEP)
    )
    failures = run.table("relevance/holes").failures
    brightest = Images().images.amax((1, 2, 3)) >= Images().images[6].amax()
    assert list(failures) == torch.nonzero(brightest).flatten().tolist() and 6 in failures


def test_several_targets_of_a_function_and_no_layers(tmp_path):
    step = Attribution(Function("occlusion", occluded), target="top2", **STEP)
    run = attribute_dataset(tiny_model(), Images(), tmp_path / "a.zarr", step)
    order = np.argsort(-run.samples.read("logits"), axis=1)
    np.testing.assert_array_equal(run.table("relevance/occlusion.rank2").read("target"), order[:, 1])
    with pytest.raises(BadInput, match="gives relevance to inputs only"):
        attribute_dataset(
            tiny_model(),
            Images(),
            tmp_path / "b.zarr",
            Attribution(Function("f", occluded), layers=("3",), **STEP),
        )


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_baselines_of_captum_are_stored_by_their_digest_and_others_are_another_method(tmp_path):
    pytest.importorskip("captum.attr", reason="captum is not installed")

    def step(value):
        baselines = torch.full((2, *channels_last(Images().images).shape[1:]), value)
        return Attribution(Captum("GradientShap", {"baselines": baselines, "n_samples": 2}), **STEP)

    run = attribute_dataset(tiny_model(), Images(), tmp_path / "a.zarr", step(0.0))
    record = run.table("relevance/captum.GradientShap").provenance.steps[1]["composite"]["settings"][
        "baselines"
    ]
    assert record["shape"][0] == 2 and len(record["sha256"]) == 64
    before = contents(tmp_path / "a.zarr")
    attribute_dataset(tiny_model(), Images(), tmp_path / "a.zarr", step(0.0))
    assert contents(tmp_path / "a.zarr") == before
    with pytest.raises(stores.StoreError, match=r"baselines\.sha256"):
        attribute_dataset(tiny_model(), Images(), tmp_path / "a.zarr", step(0.5))


def test_a_bare_function_is_told_how_a_store_can_know_it():
    for bare in (occluded, lambda model, inputs, targets: inputs):
        with pytest.raises(BadInput, match=r"Function\('mine', the_function, version='1'\)"):
            Attribution(bare)
    with pytest.raises(TypeError, match="convolution=rule"):
        Attribution(None)
