"""What all tests share.

One thread per test process: small tensors gain nothing from two, and lose much where cores are shared.
"""

import os

import pytest

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium for the tests of one file."""
    from browser import chromium  # late: NumPy reads the names above when it is first imported

    with chromium() as browser:
        yield browser
