"""Putting a finished report where it belongs: in place of an older report, never of anything else."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

PAGE, BLOCKS = "index.html", "blocks"
MARK = b'id="report"'
"""What every report has in its page."""


def check_file(out: Path) -> None:
    """Whether a report may be written as this file: nothing is there, or a report that it replaces.

    Raises:
        IsADirectoryError: a folder has this name.
        FileExistsError: another file has it. It is left as it is.
    """
    if out.is_dir():
        raise IsADirectoryError(
            f"{out} is a folder; expected the file to write. Name it, such as {out / 'report.html'}."
        )
    if out.is_file() and out.stat().st_size and MARK not in out.read_bytes():
        raise FileExistsError(
            f"{out} is there already and is no report: nothing was written. Choose another name, such as --out "
            f"{out.with_name(f'{out.stem}-report.html')}."
        )


def check_folder(folder: Path) -> None:
    """Whether a report may be written as this folder: nothing is there, or a report that it replaces.

    Raises:
        FileExistsError: something else has this name. It is left as it is.
    """
    if not os.path.lexists(folder) or is_report(folder):
        return
    raise FileExistsError(
        f"The report would become the folder {folder}, and something else has that name: nothing was written. "
        f"Choose another name, such as --out {folder.with_name(f'{folder.name}-report.html')}."
    )


def is_report(folder: Path) -> bool:
    """Whether a folder is a report and holds nothing else: its page, and its blocks beside it. An empty one is, too."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    inside = sorted(folder.iterdir())
    if not inside:
        return True
    blocks, page = folder / BLOCKS, folder / PAGE
    if inside != [blocks, page] or blocks.is_symlink() or not blocks.is_dir() or not page.is_file():
        return False
    plain = all(path.suffix == ".js" and path.is_file() for path in blocks.iterdir())
    return plain and MARK in page.read_bytes()


def put_folder(made: Path, folder: Path) -> None:
    """Move a finished report to its place; a report that was there is let go once the new one stands.

    Raises:
        FileExistsError: as of ``check_folder``.
    """
    check_folder(folder)
    former = made.with_name(f"{made.name}.former")
    shutil.rmtree(former, ignore_errors=True)
    if folder.exists():
        folder.replace(former)
    try:
        made.replace(folder)
    except OSError:
        if former.exists():
            former.replace(folder)
        raise
    shutil.rmtree(former, ignore_errors=True)
