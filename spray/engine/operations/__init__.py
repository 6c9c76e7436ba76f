"""What the engine does with each operation a model may use; one kind of operation per file.

``HANDLERS`` is the allow-list: an operation that is not in it is refused by name.
"""

from spray.engine.operations import (
    activations,
    attention,
    constants,
    embedding,
    gates,
    homogeneous,
    normalisation,
    products,
    weighted,
)
from spray.engine.origins import Handler

HANDLERS: dict[str, Handler] = {
    **homogeneous.HANDLERS,
    **activations.HANDLERS,
    **gates.HANDLERS,
    **products.HANDLERS,
    **attention.HANDLERS,
    **constants.HANDLERS,
    **embedding.HANDLERS,
    **normalisation.HANDLERS,
    **weighted.HANDLERS,
}

__all__ = ["HANDLERS"]
