# SPDX-License-Identifier: GPL-3.0-or-later
"""Paired timings: A and its yardstick B in turn, the ratio pair by pair, results as JSON."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

RESULTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "results")


def seconds(action: Callable[[], object]) -> float:
    """How long one call takes."""
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def spread(values: list[float]) -> dict[str, float]:
    """Median and quartiles, rounded to four digits."""
    low, middle, high = statistics.quantiles(values, n=4)
    return {
        name: float(f"{value:.4g}")
        for name, value in (("median", middle), ("q1", low), ("q3", high))
    }


def paired(
    runs: int,
    measured: Callable[[], float],
    yardstick: Callable[[], float],
) -> dict[str, object]:
    """Run both in turn.

    Args:
        runs: how many pairs are counted; one more goes before, uncounted.
        measured, yardstick: each returns the seconds of one run.

    Returns:
        Spread of both in ms, of the ratio measured / yardstick, and of the difference in ms.
    """
    pairs = [(measured(), yardstick()) for _ in range(runs + 1)][1:]
    return {
        "runs": runs,
        "measured_ms": spread([1000 * a for a, _ in pairs]),
        "yardstick_ms": spread([1000 * b for _, b in pairs]),
        "ratio": spread([a / b for a, b in pairs]),
        "difference_ms": spread([1000 * (a - b) for a, b in pairs]),
    }


def write(name: str, figures: dict[str, object]) -> None:
    """Write ``bench/results/NAME.json`` and print the same."""
    about = {
        "kernel": platform.release(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "date": time.strftime("%Y-%m-%d"),
    }
    text = json.dumps({**about, **figures}, indent=2)
    os.makedirs(RESULTS, exist_ok=True)
    with open(os.path.join(RESULTS, f"{name}.json"), "w") as file:
        file.write(text + "\n")
    print(f"{name}: {text}")
