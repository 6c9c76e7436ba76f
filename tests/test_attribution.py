"""The attribution stage: what stands in the store is the engine's, bad samples cost themselves, nothing is lost."""

import weakref
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pytest
import torch
from audit_tools import CLASSES, Images, contents, tiny_model
from torch import nn

import stores
from spray.attribution import Attribution, attribute_dataset, attribute_share
from spray.attribution.passes import Passes
from spray.attribution.pixels import CHANGED
from spray.attribution.pooling import pooling_matrix
from spray.blocks import channels_last
from spray.engine import Explainer
from spray.engine.composites import Composite
from spray.engine.errors import AttributionError, BadInput, BadModel, UnsupportedOperation
from spray.engine.rules import Epsilon, Flat, ZPlus

SMALL = Attribution(block=4, grid=5, thumbnails=8, layers=("3",))
TABLE = "relevance/epsilon_plus_flat"


def attribute(out, data=None, step=SMALL, model=None, **options):
    return attribute_dataset(model or tiny_model(), Images() if data is None else data, out, step, **options)


def explained(rows, targets, composite="epsilon_plus_flat", layers=("3",)):
    inputs = channels_last(Images().images[rows])
    return Explainer(tiny_model(), composite, layers).explain(inputs, targets)


def test_the_store_holds_the_engines_relevance_pooled(tmp_path):
    run = attribute(tmp_path / "a.zarr")
    table = run.table(TABLE)
    rows = slice(8, 12)
    explanation = explained(rows, torch.tensor(Images().labels[rows]))
    matrix = pooling_matrix(8, 5)
    pooled = matrix @ explanation.relevance.sum(1) @ matrix.T
    np.testing.assert_allclose(table.read("input.place", rows), pooled.numpy(), rtol=1e-5, atol=1e-9)
    layer = explanation.layers["3"]
    np.testing.assert_array_equal(table.read("3.channel", rows), layer.flatten(2).sum(2).numpy())
    np.testing.assert_array_equal(table.read("3.place", rows), layer.sum(1).numpy())
    for name, values in explanation.checks.items():
        np.testing.assert_array_equal(table.read(name, rows), values.numpy())
    sums = table.read("input.place").astype(np.float64).sum((1, 2))
    np.testing.assert_allclose(sums, table.read("sum"), rtol=1e-5, atol=1e-5)
    assert run.classes == CLASSES
    np.testing.assert_array_equal(run.samples.read("label"), Images().labels)
    np.testing.assert_array_equal(run.samples.read("logits", rows), explanation.logits.numpy())
    np.testing.assert_array_equal(run.samples.read("prediction"), run.samples.read("logits").argmax(1))


@pytest.mark.parametrize("target", ["label", "prediction", 2])
def test_targets(tmp_path, target):
    items = {row: (Images().images[row],) for row in (5, 6)}
    run = attribute(tmp_path / "a.zarr", Images(items=items), replace(SMALL, target=target))
    prediction, labels = run.samples.read("prediction"), np.array(Images().labels)
    expected = {"label": labels.copy(), "prediction": prediction, 2: np.full(20, 2)}[target]
    if target == "label":
        expected[5:7] = prediction[5:7]  # without a label the prediction is explained
    (table,) = (run.table(name) for name in run.tables() if name != "samples")
    np.testing.assert_array_equal(table.read("target"), expected)
    np.testing.assert_array_equal(run.samples.read("label", [4, 5, 6]), [1, -1, -1])
    assert table.name == TABLE + ("" if target == "label" else f".{target}")
    logits = run.samples.read("logits")
    np.testing.assert_allclose(table.read("start"), logits[np.arange(20), expected], rtol=1e-6)


