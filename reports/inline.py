"""A report as the value of a notebook's cell: a path to the file, which shows itself in a frame of its own."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path, PosixPath, WindowsPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Base = Path
else:
    Base = WindowsPath if issubclass(type(Path()), WindowsPath) else PosixPath


class ReportPath(Base):
    """The path of a written report, to use as any other; at the end of a notebook's cell it is the report itself."""

    def _repr_html_(self) -> str | None:
        return Inline(self)._repr_html_() if self.suffix == ".html" and self.is_file() else None


@dataclass(frozen=True)
class Inline:
    """A report file, shown whole where a notebook shows a value."""

    path: Path | str
    height: int = 900

    def _repr_html_(self) -> str:
        path = Path(self.path)
        if (path.parent / "blocks").is_dir() and path.name == "index.html":
            # A frame of a notebook may read nothing beside it.
            return (
                f"<p>This report is a folder, since its samples are too many for one file. Open "
                f"<code>{escape(str(path))}</code>, or look at the store by <code>spray serve</code>.</p>"
            )
        return framed(path.read_text(encoding="utf-8"), self.height)


def framed(html: str, height: int) -> str:
    """A page in a frame of its own, from which scripts reach nothing of the notebook."""
    return (
        f'<iframe srcdoc="{escape(html, quote=True)}" sandbox="allow-scripts allow-downloads" '
        f'style="width:100%;height:{height}px;border:0"></iframe>'
    )
