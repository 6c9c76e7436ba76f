"""Names become keys: always safe, never two names one key."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stores import safe_key

UNTIMED = settings(deadline=None)
NAMES = st.text(st.characters(), max_size=300)


@UNTIMED
@given(NAMES)
def test_keys_are_safe(name: str) -> None:
    key = safe_key(name)
    assert re.fullmatch(r"[a-z0-9_\-.=]{1,200}", key)
    assert not key.startswith(".") and not key.endswith(".")
    assert key not in ("zarr.json", "c", "con", "nul")


@UNTIMED
@given(NAMES, NAMES)
def test_different_names_have_different_keys(one: str, other: str) -> None:
    assert (safe_key(one) == safe_key(other)) == (one == other)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("layer4.1.conv2", "layer4.1.conv2"),
        ("", "=_"),
        (".", "=2e"),
        ("..", "=2e=2e"),
        ("/abs", "=2fabs"),
        ("a//b", "a=2f=2fb"),
        ("<script>", "=3cscript=3e"),
        ("Mixed_7c", "=4dixed_7c"),
        ("zarr.json", "=7aarr.json"),
        ("c", "=63"),
        ("nul.txt", "=6eul.txt"),
        ("=41", "=3d41"),
        ("\udcff", "=ed=b3=bf"),
    ],
)
def test_examples(name: str, key: str) -> None:
    assert safe_key(name) == key


def test_long_names_differ_though_they_begin_alike() -> None:
    assert safe_key("x" * 500 + "1") != safe_key("x" * 500 + "2")
    assert len(safe_key("x" * 500)) < 120
