"""Copies the tables of `benchmarks/results/*.md` into the README, between their markers.

`python -m reenact.benchmarks.readme`. A test fails when README and results differ.
"""

import re
import sys
from pathlib import Path

__all__ = ["filled", "main"]

ROOT = Path(__file__).resolve().parents[1]
_SECTION = re.compile(r"(<!-- (benchmarks/results/[\w.-]+\.md) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(text: str, root: Path = ROOT) -> str:
    """`text` with every marked section replaced by the file that its marker names, relative to `root`."""
    return _SECTION.sub(lambda part: f"{part[1]}\n{(root / part[2]).read_text().strip()}\n\n{part[3]}", text)


def main() -> None:
    """Rewrite the README."""
    readme = ROOT / "README.md"
    readme.write_text(filled(readme.read_text()))
    sys.stdout.write(f"{readme}: tables are up to date\n")


if __name__ == "__main__":
    main()
