"""The documents' numbers are those that scripts wrote, and their links lead somewhere."""

import re
from pathlib import Path

import pytest
from reenact.benchmarks.readme import documents, filled

ROOT = Path(__file__).resolve().parents[1]


def name_of(document):
    return document.name


def test_the_readme_has_measured_tables():
    assert (ROOT / "README.md").read_text().count("<!-- benchmarks/results/") >= 3


@pytest.mark.parametrize("document", documents(), ids=name_of)
def test_a_document_shows_the_tables_as_they_were_measured(document):
    text = document.read_text(encoding="utf-8")
    assert filled(text) == text, "run: python -m reenact.benchmarks.readme"


def test_a_marked_section_is_replaced_by_its_file(tmp_path):
    results = tmp_path / "benchmarks" / "results"
    results.mkdir(parents=True)
    (results / "speed.md").write_text("| new |\n")
    text = "before\n<!-- benchmarks/results/speed.md -->\n| old |\n<!-- end -->\nafter\n"
    expected = "before\n<!-- benchmarks/results/speed.md -->\n\n| new |\n\n<!-- end -->\nafter\n"
    assert filled(text, tmp_path) == expected


@pytest.mark.parametrize("document", documents(), ids=name_of)
def test_every_file_that_a_document_links_to_exists(document):
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", document.read_text(encoding="utf-8")):
        assert (document.parent / target).exists(), target
