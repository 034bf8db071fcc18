"""Runs the code of one page of the documentation, block by block, as its reader would.

``python tests/pages.py PAGE`` works in the current directory, which it fills:

- a block whose first line is a comment with a file's name is written to that file;
- a ``console`` block runs its ``$`` lines, and the lines below must appear in the output
  in this order (``...`` stands for anything);
- another ``python`` block runs here, after the ones before it;
- ``text`` is no code.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt

TIMEOUT = 120
FILE = re.compile(r"[#;] (?P<name>[\w./-]+\.(?:py|ini))")


def blocks(page: Path) -> Iterator[tuple[int, str, str]]:
    """Yield line number, language and text of each fenced block."""
    for token in MarkdownIt().parse(page.read_text()):
        if token.type == "fence":
            assert token.map is not None
            yield token.map[0] + 1, token.info.split()[0] if token.info else "", token.content


def run_page(page: Path) -> None:
    """Run every block of a page."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for line, language, text in blocks(page):
        first = FILE.fullmatch(text.splitlines()[0].strip()) if text.strip() else None
        where = f"{page.name}:{line}"
        if first is not None:
            target = Path(first["name"])
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
        elif language == "console":
            run_console(text, where)
        elif language == "python":
            # padded, so that a traceback names the line of the page
            code = compile("\n" * line + text, str(page), "exec", dont_inherit=True)
            exec(code, namespace)
        elif language != "text" and not language.startswith("{"):
            raise SystemExit(f"{where}: nobody runs a block of the language {language!r}")


def run_console(text: str, where: str) -> None:
    """Run the commands of a block and compare what they print."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, expected = part.partition("\n")
        while command.endswith("\\"):
            more, _, expected = expected.partition("\n")
            command = f"{command[:-1]} {more.strip()}"
        done = subprocess.run(
            command,
            shell=True,
            executable="/bin/bash",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT,
        )
        if done.returncode:
            raise SystemExit(f"{where}: {command}\n{done.stdout}\nexit code {done.returncode}")
        wanted = [re.escape(one).replace(r"\.\.\.", ".*") for one in expected.splitlines()]
        if not re.search(r"\s*\n(?:.*\n)??".join(wanted), done.stdout, re.DOTALL):
            raise SystemExit(f"{where}: {command}\nprinted\n{done.stdout}\nand not\n{expected}")


if __name__ == "__main__":
    sys.path.insert(0, os.getcwd())
    run_page(Path(sys.argv[1]))
