"""Which axis of a stranger's maps and pictures holds the channels."""

from __future__ import annotations

from collections.abc import Sequence

from stores.errors import StoreError

CHANNELS = (1, 3, 4)
"""Grey, colour, and colour with opacity."""
FIRST, LAST = AXES = ("channels-first", "channels-last")


def channels_last(shape: Sequence[int], axes: str | None = None) -> bool:
    """Whether (n, a, b, c) is (n, y, x, channel) and not (n, channel, y, x); ``axes`` says so, if it is given.

    Else it is where only the last axis can be one of colours, and the others of places: ViRelAy and CoRelAy name no
    order, and ViRelAy guesses like this.

    Raises:
        StoreError: nobody can tell: the last axis is none of colours, and shorter than both others.
    """
    if axes not in (None, *AXES):
        raise StoreError(f"axes are {' or '.join(AXES)}, got {axes!r}.")
    if len(shape) != 4 or axes is not None:
        return len(shape) == 4 and axes == LAST
    first, second, third = shape[1:]
    if first in CHANNELS:
        return False
    if third in CHANNELS:
        return min(first, second) > max(CHANNELS)
    if third < min(first, second):
        raise StoreError(
            f"an array of shape {tuple(shape)} may be {third} channels of {first} × {second} places, or {first} "
            f"channels of {second} × {third}: say which, by --axes {LAST} or {FIRST}."
        )
    return False