def test_an_interrupted_run_goes_on_to_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr("spray.attribution.stage.SHARDS_AT_LEAST", 2)  # two blocks in each of two shards
    data, step = Images(12), replace(SMALL, block=3)
    whole = attribute(tmp_path / "whole.zarr", data, step)
    assert len(whole.samples.shards) == 2
    expected = contents(tmp_path / "whole.zarr")

    class InterruptionError(Exception):
        pass

    for stop in range(5):  # at the start, and after each of the four blocks
        out = tmp_path / f"{stop}.zarr"

        def interrupt(done, total, what, failed, stop=stop):
            if done >= 3 * stop:
                raise InterruptionError

        with pytest.raises(InterruptionError):
            attribute(out, data, step, report=interrupt)
        committed = 12 - 6 * len(stores.open(out).table(TABLE).missing())
        begun = []
        attribute(out, data, step, report=lambda *it, begun=begun: begun.append(it[0]))
        assert begun[0] == committed == (6 if stop > 2 else 0)  # nothing that was committed is computed again
        assert contents(out) == expected


def test_reading_ahead_in_other_processes_gives_the_same_bytes(tmp_path):
    data = Images(items={6: ValueError("torn")})
    attribute(tmp_path / "here.zarr", data)
    attribute(tmp_path / "there.zarr", data, replace(SMALL, workers=2))
    assert contents(tmp_path / "there.zarr") == contents(tmp_path / "here.zarr")


GOOD = Images().images[6]
TROUBLE = {
    "shape": ((GOOD[:, :7], 0), "input of shape (1, 7, 8), expected (1, 8, 8)"),
    "corrupt": (ValueError("file <open at 0x7f12ab> is torn"), "ValueError: file <open at 0x…> is torn"),
    "label too large": ((GOOD, 3), "label 3 out of range: the model has 3 classes"),
    "label too small": ((GOOD, -2), "label -2 out of range"),
    "fractional label": ((GOOD, 0.5), "label 0.5 is no class index"),
    "not a number": ((GOOD.clone().fill_(float("nan")), 0), "input holds NaN or infinity"),
    "integers": (((GOOD * 255).to(torch.uint8), 0), "input of dtype uint8, expected floating point"),
    "not a tensor": ((GOOD.numpy(), 0), "item holds ndarray; expected a tensor"),
    "too many parts": ((GOOD, 0, {}, {}), "item has 4 parts"),
    "overflowing": ((GOOD.clone().fill_(3e38), 0), "the model's output for it is not finite"),
}


def test_a_bad_sample_is_a_counted_failed_row_and_the_others_do_not_notice(tmp_path):
    reasons = {2 * place: reason for place, (_, reason) in enumerate(TROUBLE.values())}
    items = {2 * place: item for place, (item, _) in enumerate(TROUBLE.values())}
    data = Images(items=items), Images()
    for images in data:
        images.mean, images.std = (0.5,), (0.5,)
    model = tiny_model()
    with torch.no_grad():
        model[0].weight.mul_(10)  # the largest inputs overflow
    run = attribute(tmp_path / "bad.zarr", data[0], model=model)
    sound = attribute(tmp_path / "good.zarr", data[1], model=model)
    others = np.setdiff1d(np.arange(20), list(items))
    for name in run.tables():
        table = run.table(name)
        assert list(table.failures) == list(items)
        assert table.complete
        for row, reason in table.failures.items():
            assert reasons[row] in reason
        for column in table.columns:
            np.testing.assert_array_equal(table.read(column, others), sound.table(name).read(column, others))
    assert np.isnan(run.table(TABLE).read("input.place", list(items))).all()
    assert run.samples.read("id").tolist() == [str(row) for row in range(20)]


def test_relevance_that_is_not_finite_fails_the_row_but_keeps_the_sample(tmp_path):
    class Steep(nn.Module):
        """Its gradient is infinite at 0, its output is not."""

        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(64, 3)

        def forward(self, x):
            return self.linear(x.flatten(1).sqrt())

    image = GOOD.clone()
    image[0, 0, 0] = 0
    step = Attribution(composite="gradient", block=4)
    run = attribute(tmp_path / "a.zarr", Images(items={6: (image, 0)}), step, Steep().eval())
    assert run.table("relevance/gradient").failures == {6: "its relevance is not finite"}
    assert run.samples.failures == {}


