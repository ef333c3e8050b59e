"""Copies the tables of `benchmarks/results/*.md` into README.md and docs/*.md, between their markers.

`python -m reenact.benchmarks.readme`. A test fails when documents and results differ.
"""

import re
import sys
from pathlib import Path

__all__ = ["documents", "filled", "main"]

ROOT = Path(__file__).resolve().parents[1]
_SECTION = re.compile(r"(<!-- (benchmarks/results/[\w.-]+\.md) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(text: str, root: Path = ROOT) -> str:
    """`text` with every marked section replaced by the file that its marker names, relative to `root`."""
    return _SECTION.sub(lambda part: f"{part[1]}\n{(root / part[2]).read_text().strip()}\n\n{part[3]}", text)


def documents(root: Path = ROOT) -> list[Path]:
    """The documents that may show tables."""
    return [root / "README.md", *sorted((root / "docs").glob("*.md"))]


def main() -> None:
    """Rewrite the documents whose tables have changed."""
    for document in documents():
        text = document.read_text(encoding="utf-8")
        if (new := filled(text)) != text:
            document.write_text(new, encoding="utf-8")
            sys.stdout.write(f"{document.relative_to(ROOT)}: rewritten\n")


if __name__ == "__main__":
    main()
