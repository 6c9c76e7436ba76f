"""To and from other tools: ViRelAy and CoRelAy projects, maps computed elsewhere, plain tables."""

from stores.exchange.arrays import import_arrays
from stores.exchange.corelay import import_virelay
from stores.exchange.feedback import Feedback, export_feedback
from stores.exchange.maps import import_maps, load_array
from stores.exchange.sheets import SHEETS, export_sheets, write_sheet
from stores.exchange.virelay import export_virelay

__all__ = [
    "SHEETS",
    "Feedback",
    "export_feedback",
    "export_sheets",
    "export_virelay",
    "import_arrays",
    "import_maps",
    "import_virelay",
    "load_array",
    "write_sheet",
]
