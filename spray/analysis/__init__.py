"""From stored relevance to groups of samples with one prediction strategy.

From the top: `stage` (all classes of a store) over `groups`, `parallel` and the steps of one class: `features`,
`graph` (with `exact`, `approximate` and `cells`), `spectral` (with `lobpcg`), `null`, `clustering`, `stability`,
`embedding`; and `correspondence` between two analyses.
"""

from spray.analysis.stage import Analysis, analyze

__all__ = ["Analysis", "analyze"]
