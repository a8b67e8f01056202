"""How long the search for an unknown root takes, over generated stores of up to twelve sessions.

    .venv/bin/python -m tests.bench.explain_search [--stores 200]

The stores are those of tests/core/planted_roots.py: each with a planted cause, or with a root that
nothing explains, which takes longest. Larger stores come after them. Prints a table, and the same
as lines of JSON.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from indexer.core.root_search import Base, search_root
from indexer.core.types import Hash32
from tests.core.planted_roots import base, fresh, planted

_NOBODYS = Hash32(b"\x77" * 32)
_SIZES = (12, 13, 20, 50, 100, 1_000, 10_000)


@dataclass(frozen=True, slots=True)
class Measured:
    """Searches of one kind. Times in milliseconds."""

    kind: str
    searches: int
    explained: int
    p50_ms: float
    p99_ms: float
    worst_ms: float
    most_hashes: int
    exhausted: int


def measure(kind: str, asked: Sequence[tuple[Sequence[Base], Hash32]]) -> Measured:
    """Search for each root once; return how long it took."""
    times: list[float] = []
    answers = []
    for bases, root in asked:
        gc.collect()
        began = time.perf_counter()
        answers.append(search_root(bases, root))
        times.append((time.perf_counter() - began) * 1_000)
    times.sort()
    return Measured(
        kind,
        len(times),
        sum(answer.found is not None for answer in answers),
        round(statistics.median(times), 2),
        round(times[int(len(times) * 0.99) - 1], 2),
        round(times[-1], 2),
        max(answer.hashes for answer in answers),
        sum(answer.exhausted for answer in answers),
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--stores", type=int, default=200)
    stores = parser.parse_args().stores
    cases = [planted(seed) for seed in range(stores)]
    found = [measure("planted, up to 12", [(case.bases, case.root) for case in cases])]
    found.append(measure("no explanation, same stores", [(case.bases, _NOBODYS) for case in cases]))
    for size in _SIZES:
        rng = random.Random(size)
        asked = [([base(1, fresh(rng, size))], _NOBODYS) for _ in range(5)]
        found.append(measure(f"no explanation, {size} sessions", asked))
    row = "{:<34} {:>8} {:>9} {:>9} {:>9} {:>9} {:>7} {:>9}".format
    lines = [
        row("", "searches", "explained", "p50 ms", "p99 ms", "worst ms", "hashes", "exhausted")
    ]
    lines += [row(*asdict(one).values()) for one in found]
    lines += [json.dumps(asdict(one)) for one in found]
    sys.stdout.write("\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
