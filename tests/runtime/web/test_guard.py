"""Uploads decoded apart: every hostile file ends in a picture or a clear refusal, and in no process left behind."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from reenact.runtime.media.images import read_image
from reenact.runtime.web import guard as guard_module
from reenact.runtime.web.guard import MAX_SIDE, Guard
from reenact.runtime.web.refusals import Refusal
from reenact.runtime.web.settings import WebLimits


def guarded(work, limits=None):
    """Run `work(guard)`; afterwards none of its processes is alive."""

    async def running():
        guard = Guard(limits or WebLimits())
        try:
            return await work(guard)
        finally:
            await guard.close()
            assert guard._running == set()

    before = children()
    result = asyncio.run(running())
    assert children() - before == set()
    return result


def children():
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # gone meanwhile
            continue
        if fields[1] == str(os.getpid()) and fields[0] != "Z":
            found.add(stat.parent.name)
    return found


def refusals(what, paths, limits=None):
    """Status and code for each of the files."""

    async def refused(guard, path):
        with pytest.raises(Refusal) as refusal:
            await getattr(guard, what)(path)
        assert str(path) not in refusal.value.message
        assert "--" not in refusal.value.message
        return refusal.value.status, refusal.value.code

    async def all_refused(guard):
        return await asyncio.gather(*(refused(guard, path) for path in paths))

    return guarded(all_refused, limits)


@pytest.fixture
def photo(tmp_path, hopper):
    path = tmp_path / "photo"
    path.write_bytes(cv2.imencode(".png", cv2.cvtColor(hopper, cv2.COLOR_RGB2BGR))[1].tobytes())
    return path


def test_a_photo_comes_back_pixel_for_pixel(photo, hopper):
    decoded = guarded(lambda guard: guard.photo(photo))
    np.testing.assert_array_equal(decoded, hopper)


def test_a_large_photo_is_made_smaller_before_it_gets_to_us(tmp_path):
    path = tmp_path / "large"
    path.write_bytes(cv2.imencode(".jpg", np.full((1000, 4000, 3), 200, np.uint8))[1].tobytes())
    assert guarded(lambda guard: guard.photo(path)).shape == (MAX_SIDE // 4, MAX_SIDE, 3)


def test_hostile_photos_are_refused(shared_data):
    hostile = shared_data / "hostile"
    expected = {
        "bomb_40000.png": (413, "too_large"),
        "bad_crc.png": (422, "unreadable"),
        "truncated.jpg": (422, "unreadable"),
        "html.png": (415, "unknown_kind"),
        "ok_reference.mp4": (415, "unknown_kind"),
    }
    said = refusals("photo", [hostile / name for name in expected])
    assert dict(zip(expected, said, strict=True)) == expected


def test_a_photo_with_two_sizes_is_refused():
    assert refusals("photo", [Path(__file__).resolve().parents[2] / "data/two_sizes.jpg"]) == [
        (422, "unreadable")
    ]


def test_odd_photos_are_read(shared_data):
    paths = [shared_data / "hostile" / name for name in ("cmyk.jpg", "rgb16.png", "exif_orientation_6.jpg")]

    async def decoded(guard):
        return [await guard.photo(path) for path in paths]

    for path, image in zip(paths, guarded(decoded), strict=True):
        np.testing.assert_array_equal(image, read_image(path))


def test_hostile_videos_are_refused(shared_data):
    hostile = shared_data / "hostile"
    expected = {
        "clip_4k.mp4": (413, "too_large"),
        "truncated_no_index.mp4": (422, "unreadable"),
        "audio_only.mp4": (422, "unreadable"),
    }
    said = refusals("video", [hostile / name for name in expected])
    assert dict(zip(expected, said, strict=True)) == expected
    assert refusals("video", [hostile / "ok_reference.mp4"], WebLimits(video_seconds=1.0)) == [
        (413, "too_large")
    ]


def test_a_playlist_leads_nowhere(tmp_path, shared_data):
    """Neither to another file of the server nor to an address."""
    film = shared_data / "hostile/ok_reference.mp4"
    lists = {
        "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{film}\n#EXT-X-ENDLIST\n",
        "concat": f"ffconcat version 1.0\nfile '{film}'\n",
    }
    paths = [tmp_path / name for name in lists]
    for path in paths:
        path.write_text(lists[path.name])
    assert refusals("video", paths) == [(422, "unreadable")] * 2
    assert refusals("photo", paths[:1]) == [(415, "unknown_kind")]


def test_what_a_video_is(shared_data):
    facts = guarded(lambda guard: guard.video(shared_data / "hostile/ok_reference.mp4"))
    assert (facts.width, facts.height, facts.fps, facts.frames, facts.seconds) == (256, 256, 25.0, 75, 3.0)


def test_a_decoder_that_hangs_is_given_up(photo, monkeypatch):
    limits = replace(WebLimits(), decode_seconds=0.3)
    monkeypatch.setattr(guard_module, "_start", starting("import time; time.sleep(60)"))
    began = time.monotonic()
    assert refusals("photo", [photo], limits) == [(422, "unreadable")]
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    "code",
    [
        "print('this is no JSON', flush=True)",
        "print('{}', flush=True)",
        """print('{"height": 9000, "width": 9000}', flush=True)""",
        """print('{"height": 10, "width": 10}', flush=True)""",
        "import sys; sys.stdout.write('x' * 1_000_000)",
        "print('[1, 2]', flush=True)",
        "import subprocess; subprocess.Popen(['sleep', '60'])",
    ],
)
def test_a_decoder_that_breaks_or_lies_is_not_believed(photo, monkeypatch, code):
    monkeypatch.setattr(guard_module, "_start", starting(code))
    assert refusals("photo", [photo], WebLimits(decode_seconds=1.5)) == [(422, "unreadable")]


def test_a_decoder_that_crashes_costs_only_its_own_upload(photo, hopper, monkeypatch):
    async def twice(guard):
        with pytest.raises(Refusal, match="could not be decoded safely"):
            await guard.photo(photo)
        monkeypatch.undo()
        await guard.close()  # the spare process is a broken one too
        np.testing.assert_array_equal(await guard.photo(photo), hopper)

    monkeypatch.setattr(guard_module, "_start", starting("import os; os.abort()"))
    guarded(twice)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no resource limits")
def test_a_decoder_can_write_no_file_and_takes_bounded_memory(tmp_path):
    code = f"""
import json, resource, sys
from reenact.runtime.web import decoder
decoder._limit_resources(7)
told = [resource.getrlimit(what)[0] for what in (resource.RLIMIT_FSIZE, resource.RLIMIT_AS, resource.RLIMIT_CPU)]
try:
    open({str(tmp_path / "written")!r}, "w").write("x" * 9999)
except OSError:
    told.append("no file")
try:
    bytearray(4 << 30)
except MemoryError:
    told.append("no memory")
print(json.dumps(told))
"""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert json.loads(done.stdout) == [0, 2 << 30, 7, "no file", "no memory"], done.stderr


def starting(code):
    """Stands in for the decoder: another program, started as it is."""

    async def start():
        return await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, start_new_session=True
        )

    return start
