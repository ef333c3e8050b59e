"""The README's numbers are those that scripts wrote."""

from pathlib import Path

from reenact.benchmarks.readme import filled

ROOT = Path(__file__).resolve().parents[1]


def test_the_readme_shows_the_measured_tables():
    text = (ROOT / "README.md").read_text()
    assert text.count("<!-- benchmarks/results/") >= 3
    assert filled(text) == text, "run: python -m reenact.benchmarks.readme"


def test_a_marked_section_is_replaced_by_its_file(tmp_path):
    results = tmp_path / "benchmarks" / "results"
    results.mkdir(parents=True)
    (results / "speed.md").write_text("| new |\n")
    text = "before\n<!-- benchmarks/results/speed.md -->\n| old |\n<!-- end -->\nafter\n"
    expected = "before\n<!-- benchmarks/results/speed.md -->\n\n| new |\n\n<!-- end -->\nafter\n"
    assert filled(text, tmp_path) == expected


def test_every_file_that_the_readme_links_to_exists():
    import re

    for target in re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / "README.md").read_text()):
        assert (ROOT / target).exists(), target
