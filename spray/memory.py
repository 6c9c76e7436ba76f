"""Memory: how many samples fit into a pass, and what running out of it looks like."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

T = TypeVar("T")
CPU = torch.device("cpu")

LARGEST_BLOCK = {"cpu": 128}
"""Larger blocks gain nothing on CPUs; elsewhere up to ``LARGEST_ELSEWHERE``."""
LARGEST_ELSEWHERE = 512
BLOCK_BYTES = 128 * 2**20
"""The inputs of one block take at most so much: several of them wait in the loader."""
FREE_SHARE = 0.5
"""Of the free memory, so much may be taken by a pass; kernels need room that no one accounts for."""

_MESSAGES = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "cudnn_status_alloc_failed",
    "cublas_status_alloc_failed",
)


class SpaceError(MemoryError):
    """Memory does not suffice for the least that a piece of work needs."""


def ran_out(error: BaseException) -> bool:
    """Whether an error says that memory ran out, in the words of any device's allocator."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    said = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in said for words in _MESSAGES)


def in_batches(
    count: int, batch: int, work: Callable[[slice], T], device: torch.device = CPU
) -> tuple[list[T], int]:
    """``work`` over slices of 0…count, and the batch that fitted; one that does not is halved, and so are later ones.

    Whatever says that memory ran out for one alone is raised as it is.
    """
    found: list[T] = []
    start = 0
    while start < count:
        stop = min(start + batch, count)
        try:
            found.append(work(slice(start, stop)))
        except (RuntimeError, MemoryError) as error:
            if batch == 1 or not ran_out(error):
                raise
            batch = max(1, min(batch, stop - start) // 2)
            release(device)
        else:
            start = stop
    return found, batch


@contextmanager
def enough_memory(otherwise: str) -> Iterator[None]:
    """Say in words where memory runs out.

    Raises:
        SpaceError: it did, with these words; one from inside is kept as it is.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not ran_out(error) or isinstance(error, SpaceError):
            raise
        raise SpaceError(otherwise) from error


def no_image_fits(device: torch.device) -> str:
    """What is said where not even one image passes through the model."""
    return (
        f"The memory of {device} does not suffice for one image to pass through the model. {way_out(device)}"
    )


def way_out(device: torch.device, also: str = "") -> str:
    """What to do where not even one sample fits: another device, where it is not the CPU that it fits on no more."""
    ways = [*(["take --device cpu"] if device.type != "cpu" else []), *([also] if also else [])]
    told = ", ".join([*ways, "or prepare smaller images" if ways else "prepare smaller images"])
    return f"{told[0].upper()}{told[1:]}."


def release(device: torch.device) -> None:
    """Give cached memory back, so that a smaller pass finds it in one piece."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


class Peak(TorchDispatchMode):
    """While entered: the most bytes that tensors made meanwhile hold at one time, on any device."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0
        self._held: dict[Any, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operation and count the storages that it made."""
        result = func(*args, **(kwargs or {}))
        given = _storages((args, kwargs))
        self._held |= {made: size for made, size in _storages(result).items() if made not in given}
        self._held = {storage: size for storage, size in self._held.items() if not storage.expired()}
        self.bytes = max(self.bytes, sum(self._held.values()))
        return result


def _storages(values: object) -> dict[Any, int]:
    """The storages of all tensors in some arguments or results, with their bytes."""
    found = (value.untyped_storage() for value in tree_iter(values) if isinstance(value, torch.Tensor))
    return {StorageWeakRef(storage): storage.nbytes() for storage in found}


def peak_bytes(action: Callable[[], object]) -> int:
    """The most bytes of tensors that an action holds at one time."""
    peak = Peak()
    with peak:
        action()
    return peak.bytes


def free_bytes(device: torch.device) -> int | None:
    """Free memory of a device, or None where the system does not tell."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + cached
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory()) - int(torch.mps.driver_allocated_memory())
    limits = [limit for limit in (_system_memory(), _container_memory()) if limit is not None]
    return min(limits, default=None)


def block_size(
    pass_over: Callable[[int], object], device: torch.device, input_bytes: int, samples: int, sharing: int = 1
) -> int:
    """The largest power of two of samples whose pass fits into the free memory, up to what is of use.

    Args:
        pass_over: one whole pass over so many samples.
        input_bytes: of one sample.
        samples: of the data set; a block is no larger than they need.
        sharing: so many processes share the memory.
    """
    largest = min(
        LARGEST_BLOCK.get(device.type, LARGEST_ELSEWHERE),
        max(1, BLOCK_BYTES // max(input_bytes, 1)),
        1 << max(samples - 1, 0).bit_length(),
    )
    free = free_bytes(device)
    if free is not None:
        pass_over(1)  # whatever is made once, is made now
        one, two = (peak_bytes(partial(pass_over, count)) for count in (1, 2))
        room = FREE_SHARE * free / sharing - (2 * one - two)
        largest = min(largest, max(1, int(room // max(two - one, 1))))
    return 1 << (largest.bit_length() - 1)


def _system_memory() -> int | None:
    """MemAvailable of Linux; elsewhere all there is."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def _container_memory(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """What a container may still take (control groups, version 2 and 1); None where there is no limit.

    Files that were read and may be dropped at any time count as free.
    """
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            room = int((root / limit).read_text()) - int((root / used).read_text())
            stat = (root / limit).with_name("memory.stat").read_text().split()
        except (OSError, ValueError):
            continue
        return room + int(stat[stat.index("inactive_file") + 1]) if "inactive_file" in stat else room
    return None
