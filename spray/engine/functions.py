"""Torch functions by name: one name however an operation is written, and the tensors among its arguments."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor


def names(text: str) -> frozenset[str]:
    """A set of operation names, written as words."""
    return frozenset(text.split())


METADATA = names(
    "shape size dim ndim dtype device numel nelement is_floating_point is_complex requires_grad is_leaf is_cuda "
    "is_cpu is_mps is_meta is_sparse is_quantized is_nested layout stride is_contiguous __len__ __hash__ get_device "
    "element_size ndimension itemsize nbytes names is_inference _base _assert"
)
"""What may be asked of a tensor without touching its values."""

CONSTANTS = names(
    "new_zeros new_ones new_full new_empty new_tensor zeros_like ones_like full_like empty_like rand_like randn_like "
    "eq ne lt le gt ge __eq__ __ne__ __lt__ __le__ __gt__ __ge__ isnan isinf isfinite argmax argmin argsort "
    "logical_and logical_or logical_not"
)
"""What makes constants: tensors of another's kind but not of its values, masks and indices."""


def operation_name(func: Callable[..., Any]) -> str:
    """One name for an operation, however it is written: ``add`` for torch.add, Tensor.add and ``+``."""
    name: str = func.__name__
    if name in ("__get__", "__set__", "__delete__"):
        owner: str = func.__self__.__name__  # type: ignore[attr-defined]
        return owner if name == "__get__" else f"{owner}.{name}"
    return name


def out_of_place(
    name: str, func: Callable[..., Any], kwargs: dict[str, Any]
) -> tuple[str, Callable[..., Any], dict[str, Any], bool]:
    """The operation without its in-place form, and whether it was in place."""
    if kwargs.get("inplace"):
        return name, func, {**kwargs, "inplace": False}, True
    if name.startswith("__i") and name.endswith("__") and hasattr(Tensor, "__" + name[3:]):
        plain = "__" + name[3:]
        return operation_name(getattr(Tensor, plain)), getattr(Tensor, plain), kwargs, True
    if name.endswith("_") and not name.endswith("__"):
        plain = name[:-1]
        twin = getattr(Tensor, plain, None) or getattr(torch, plain, None)
        twin = twin or getattr(torch.nn.functional, plain, None)
        if twin is not None:
            return plain, twin, kwargs, True
    return name, func, kwargs, False


def overwrites(name: str) -> bool:
    """Whether the operation of that name writes into its first argument."""
    if name.endswith("__"):
        return name == "__setitem__" or (name.startswith("__i") and hasattr(Tensor, "__" + name[3:]))
    return name.endswith("_")


def map_tensors(function: Callable[[Tensor], Any], value: Any) -> Any:
    """Apply a function to every tensor in nested tuples, lists and dictionaries."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(map_tensors(function, entry) for entry in value))
    if type(value) in (tuple, list):
        return type(value)(map_tensors(function, entry) for entry in value)
    if isinstance(value, tuple):  # torch.return_types: built from one sequence
        return type(value)([map_tensors(function, entry) for entry in value])
    if type(value) is dict:
        return {key: map_tensors(function, entry) for key, entry in value.items()}
    return value


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Every tensor in nested tuples, lists and dictionaries."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for entry in value:
            yield from tensors_in(entry)
    elif isinstance(value, dict):
        for entry in value.values():
            yield from tensors_in(entry)
