"""Any map-style data set as audit data: what it says about itself, what is given, what is refused."""

import numpy as np
import pytest
import torch
from audit_tools import Images
from torch.utils.data import IterableDataset, Subset, TensorDataset

from spray.data import AuditData, Sample, as_audit_data, data_digest, input_digest, known_label


class Folder(Images):
    """As torchvision's ``ImageFolder``: classes, and samples that are (path, label)."""

    root = "/somewhere/photos"

    def __init__(self, root=root):
        super().__init__(4)
        self.root = root
        self.samples = [(f"{root}/c{row % 3}/{row}.jpg", row % 3) for row in range(4)]


def test_a_data_set_says_what_it_is():
    data = as_audit_data(Folder())
    assert isinstance(data, AuditData)
    assert data.classes == ("round", "square", "long")
    assert list(data.ids) == ["c0/0.jpg", "c1/1.jpg", "c2/2.jpg", "c0/3.jpg"]
    sample = data.sample(2)
    assert torch.equal(sample.input, Folder().images[2])
    assert sample.label == 2
    assert as_audit_data(data) is data


def test_ids_do_not_tell_where_a_copy_of_the_data_lies():
    assert data_digest(as_audit_data(Folder())) == data_digest(as_audit_data(Folder("/elsewhere")))


def test_what_is_given_goes_before_what_the_data_set_says():
    data = as_audit_data(Folder(), classes=["a", "b", "c"], ids=["p", "q", "r", "r"], mean=0.5, std=[0.1])
    assert data.classes == ("a", "b", "c")
    assert list(data.ids) == ["p", "q", "r", "r"]
    assert (data.mean, data.std) == ((0.5,), (0.1,))
    with pytest.raises(ValueError, match="its own classes and ids"):
        as_audit_data(data, classes=["a"], ids=["b"])


def test_a_subset_asks_the_data_set_it_is_taken_from():
    data = as_audit_data(Subset(Subset(Folder(), [3, 1, 0]), [2, 0]))
    assert data.classes == ("round", "square", "long")
    assert list(data.ids) == ["c0/0.jpg", "c0/3.jpg"]
    assert torch.equal(data.sample(1).input, Folder().images[3])
    plain = Images()
    plain.targets = torch.arange(20)
    data = as_audit_data(Subset(plain, [7, 2]))
    assert list(data.ids) == ["7", "2"]
    assert [known_label(data, row) for row in (0, 1, 2)] == [7, 2, -1]
    assert list(as_audit_data(Subset(plain, [])).ids) == []


def test_methods_that_happen_to_have_a_facts_name_say_nothing():
    data = as_audit_data(torch.rand(5, 1, 8, 8))  # an array has mean and std, too
    assert (data.mean, data.std, data.classes) == (None, None, ())
    assert list(data.ids) == ["0", "1", "2", "3", "4"]


def test_synonyms_of_a_class_are_one_name():
    images = Images()
    images.classes = [("tench", "Tinca tinca"), ("goldfish",), 7]
    assert as_audit_data(images).classes == ("tench, Tinca tinca", "goldfish", "7")


@pytest.mark.parametrize(
    ("label", "expected"),
    [(2, 2), (np.int64(2), 2), (torch.tensor(2), 2), (np.array(2), 2), (None, -1), (-1, -1)],
)
def test_labels(label, expected):
    sample = as_audit_data([(torch.zeros(1, 2, 2), label)]).sample(0)
    assert sample.label == expected
    assert type(sample.label) is int


@pytest.mark.parametrize("label", [0.0, torch.tensor(1.0), torch.tensor([0, 1, 0]), "1"])
def test_labels_that_are_no_index_are_refused(label):
    with pytest.raises(TypeError, match="no class index"):
        as_audit_data([(torch.zeros(1, 2, 2), label)]).sample(0)


def test_what_is_no_map_style_data_set_is_refused():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(())

    for dataset in (Stream(), iter([]), 5):
        with pytest.raises(TypeError, match=r"__len__ and __getitem__"):
            as_audit_data(dataset)
    with pytest.raises(ValueError, match="2 ids for 20 samples"):
        as_audit_data(Images(), ids=["a", "b"])


def test_the_digest_knows_ids_classes_and_their_order():
    digests = [
        data_digest(as_audit_data([torch.zeros(1)] * len(ids), classes=classes, ids=ids))
        for classes, ids in (
            ("ab", "cd"),
            ("ba", "cd"),
            ("ab", "dc"),
            ("ab", ["cd", ""]),
            ("ab", ["c", "d", ""]),
            ("abc", "d"),
            ("a", "bcd"),
            ("ab", ["\udcff", "d"]),
        )
    ]
    assert len(set(digests)) == len(digests)


def test_the_input_digest_sees_every_pixel_and_only_pixels():
    image = torch.rand(2, 3, 4)
    assert input_digest(image) == input_digest(image.clone().requires_grad_())
    assert input_digest(image) == input_digest(image.permute(1, 2, 0).contiguous().permute(2, 0, 1))
    changed = image.clone()
    changed[1, 2, 3] = torch.nextafter(changed[1, 2, 3], torch.tensor(2.0))
    assert input_digest(image) != input_digest(changed)


def test_a_sample_of_ones_own():
    class Mine:
        classes, ids, metadata, mean, std = ("a",), ("x",), {}, None, None

        def sample(self, row):
            return Sample(torch.zeros(1, 2, 2), 0)

    mine = Mine()
    assert as_audit_data(mine) is mine


def test_a_subset_may_count_from_the_end():
    whole = TensorDataset(torch.rand(40, 1, 2, 2), torch.arange(40) % 3)
    assert as_audit_data(Subset(whole, [-1, 0, 2])).ids == ["39", "0", "2"]
