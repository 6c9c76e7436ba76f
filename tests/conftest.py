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


@pytest.fixture(scope="module")
def shared(browser, report):
    """A window on the ``report`` of a file of tests, for those that leave no verdicts."""
    from browser import Visit

    one = Visit(browser, report.as_uri())
    yield one
    one.close()


@pytest.fixture
def visit(shared):
    """The report as it opens, in the shared window."""
    yield shared.again
    shared.check()


@pytest.fixture
def fresh(browser, report):
    """The report, or another page, in a window of its own."""
    from browser import Visit

    visits = []

    def open_page(address="", url=None, **options):
        visits.append(Visit(browser, (url or report.as_uri()) + address, **options))
        return visits[-1]

    yield open_page
    for one in visits:
        one.close()