class Transformed(nn.Module):
    def forward(self, x):
        return torch.fft.fft(x.flatten(1)).real[:, :3]


def test_what_cannot_be_explained_is_refused_before_anything_is_written(tmp_path):
    poisoned, training = tiny_model(), tiny_model()
    with torch.no_grad():
        poisoned[3].weight[0, 0, 0, 0] = float("nan")
    training.insert(1, nn.BatchNorm2d(4))
    out = tmp_path / "a.zarr"
    plain = replace(SMALL, layers=())
    for model, error, words in (
        (poisoned, BadModel, "NaN"),
        (training.train(), BadModel, "model.eval"),
        (Transformed().eval(), UnsupportedOperation, "fft"),
        (tiny_model(classes=4), AttributionError, "3 classes and the model has 4 outputs"),
        (tiny_model().double(), AttributionError, r"model\.float\(\)"),
    ):
        with pytest.raises(error, match=words):
            attribute(out, step=plain, model=model)
    for data, words in (
        (Images(0), "no samples"),
        (Images(2, items={0: ValueError("torn"), 1: ValueError("lost")}), "0: ValueError: torn"),
        (Images(2, items={0: (GOOD > 0, 0), 1: (GOOD > 0, 0)}), "dtype bool, expected floating point"),
    ):
        with pytest.raises(AttributionError, match=words):
            attribute(out, data)
    for step, words in (
        ({"target": "lable"}, "target is 'lable'; there are label, prediction, rankK"),
        ({"target": 3}, "classes 0 to 2"),
        ({"layers": ("9",)}, "no module '9'"),
        ({"layers": ("3@first",)}, "only 'last'"),
        ({"layers": ("3", "3")}, "name each once"),
        ({"block": -1}, "at least 0"),
        ({"grid": 0}, "at least 1"),
        ({"composite": "lrp"}, "epsilon_plus_flat"),
        ({"start": "one"}, "'logit', 'unit'"),
    ):
        with pytest.raises((BadInput, ValueError), match=words):
            attribute(out, step=replace(SMALL, **step))
    assert not out.exists()


def test_random_augmentation_is_refused(tmp_path):
    class Flipped(Images):
        def __getitem__(self, row):
            image, label = super().__getitem__(row)
            return (image.flip(2) if torch.rand(()) < 0.5 else image), label

    torch.manual_seed(0)
    with pytest.raises(AttributionError, match="without random augmentation"):
        attribute(tmp_path / "a.zarr", Flipped())


def test_another_model_data_set_or_configuration_is_refused_and_the_store_left_as_it_was(tmp_path):
    out = tmp_path / "a.zarr"
    run = attribute(out)
    before = contents(out)
    renamed, brighter = Images(), Images()
    renamed.ids = [f"r{row}" for row in range(20)]
    brighter.images = brighter.images * 0.9
    brighter.images[0, 0, 0, 0], brighter.images[0, 0, 0, 1] = Images().images.min(), Images().images.max()
    other = Composite("epsilon_plus_flat", ZPlus(), Epsilon(0.5))
    for options, words in (
        ({"model": tiny_model(seed=1)}, r"differs in provenance\.model"),
        ({"data": Images(16)}, r"samples \(stored 20, now 16\)"),
        ({"data": renamed}, r"differs in provenance\.data"),
        ({"data": brighter}, "made from other pixels under the same ids"),
        ({"step": replace(SMALL, grid=4)}, r"Attribution\.grid \(stored 5, now 4\)"),
        ({"step": replace(SMALL, start="unit")}, r'Attribution\.start \(stored "logit", now "unit"\)'),
        ({"step": replace(SMALL, layers=("0",))}, r"Attribution\.layers"),
        ({"step": replace(SMALL, block=5)}, r"block \(stored 4, now 5\)"),
        ({"step": replace(SMALL, composite=other)}, r"Attribution\.composite"),
    ):
        with pytest.raises((stores.StoreError, AttributionError), match=words):
            attribute(out, **options)
        assert contents(out) == before
    assert run.table(TABLE).complete
    attribute(out)
    assert contents(out) == before


