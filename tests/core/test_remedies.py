"""Each verdict, cause and warning has a remedy or a meaning, in one line of plain English."""

from typing import get_args

import pytest

from indexer.core.remedies import explain_warning, next_step, remedy
from indexer.core.verdict_values import Cause, Verdict, VerdictWarning


@pytest.mark.parametrize("cause", get_args(Cause))
def test_each_cause_has_a_remedy(cause):
    """A sentence that says what to do, in the imperative, and no two causes share it."""
    text = next_step("drifted", cause)
    assert text[0].isupper()
    assert text.endswith(".")
    assert [remedy(one) for one in get_args(Cause)].count(text) == 1


@pytest.mark.parametrize("verdict", sorted(set(get_args(Verdict)) - {"drifted"}))
def test_each_verdict_has_a_next_step(verdict):
    """Also where nothing is wrong, it is said."""
    assert next_step(verdict, None).endswith(".")


def test_a_drift_has_a_cause():
    """There is no remedy for a drift without one."""
    with pytest.raises(ValueError, match="cause"):
        next_step("drifted", None)


def test_each_warning_has_a_meaning_of_its_own():
    """No two warnings say the same."""
    warnings = get_args(VerdictWarning)
    assert len({explain_warning(warning) for warning in warnings}) == len(warnings)
