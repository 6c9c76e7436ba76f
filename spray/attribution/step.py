"""What an attribution computes and keeps: the step whose fields stand in the store's provenance."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from spray.attribution import revisions
from spray.attribution.targets import Target, expanded
from spray.engine import Start
from spray.engine.composites import Method, composite
from spray.engine.errors import BadInput
from spray.engine.methods import Foreign
from stores.provenance import TUNING, Json, describe

START = "logit"


@dataclass(frozen=True)
class Attribution:
    """What is computed and kept for each sample; all fields but ``workers`` stand in the store's provenance."""

    composite: str | Method | Foreign = "epsilon_plus_flat"
    target: Target | tuple[Target, ...] = "label"
    """What the maps explain (``spray.attribution.targets``): "label" (the prediction, where the label is unknown),
    "prediction", "rank2", a class index, a difference of logits such as "label-other". Several come from one forward
    pass, each into a relevance table of its own; "top3" is short for the three likeliest."""
    start: Start = START
    layers: tuple[str, ...] = ()
    """Modules whose output's relevance is kept too, by channel and by place. Outputs (n, token, channel) are known
    by their three axes; ``NAME@last`` says that a four-axis output has its channels last (Swin)."""
    grid: int = 28
    """Pooled maps have at most this many cells a side."""
    full: bool = False
    """Keep full-size input maps as well."""
    thumbnails: int = 64
    """Longest side of the pictures kept for the report; 0 keeps none."""
    block: int = 0
    """Samples per forward pass, padded at the end: one block size, one result, whatever is interrupted. 0: found from
    free memory when the store is made, and that of the store from then on. Maps of other block sizes agree within a
    relative L2 of 1e-4 per sample (rounding)."""
    workers: int = field(default=0, metadata=TUNING)

    def __post_init__(self) -> None:
        if not isinstance(self.composite, str) and composite(self.composite) is not self.composite:
            raise BadInput(
                f"composite is {self.composite!r}, a bare function, and a store has to know a method by a name and a "
                "version, which you change when the function does. Give Function('mine', the_function, version='1'), "
                "from spray.engine.methods."
            )
        targets = expanded(self.target)
        object.__setattr__(self, "target", targets[0] if len(targets) == 1 else targets)
        if self.start != START and any("-" in str(target) for target in targets):
            raise BadInput(
                f"start is {self.start!r}, and a target that is a difference of logits says itself where it starts: "
                "leave start out."
            )
        if self.grid < 1 or min(self.block, self.thumbnails, self.workers) < 0:
            raise BadInput(
                f"grid is {self.grid}, block {self.block}, thumbnails {self.thumbnails}, workers {self.workers}; "
                "grid is at least 1, the others at least 0 (block 0: found from free memory)."
            )
        if len(set(self.layers)) < len(self.layers):
            raise BadInput(f"layers are {', '.join(self.layers)}; name each once.")

    @property
    def targets(self) -> tuple[Target, ...]:
        """Every target, one relevance table each."""
        return self.target if isinstance(self.target, tuple) else (self.target,)

    @property
    def table(self) -> str:
        """Name of the relevance table in the store; of several, the first."""
        return self.table_of(self.targets[0])

    def table_of(self, target: Target) -> str:
        """Name of the relevance table of one target."""
        composite = self.composite if isinstance(self.composite, str) else self.composite.name
        return f"relevance/{composite}" + ("" if target == "label" else f".{target}")

    def describe(self, target: Target) -> dict[str, Json]:
        """The provenance of one target's table: the same, whichever others were computed beside it."""
        return describe(replace(self, target=target)) | revisions.stated()