def test_a_model_of_the_same_weights_that_computes_otherwise_is_refused(tmp_path):
    """Its digest is that of its class and weights: another activation or stride does not show there."""
    out, other = tmp_path / "a.zarr", tiny_model()
    attribute(out)
    before = contents(out)
    place = next(name for name, module in other.named_modules() if isinstance(module, nn.ReLU))
    setattr(other, place, nn.GELU())
    for step in (SMALL, replace(SMALL, composite="gradient_x_input")):
        with pytest.raises(AttributionError, match="gives other logits for the same samples"):
            attribute(out, model=other, step=step)
    assert contents(out) == before


def test_an_image_that_changed_gets_no_relevance_beside_the_sample_of_then(tmp_path):
    """Its map would be of one picture, its label, logits and thumbnail of another."""
    out, data = tmp_path / "a.zarr", Images()
    attribute(out, data)
    before = stores.open(out).table(TABLE).read("input.place")
    data.images[13] = data.images[13].flip(1)
    (out / f"ledger/commits/{TABLE}/3.json").unlink()
    run = attribute(out, data)
    assert run.table(TABLE).failures == {13: CHANGED}
    second = attribute(out, data, step=replace(SMALL, composite="gradient_x_input"))
    assert second.table("relevance/gradient_x_input").failures == {13: CHANGED}
    kept = np.delete(np.arange(20), 13)
    np.testing.assert_array_equal(run.table(TABLE).read("input.place", kept), before[kept])
    assert stores.check(out) == []
    data.images[12:16] = data.images[12:16].flip(3)
    (out / f"ledger/commits/{TABLE}/3.json").unlink()
    with pytest.raises(AttributionError, match="other pixels under the same ids"):
        attribute(out, data)


def test_samples_of_changed_images_are_not_written_beside_the_relevance_of_then(tmp_path):
    out, data = tmp_path / "a.zarr", Images()
    attribute(out, data)
    before = contents(out)
    (out / "ledger/commits/samples/3.json").unlink()
    pixels, data.images = data.images, data.images.clone()
    data.images[13] = data.images[13].flip(1)
    with pytest.raises(AttributionError, match="give the images of then"):
        attribute(out, data)
    data.images = pixels
    attribute(out, data)
    assert contents(out) == before


def test_a_sample_that_failed_once_gets_no_relevance_later(tmp_path):
    out = tmp_path / "a.zarr"
    attribute(out, Images(items={5: ValueError("torn")}))
    run = attribute(out, Images(), step=replace(SMALL, composite="gradient_x_input"))
    assert run.table("relevance/gradient_x_input").failures == {5: "ValueError: torn"}


def test_a_second_composite_joins_the_same_store(tmp_path):
    out = tmp_path / "a.zarr"
    attribute(out)
    before = contents(out)
    mine = Composite("mine", convolution=ZPlus(), linear=Epsilon(0.1), first=Flat())
    attribute(out, step=replace(SMALL, composite="gradient_x_input"))
    run = attribute(out, step=replace(SMALL, composite=mine))
    assert run.tables() == ["samples", TABLE, "relevance/gradient_x_input", "relevance/mine"]
    assert before.items() <= contents(out).items()
    rows = slice(0, 4)
    for composite in ("gradient_x_input", mine):
        explanation = explained(rows, torch.tensor(Images().labels[rows]), composite)
        table = run.table(f"relevance/{getattr(composite, 'name', composite)}")
        np.testing.assert_array_equal(
            table.read("3.channel", rows), explanation.layers["3"].flatten(2).sum(2).numpy()
        )


