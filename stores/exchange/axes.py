"""Which axis of a stranger's maps and pictures holds the channels."""

from __future__ import annotations

from collections.abc import Sequence

CHANNELS = (1, 3, 4)
"""Grey, colour, and colour with opacity."""


def channels_last(shape: Sequence[int]) -> bool:
    """Whether (n, a, b, c) is (n, y, x, channel): only the last axis can be one of colours, and the others of places.

    ViRelAy and CoRelAy name no order, and ViRelAy guesses like this; what could be both is (n, channel, y, x).
    """
    return (
        len(shape) == 4
        and shape[3] in CHANNELS
        and shape[1] not in CHANNELS
        and min(shape[1:3]) > max(CHANNELS)
    )
