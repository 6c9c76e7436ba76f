"""The revision of the engine's numbers."""

REVISION = 1
"""Raised whenever the same model, method and inputs give relevance that differs by more than rounding, as a mended rule
does: what one revision began, another must not complete. Revision 1 is not written into provenance, since stores of
early releases do not name it. ``tests/test_revision.py`` holds the numbers of this one."""