def test_full_maps_on_request(tmp_path):
    run = attribute(tmp_path / "a.zarr", Images(channels=2), replace(SMALL, full=True), tiny_model(2))
    table = run.table(TABLE)
    full, place = table.read("input.full"), table.read("input.place")
    assert table.columns["input.full"].axes == ("channel", "y", "x")
    matrix = pooling_matrix(8, 5).numpy()
    np.testing.assert_allclose(matrix @ full.sum(1) @ matrix.T, place, atol=2e-3 * np.abs(place).max())


def test_memory_holds_a_few_blocks_whatever_the_size_of_the_data_set(tmp_path):
    alive, counts = weakref.WeakSet(), []

    class Counted(Images):
        def __getitem__(self, row):
            image, label = super().__getitem__(row)
            copy = image.clone()
            alive.add(copy)
            counts.append(len(alive))
            return copy, label

    attribute(tmp_path / "a.zarr", Counted(96))
    assert len(counts) > 96
    assert max(counts) <= 2 * SMALL.block


def test_metadata_is_typed_and_absence_is_not_zero(tmp_path):
    image = Images().images[0]
    facts = {
        0: (image, 0, {"camera": "A", "width": 640, "gain": 1.5}),
        1: (image, 0, {}),
        2: (image, 0, {"width": "wide"}),
        3: (image, 0, {"width": 2**70}),
        4: (image, 0, ["camera"]),
    }
    data = Images(items=facts)
    data.metadata = {"camera": str, "width": int, "gain": float}
    samples = attribute(tmp_path / "a.zarr", data).samples
    assert samples.read("meta.camera", [0, 1]).tolist() == ["A", ""]
    assert samples.read("meta.width", [0, 1]).tolist() == [640, -1]
    np.testing.assert_array_equal(samples.read("meta.gain", [0, 1]), [1.5, np.nan])
    assert "metadata 'width' is 'wide', expected a 64-bit int" in samples.failures[2]
    assert "expected a 64-bit int" in samples.failures[3]
    assert "expected metadata" in samples.failures[4]
    assert len(samples.failures) == 3
    data.metadata = {"width": bool}
    with pytest.raises(BadInput, match="str, int or float"):
        attribute(tmp_path / "b.zarr", data)


