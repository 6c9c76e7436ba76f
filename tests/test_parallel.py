"""Work in processes."""

import pytest

from spray.analysis.parallel import WORTHWHILE, in_processes, worthwhile_workers


def test_small_runs_stay_in_this_process():
    assert worthwhile_workers({0: range(100), 1: range(100)}, None) == 1
    assert worthwhile_workers({0: range(2 * WORTHWHILE)}, None) == 1
    assert worthwhile_workers({}, 4) == 1


def test_as_many_workers_as_asked_but_no_more_than_groups():
    groups = {0: range(10), 1: range(10), 2: range(10)}
    assert worthwhile_workers(groups, 2) == 2
    assert worthwhile_workers(groups, 9) == 3


@pytest.mark.parametrize("workers", [1, 2])
def test_every_job_is_done_and_errors_are_raised(workers):
    assert sorted(in_processes(pow, ((2, power) for power in range(5)), workers)) == [1, 2, 4, 8, 16]
    with pytest.raises(ZeroDivisionError):
        list(in_processes(divmod, [(1, 1), (1, 0)], workers))
