"""Pictures of every page of a report, for the README and the docs.

    python tests/screenshots.py demo/report.html docs/images

Writes <page>-<size>-<theme>.png: the class page, a finding's, two side by side, overview, summary and about, at
1440 × 900 and at 390 × 844, light and dark. Needs Debian's Chromium.
"""

from __future__ import annotations

import sys
from pathlib import Path

from browser import Visit, chromium

SIZES = {"desktop": (1440, 900), "phone": (390, 844)}
PAGES = {
    "class": "spray.router.go({ group: spray.report.groups[0].index })",
    "finding": """spray.router.go({
        page: "cluster", group: spray.report.groups[0].index, subject: spray.report.groups[0].subjects[0].key })""",
    "cluster": """spray.router.go({
        page: "cluster", group: spray.report.groups[0].index, subject: spray.report.groups[0].subjects[0].key,
        other: spray.report.groups[0].subjects[1]?.key ?? null })""",
    "overview": 'spray.router.go({ page: "overview" })',
    "summary": 'spray.router.go({ page: "summary" })',
    "about": 'spray.router.go({ page: "about" })',
}


def shoot(report: Path, folder: Path) -> list[Path]:
    """All pictures; each page must be free of errors and of requests to anywhere."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    with chromium() as browser:
        for size, (width, height) in SIZES.items():
            for theme in ("light", "dark"):
                visit = Visit(
                    browser, report.resolve().as_uri(), width=width, height=height, color_scheme=theme
                )
                for page, go in PAGES.items():
                    visit.state(f"{go}.then(() => null)")
                    name = "cluster" if page == "finding" else page
                    visit.settled(
                        f"spray.state.page === '{name}' && !document.body.classList.contains('loading') "
                        "&& ![...document.querySelectorAll('[role=status]')].some((at) => at.checkVisibility() "
                        "&& at.textContent.includes('on their way'))"
                    )
                    made.append(folder / f"{page}-{size}-{theme}.png")
                    visit.page.screenshot(path=made[-1])
                visit.close()
    return made


if __name__ == "__main__":
    for path in shoot(Path(sys.argv[1]), Path(sys.argv[2])):
        print(path)