class TokenNet(nn.Module):
    """Patches as tokens, as in a vision transformer."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(1, 5, 2, 2)
        self.mix = nn.Linear(5, 5)
        self.last = nn.Identity()
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        tokens = self.mix(self.patches(x).flatten(2).transpose(1, 2))
        grid = self.last(tokens.unflatten(1, (4, 4)))  # channels last, as in Swin
        return self.head(grid.mean((1, 2)))


def test_tokens_and_layers_with_channels_last(tmp_path):
    torch.manual_seed(0)
    model = TokenNet().eval()
    step = Attribution("epsilon_plus", block=4, grid=3, layers=("patches", "mix", "last@last"))
    run = attribute(tmp_path / "a.zarr", step=step, model=model)
    table = run.table("relevance/epsilon_plus")
    shapes = {name: (column.shape, column.axes) for name, column in table.columns.items() if "." in name}
    assert shapes == {
        "input.place": ((3, 3), ("y", "x")),
        "patches.channel": ((5,), ("channel",)),
        "patches.place": ((3, 3), ("y", "x")),
        "mix.channel": ((5,), ("channel",)),
        "mix.place": ((3,), ("token",)),
        "last.channel": ((5,), ("channel",)),
        "last.place": ((3, 3), ("y", "x")),
    }
    np.testing.assert_allclose(table.read("mix.channel"), table.read("last.channel"), rtol=1e-5, atol=1e-6)
    for name in ("patches", "mix", "last"):
        np.testing.assert_allclose(
            table.read(f"{name}.channel").sum(1),
            table.read(f"{name}.place").reshape(20, -1).sum(1),
            rtol=1e-4,
            atol=1e-5,
        )


@pytest.mark.parametrize(
    ("shape", "model", "place", "full"),
    [
        ((7,), nn.Linear(7, 3), ("feature",), ("feature",)),
        (
            (2, 31),
            nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(116, 3)),
            ("y", "x"),
            ("channel", "x"),
        ),
        (
            (1, 2, 4, 6),
            nn.Sequential(nn.Flatten(), nn.Linear(48, 3)),
            ("z", "y", "x"),
            ("channel", "z", "y", "x"),
        ),
    ],
    ids=["vectors", "signals", "volumes"],
)
def test_inputs_that_are_no_pictures(tmp_path, shape, model, place, full):
    torch.manual_seed(0)
    data = [(torch.rand(shape), row % 3) for row in range(6)]
    step = Attribution("epsilon_plus", block=4, grid=10, full=True)
    run = attribute(tmp_path / "a.zarr", data, step, model.eval())
    table = run.table("relevance/epsilon_plus")
    assert table.columns["input.place"].axes == place
    assert table.columns["input.full"].axes == full
    sums = table.read("input.place").reshape(6, -1).sum(1)
    np.testing.assert_allclose(sums, table.read("sum"), rtol=1e-4, atol=1e-5)
    assert run.classes == ("0", "1", "2")
    assert ("thumbnail" in run.samples.columns) == (len(shape) == 2)


def test_thumbnails_show_the_pictures_as_they_were_before_normalisation(tmp_path):
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.1)
    pictures = torch.rand(8, 3, 8, 8) * torch.linspace(0.05, 1, 8)[:, None, None, None]  # dark to bright
    scale = torch.tensor(std)[:, None, None], torch.tensor(mean)[:, None, None]
    data = Images(8, channels=3)
    data.images = (pictures - scale[1]) / scale[0]
    data.mean, data.std = mean, std
    run = attribute(tmp_path / "a.zarr", data, model=tiny_model(3))
    expected = (pictures * 255).round().permute(0, 2, 3, 1).numpy()
    thumbnails = run.samples.read("thumbnail").astype(int)
    assert np.abs(thumbnails - expected).max() <= 1
    assert thumbnails[0].max() < 20


def test_a_normalisation_for_another_number_of_channels_is_refused(tmp_path):
    data = Images()
    data.mean, data.std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.1)
    with pytest.raises(BadInput, match="inputs have 1 channels"):
        attribute(tmp_path / "a.zarr", data)
    assert not (tmp_path / "a.zarr").exists()


def test_the_model_is_left_as_it_was(tmp_path):
    model = tiny_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    parameters = [id(parameter) for parameter in model.parameters()]
    attribute(tmp_path / "a.zarr", model=model)
    assert [id(parameter) for parameter in model.parameters()] == parameters
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The store that one undisturbed process makes: five shards of four rows."""
    out = tmp_path_factory.mktemp("alone") / "a.zarr"
    attribute(out)
    return out


def test_a_shard_that_another_process_has_written_meanwhile_is_passed_over(alone, tmp_path):
    out, meanwhile = tmp_path / "a.zarr", iter([2])

    def report(*_):
        for share in meanwhile:
            attribute_share(tiny_model(), Images(), out, SMALL, share=share, of=5)

    run = attribute(out, report=report)
    assert contents(out) == contents(alone)
    assert run.samples.read("id").tolist() == stores.open(alone).samples.read("id").tolist()


def test_a_shard_that_is_being_written_is_put_off_to_the_end(alone, tmp_path):
    out = tmp_path / "a.zarr"
    run = attribute_share(tiny_model(), Images(), out, SMALL, share=0, of=5)
    with ExitStack() as claims:
        claims.enter_context(run.table(TABLE).claim(1))
        attribute(out, report=lambda done, *_: claims.close() if done >= 16 else None)
    assert contents(out) == contents(alone)


