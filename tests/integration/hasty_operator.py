"""The operator's process with short periods, for tests that would do nothing but wait for the next one.

`sitecustomize` calls `install` before the operator begins (`processes.customized`). Nothing else of the process is
changed.
"""

from __future__ import annotations

from tickwheel_operator.identity.token_review import TokenReviewAuthenticator
from tickwheel_operator.kinds import world
from tickwheel_operator.runtime import pools

__all__ = ["SITE", "install"]

SITE = "from tests.integration.hasty_operator import install\n\ninstall()\n"


def install() -> None:
    """A good token is remembered for three seconds, what pods trust is looked at each second, and a new leader shows
    pools after three seconds, in which their workers have called."""
    remembers = TokenReviewAuthenticator.__init__.__kwdefaults__
    assert remembers is not None and "cache_s" in remembers
    remembers["cache_s"] = 3.0
    assert pools._TRUST_S > 1.0
    pools._TRUST_S = 1.0
    assert world._SETTLING_S > 3.0
    world._SETTLING_S = 3.0
