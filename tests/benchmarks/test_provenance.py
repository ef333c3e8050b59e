"""The benchmark of the mark: that it counts what it finds, and goes on where it was interrupted."""

import json
from functools import partial
from typing import Any

import cv2
import numpy as np
import pytest
from reenact.benchmarks import provenance, survival
from reenact.benchmarks.damage import DAMAGES
from reenact.benchmarks.mistaken import (
    CLIPS,
    DRAWN,
    FILM_CLIPS,
    FILM_OUTPUTS,
    OUTPUTS,
    PHOTOS,
    in_films,
    in_pictures,
)
from reenact.benchmarks.provenance import FalsePositives, Survival, done_parts, main, markdown
from reenact.errors import ReenactError
from reenact.runtime import assets
from reenact.runtime.media.images import read_image, write_image
from reenact.runtime.watermark import marked


@pytest.fixture
def portrait():
    image = read_image(assets.portrait("eileen_collins"))
    return np.asarray(cv2.resize(image, (256, 256), interpolation=cv2.INTER_AREA), np.uint8)


def test_marked_sources_are_counted_as_found_and_others_are_not(portrait, tmp_path):
    """Were the counting wrong, it would count nothing here either."""
    counts = {}
    for name, image in (("plain", portrait), ("marked", marked(portrait))):
        write_image(tmp_path / f"{name}.png", image, mark=False)
        np.savez(tmp_path / f"{name}.npz", film=np.stack([image] * 30), picture=image)
        outputs = [tmp_path / f"{name}.npz"]
        counts[name] = (
            in_pictures(PHOTOS, [tmp_path / f"{name}.png"], 0, 12),
            in_pictures(OUTPUTS, outputs, 0, 12),
            in_films(FILM_OUTPUTS, outputs, 0, 6),
        )
    assert [count["found"] for count in counts["plain"]] == [0, 0, 0]
    assert all(count["found"] >= count["trials"] / 4 for count in counts["marked"])
    assert [count["trials"] for count in counts["plain"]] == [12, 12, 6]
    picture, _, film = counts["plain"]
    assert (
        3 < picture["highest"] < 7 < picture["needed"] < film["needed"]
    )  # a film is looked at more than once


def test_blocks_are_drawn_anew_and_runs_alike():
    first, again, other = (in_pictures(DRAWN, [], block, 10) for block in (0, 0, 1))
    assert first == again
    assert first["highest"] != other["highest"]
    assert first["trials"] == 10


def test_a_whole_run_can_be_interrupted_and_goes_on(models_home, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(survival, "SECONDS", 0.2)
    monkeypatch.setattr(survival, "DAMAGES", DAMAGES[:2])
    monkeypatch.setattr(survival, "WRITTEN", {".gif": {}})
    measured: list[str] = []
    cost = {"mark_ms": 0.5, "copy_ms": 0.1, "write_ms": 3.0, "write_marked_ms": 4.0, "file_growth": 0.3}

    def interrupted(photos):
        raise KeyboardInterrupt

    def measure_photo(photo, *arguments, **options):
        measured.append(photo.name)
        return survival.measure_photo(photo, *arguments, **options)

    monkeypatch.setattr(provenance, "measure_photo", measure_photo)
    monkeypatch.setattr(provenance, "measure_cost", interrupted)
    call = partial(
        main,
        [
            *("--data", str(tmp_path), "--keep", str(tmp_path / "keep"), "--jobs", "1", "--whole", "0"),
            *("--trials", "6", "--films", "2"),
            *("--json", str(tmp_path / "out.json"), "--markdown", str(tmp_path / "out.md")),
        ],
    )
    with pytest.raises(KeyboardInterrupt):
        call()
    assert not (tmp_path / "out.md").exists()
    assert len(measured) == 2  # the portraits of the project: there are no others in this folder
    monkeypatch.setattr(provenance, "measure_cost", lambda photos: cost)
    call()
    assert len(measured) == 2  # nothing was done again
    table = (tmp_path / "out.md").read_text()
    assert capsys.readouterr().out == table
    record = json.loads((tmp_path / "out.json").read_text())
    kinds = {row["kind"]: row["trials"] for row in record["false_positives"]}
    assert set(kinds) == {PHOTOS, OUTPUTS, DRAWN, FILM_OUTPUTS}  # no clips are there
    assert CLIPS not in kinds
    assert FILM_CLIPS not in kinds
    assert sum(row["found"] for row in record["false_positives"]) == 0
    assert {(row["size"], row["damage"], row["outputs"]) for row in record["survival"]} == {
        *((size, damage, 2) for size in ("512x512", "256x256") for damage in ("as it was made", "JPEG 60")),
        ("512x512", "written as .gif", 2),
    }
    assert all(row["found"] == 2 for row in record["survival"])


def test_what_other_sources_have_begun_is_not_gone_on_with(tmp_path):
    assert done_parts({"one": partial(dict, value=1)}, tmp_path) == [{"value": 1}]
    (tmp_path / "sources.txt").write_text("others")
    with pytest.raises(ReenactError, match="was begun with other sources; empty it"):
        done_parts({"one": partial(dict, value=2)}, tmp_path)


def test_several_processes_do_the_same_as_one(tmp_path):
    parts: dict[str, Any] = {f"part-{number}": partial(dict, value=number) for number in range(5)}
    assert done_parts(parts, tmp_path, jobs=2) == [{"value": number} for number in range(5)]


def test_the_table_says_what_the_counts_show():
    cost = {"mark_ms": 0.5, "copy_ms": 0.1, "write_ms": 3.0, "write_marked_ms": 4.0, "file_growth": 0.3}
    survivals = [Survival("512x512", "JPEG 60", 9, 10, 6.5, 20.0)]
    none = [
        FalsePositives(PHOTOS, 20_000, 0, 6.0, 7.2),
        FalsePositives(DRAWN, 10_000, 0, 6.0, 7.2),
        FalsePositives(FILM_CLIPS, 3_000, 1, 7.6, 7.5),
    ]
    table = markdown(cost, [44.0, 45.0], survivals, none)
    assert (
        "| pictures without a mark that pass for marked | 0 of 30000: below 1.0e-04 with 95 % confidence |"
        in table
    )
    assert "| films without a mark that pass for marked | 1 of 3000 |" in table
    assert "| JPEG 60 | 9 of 10, 6.5 |" in table
    assert "| time to mark a 512x512 frame | 0.50 ms, 5.0 times that of a copy |" in table
