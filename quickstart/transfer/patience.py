"""How often, and after which pauses, what failed is tried again."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from quickstart.errors import NetworkError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


@dataclass(frozen=True)
class Patience:
    """How often, and after which pauses, something is tried again.

    Attributes:
        tries: How many tries in a row may fail.
        first: The longest pause after the first failure, in seconds; it doubles from there.
        longest: No pause is longer, in seconds; who asks for a longer one is not waited for.
    """

    tries: int = 7
    first: float = 0.5
    longest: float = 60.0

    def pause(self, failures: int, error: NetworkError) -> float:
        """Return how long to wait after so many failures, or raise when it is no use.

        The pause is random between half and all of its longest value, so that many clients do not
        come back at once, and at least what the other side asks for.

        Raises:
            NetworkError: There were too many failures, or the wait would be too long.
        """
        if error.lasting or failures >= self.tries:
            raise error
        if error.wait > self.longest:
            raise NetworkError(
                f"{error.message}; it asks to come back in {error.wait:.0f} s",
                "try again then: what has arrived is kept",
            ) from error
        ceiling = min(self.longest, self.first * 2.0 ** (failures - 1))
        return max(error.wait, ceiling * random.uniform(0.5, 1))  # noqa: S311 - no secret

    def patiently(self, call: Callable[[], T]) -> T:
        """Return what `call` returns, tried again while the network fails."""
        failures = 0
        while True:
            try:
                return call()
            except NetworkError as error:  # noqa: PERF203 - each try is a request
                failures += 1
                time.sleep(self.pause(failures, error))


QUICK = Patience(tries=4, longest=10.0)
