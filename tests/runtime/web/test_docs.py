"""What docs/serve.md says: its Python examples run as they are, its tables name what there is."""

import re
import shutil
from pathlib import Path

import pytest
from reenact.runtime.media.images import read_image
from reenact.runtime.media.reader import VideoReader
from reenact.runtime.reenactor import Reenactor

pytest.importorskip("aiortc", reason="the server needs the extra [web], which is not installed")
pytest.importorskip("httpx", reason="the examples need httpx, which is not installed")
from reenact.runtime import assets
from reenact.runtime.web import metrics
from reenact.runtime.web.app import create_api
from reenact.runtime.web.service import Service
from reenact.runtime.web.settings import ServeSettings

PAGE = (Path(__file__).resolve().parents[3] / "docs/serve.md").read_text(encoding="utf-8")
FILM, FRAMES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def run_example(server, web, tmp_path, monkeypatch):
    """Runs the text of an example against the server, in a folder with the files that it names."""
    monkeypatch.chdir(tmp_path)
    for name in ("photo.jpg", "frame.jpg"):
        shutil.copy(assets.portrait("grace_hopper"), tmp_path / name)

    def run(code):
        assert "127.0.0.1:8000" in code
        web.wait_for(lambda: len(server.service.sessions) == 0, "the sessions of other tests to end")
        exec(compile(code.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}"), "docs/serve.md", "exec"), {})
        assert len(server.service.sessions) == 0, "the example closes its session"

    return run


def test_the_example_of_a_film_makes_it(run_example, tmp_path, capsys, models_home):
    with Reenactor(assets.portrait("eileen_collins"), crop=True) as reenactor:
        reenactor.run_motion("blink", tmp_path / "driving.mp4", duration=0.5)
    run_example(FILM)
    assert capsys.readouterr().out.splitlines()[-1] == "done 15 of 15"
    with VideoReader(tmp_path / "film.mp4") as reader:
        assert sum(1 for _ in reader) == 15


def test_the_example_of_frames_gets_pictures(run_example, tmp_path):
    run_example(FRAMES)
    assert read_image(tmp_path / "picture.jpg").shape == (256, 256, 3)


def test_every_route_and_every_metric_is_named():
    for path in create_api(Service(ServeSettings())).openapi()["paths"]:
        short = path.removeprefix("/api/sessions/{session_id}")
        short = re.sub(r"\{\w+_id\}", "{id}", short)
        assert short in PAGE, path
    for name in metrics._HELP:
        assert name in PAGE
