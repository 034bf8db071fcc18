"""What touching every core name costs over importing what it stands on."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

RUNS = 15
BASE = "import sqlalchemy.orm, morfdict"
CORE = f"{BASE}\nfrom qapla_db import *"


def seconds(code: str) -> float:
    """Return how long a fresh interpreter takes for this code."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - started


def main() -> None:
    """Print the medians and their difference."""
    pairs = [(seconds(BASE), seconds(CORE)) for _ in range(RUNS)]
    base = statistics.median(pair[0] for pair in pairs)
    core = statistics.median(pair[1] for pair in pairs)
    extra = statistics.median(pair[1] - pair[0] for pair in pairs)
    print(f"sqlalchemy.orm and morfdict        {base * 1e3:7.1f} ms")
    print(f"and every core name of qapla_db    {core * 1e3:7.1f} ms")
    print(f"median difference                  {extra * 1e3:7.1f} ms (aim: at most 20)")


if __name__ == "__main__":
    main()
