"""What touching every core name costs over importing what it stands on.

In processor time, and with bytecode, which an installed package has, wherever
this one is run from.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping

RUNS = 25
BASE = "import sqlalchemy.orm, morfdict"
CORE = f"{BASE}\nfrom qapla_db import *"


def seconds(code: str, environment: Mapping[str, str]) -> float:
    """Return the processor time that a fresh interpreter takes for this code."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> None:
    """Print the medians and their difference."""
    with tempfile.TemporaryDirectory() as bytecode:
        environment = os.environ | {"PYTHONPYCACHEPREFIX": bytecode}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        seconds(CORE, environment)  # compiles
        pairs = [(seconds(BASE, environment), seconds(CORE, environment)) for _ in range(RUNS)]
    base = statistics.median(pair[0] for pair in pairs)
    core = statistics.median(pair[1] for pair in pairs)
    extra = statistics.median(pair[1] - pair[0] for pair in pairs)
    print(f"sqlalchemy.orm and morfdict        {base * 1e3:7.1f} ms")
    print(f"and every core name of qapla_db    {core * 1e3:7.1f} ms")
    print(f"median difference                  {extra * 1e3:7.1f} ms (aim: at most 20)")


if __name__ == "__main__":
    main()
