"""Blocks of samples: always of one size, in order, with the reasons of those that cannot be used."""

import socket
from multiprocessing import resource_sharer

import pytest
import torch
from audit_tools import Images

from spray.blocks import BlockReader, channels_last, first_inputs, pixel_digests, readable
from spray.data import as_audit_data


def reader(data, **options):
    audit = as_audit_data(data)
    return BlockReader(audit, 4, first_inputs(audit, len(data))[0], 3, **options)


@pytest.mark.parametrize("workers", [0, 2])
def test_blocks_come_in_order_padded_with_a_readable_input(workers):
    data = Images(10, items={5: ValueError("torn")})
    blocks = list(reader(data, workers=workers).read([[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]))
    assert [list(block.rows) for block in blocks] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert all(block.inputs.shape == (4, 1, 8, 8) for block in blocks)
    filler = data.images[0]
    expected = [data.images[:4], data.images[4:8].clone(), torch.stack([*data.images[8:], filler, filler])]
    expected[1][1] = filler
    for block, inputs in zip(blocks, expected, strict=True):
        assert torch.equal(block.inputs, inputs)
        assert block.inputs.stride() == blocks[0].inputs.stride()
    assert blocks[1].failed == {5: "ValueError: torn"}
    assert [block.labels.tolist() for block in blocks] == [[0, 1, 2, 0], [1, -1, 0, 1], [2, 0]]


class LetGo(Images):
    """In a worker, a parent takes hold of a block that is handed over, and goes: what Ctrl-C at that moment does."""

    def __getitem__(self, row: int) -> object:
        if torch.utils.data.get_worker_info():
            address, _ = resource_sharer.DupFd(0)._id
            with socket.socket(socket.AF_UNIX) as parent:
                parent.connect(address)
            resource_sharer.stop(timeout=10)
        return super().__getitem__(row)


def test_workers_tell_nothing_of_a_parent_that_let_go(capfd):
    (block,) = reader(LetGo(4), workers=1).read([[0, 1, 2, 3]])
    assert not block.failed
    assert capfd.readouterr().err == ""


def test_a_single_output_is_told_what_it_lacks():
    audit = as_audit_data(Images(3))
    block = BlockReader(audit, 4, audit.sample(0).input, 1).block([0, 1])
    assert list(block.failed) == [1]
    assert "label 1 out of range: the model has one output z" in block.failed[1]
    assert "wrap it in a model of two, (0, z)" in block.failed[1]


def test_one_channel_is_laid_out_with_channels_last_too():
    assert channels_last(torch.rand(2, 1, 5, 7)).stride() == (35, 1, 7, 1)
    assert channels_last(torch.rand(2, 3, 5, 7)).stride() == (105, 1, 21, 3)
    assert channels_last(torch.rand(2, 3, 5)).is_contiguous()


def test_the_commonest_shape_of_the_first_samples_is_the_one_expected():
    odd = (torch.zeros(1, 5, 5), 0)
    assert first_inputs(as_audit_data(Images(items={0: odd, 2: odd})), 5).shape == (3, 1, 8, 8)


def test_the_first_readable_sample_may_come_late():
    data = as_audit_data(Images(items={row: ValueError("torn") for row in range(15)}))
    assert torch.equal(first_inputs(data, 4), Images().images[15:16])


def test_no_readable_sample_names_the_first_reason():
    nan = torch.full((1, 8, 8), float("nan"))
    for items, reason in (
        ({0: ValueError("torn"), 1: KeyError("b")}, "0: ValueError: torn"),
        ({0: (nan, 0), 1: KeyError("b")}, "0: input holds NaN"),
    ):
        with pytest.raises(ValueError, match=reason):
            first_inputs(as_audit_data(Images(2, items=items)), 4)


def test_failed_rows_keep_what_is_known_of_them():
    data = Images(
        6,
        items={0: ValueError("torn"), 1: (torch.zeros(1, 5, 5), 2, {"camera": "A"}), 2: (torch.zeros(1), 7)},
    )
    data.metadata = {"camera": str}
    for targets, label in ((None, -1), ([1, 0, 0, 0], 1), (torch.tensor([2, 0, 0, 0]), 2), (["cat"] * 4, -1)):
        data.targets = targets
        block = reader(data).block(range(4))
        assert list(block.failed) == [0, 1, 2]
        assert block.labels.tolist() == [label, 2, -1, 0]
        assert block.metadata == [{}, {"camera": "A"}, {}, {}]


def test_a_reason_is_short_and_the_same_each_time():
    data = as_audit_data(Images(2, items={0: ValueError(f"{object()} {'x' * 1000}")}))
    assert readable(data, 0).startswith("ValueError: <object object at 0x…> xxx")
    assert len(readable(data, 0)) == 500


def test_digests_are_of_the_readable_rows():
    data = as_audit_data(Images(items={1: ValueError("torn")}))
    digests = pixel_digests(data, [0, 1, 2])
    assert list(digests) == [0, 2]
    assert digests[0] != digests[2]


class MuteError(Exception):
    def __str__(self):
        raise RuntimeError


def test_what_is_no_dense_tensor_and_an_error_without_words_cost_only_their_row():
    picture = torch.rand(1, 8, 8)
    nested = torch.nested.nested_tensor([torch.rand(2), torch.rand(3)], layout=torch.jagged)
    odd = {1: (picture.to_sparse(), 0), 2: (picture.to("meta"), 0), 4: MuteError(), 5: (nested, 0)}
    data = Images(8, items=odd)
    blocks = list(reader(data).read([[0, 1, 2, 3], [4, 5, 6, 7]]))
    assert blocks[0].failed == {
        1: "input of layout sparse_coo, expected a dense tensor",
        2: "input on the device meta, which has no values",
    }
    assert blocks[1].failed == {
        4: "MuteError, whose message cannot be read",
        5: "input of layout nested, expected a dense tensor",
    }