def test_a_shard_that_stays_busy_costs_only_itself(alone, tmp_path):
    out = tmp_path / "a.zarr"
    run = attribute_share(tiny_model(), Images(), out, SMALL, share=0, of=5)
    with (
        run.table(TABLE).claim(1),
        pytest.raises(stores.StoreBusy, match=r"1 of 5 shards were left to others"),
    ):
        attribute(out)
    assert run.table(TABLE).missing() == [1]
    attribute(out)
    assert contents(out) == contents(alone)


def test_two_composites_at_once_wait_for_each_others_samples(alone, tmp_path, monkeypatch):
    out = tmp_path / "a.zarr"
    run = attribute_share(tiny_model(), Images(), out, SMALL, share=0, of=5)
    with ExitStack() as claims:
        claims.enter_context(run.samples.claim(1))
        monkeypatch.setattr("spray.attribution.stage.time.sleep", lambda _: claims.close())
        attribute(out)
    assert contents(out) == contents(alone)
    monkeypatch.setattr("spray.attribution.stage.PATIENCE", 0)
    run = attribute_share(tiny_model(), Images(), tmp_path / "b.zarr", SMALL, share=0, of=5)
    with run.samples.claim(1), pytest.raises(stores.StoreBusy, match="samples/1 is being written"):
        attribute(tmp_path / "b.zarr")


def test_maps_that_are_one_number_everywhere_are_refused(tmp_path):
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 3)).eval()
    step = Attribution(block=4, grid=4, thumbnails=8)
    with pytest.raises(
        AttributionError, match=r"one number at every place.*epsilon_plus or gradient_x_input"
    ):
        attribute(tmp_path / "a.zarr", step=step, model=dense)
    assert not (tmp_path / "a.zarr").exists()
    for composite in ("epsilon_plus", "gradient_x_input"):
        run = attribute(tmp_path / "a.zarr", step=replace(step, composite=composite), model=dense)
        assert np.ptp(run.table(f"relevance/{composite}").read("input.place"), axis=(1, 2)).min() > 0


def test_one_blank_picture_does_not_refuse_the_others(tmp_path):
    """Without padding and overlap a blank picture's map by the flat rule is one number at every place."""
    torch.manual_seed(0)
    patches = nn.Sequential(
        nn.Conv2d(1, 4, 4, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    ).eval()
    images = Images()
    images.images[0] = 0.5
    run = attribute(
        tmp_path / "a.zarr", data=images, model=patches, step=Attribution(block=4, grid=4, thumbnails=8)
    )
    spread = np.ptp(run.table(TABLE).read("input.place"), axis=(1, 2))
    assert spread[0] < 1e-6 < spread[1:].min()


def test_samples_alone_are_computed_by_one_target(tmp_path, monkeypatch):
    step = replace(SMALL, target=("label", "prediction"))
    before = contents(attribute(tmp_path / "a.zarr", step=step).path)
    stores.open(tmp_path / "a.zarr", "r+").samples.take_back(1)
    asked, explain = [], Passes.explain
    monkeypatch.setattr(
        Passes, "explain", lambda self, *given: asked.append(given[2:]) or explain(self, *given)
    )
    attribute(tmp_path / "a.zarr", step=step)
    assert [list(wanted) for (wanted,) in filter(None, asked)] == [["label"]]
    assert contents(tmp_path / "a.zarr") == before


@pytest.mark.parametrize(
    ("count", "block", "rows"), [(20, 4, 4), (64, 8, 8), (72, 8, 8), (79, 1, 10), (12, 100, 100)]
)
def test_small_data_sets_are_cut_into_eight_shards_or_more(tmp_path, count, block, rows):
    model, step = tiny_model(), replace(SMALL, block=block, layers=())
    samples = attribute(tmp_path / "a.zarr", Images(count), step, model).samples
    assert samples.rows_per_shard == min(rows, count)
    assert len(samples.shards) >= min(8, -(-count // block))
