"""``make bench``: runs every benchmark and prints their tables."""

import runpy
from pathlib import Path

for script in sorted(Path(__file__).parent.glob("[a-z]*.py")):
    print(f"\n# {script.stem}", flush=True)
    runpy.run_module(f"benchmarks.{script.stem}", run_name="__main__")
