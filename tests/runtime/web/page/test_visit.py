"""The page in a real browser, from coming to leaving: camera, pictures, speed, and what moves the portrait."""

import itertools
import os
import time

import numpy as np
import pytest
from reenact.benchmarks import load
from reenact.runtime.media.images import write_image
from reenact.runtime.media.reader import VideoReader
from reenact.runtime.motion import control_ranges
from reenact.runtime.provenance import verify

FREE_CORES = 0.2  # what others may use while speed is judged


@pytest.mark.timed
def test_a_whole_visit(on, visit, server, client, web, tmp_path, hopper):
    """Camera, upload, another photo, a recording, a face lost and found, a reload; nothing stays."""
    page, notes = visit(accept_downloads=True)
    on.ready(page)
    on.live(page)
    page.locator("#transport", has_text="WebRTC").wait_for()

    photo = tmp_path / "mine.png"
    write_image(photo, np.ascontiguousarray(hopper[:, ::-1]), mark=False)
    before = on.look(page)
    page.set_input_files("#upload", photo)
    page.locator(".tile.photo input:checked ~ .name", has_text="mine.png").wait_for()
    on.changes(page, before, 15)

    looks = []
    for _ in range(30):
        looks.append(on.look(page))
        time.sleep(0.03)
    moved = [np.abs(b - a).mean() for a, b in itertools.pairwise(looks)]
    assert sum(change > 0 for change in moved) > 10, "the portrait moves"
    web.wait_for(lambda: on.number(page, "#latency"), "the latency to be told")
    assert 0 < on.number(page, "#latency") < 2000

    before = on.look(page)
    page.locator(".tile.photo", has_text="Eileen Collins").click()
    on.changes(page, before, 15)

    page.click("#record")
    page.locator("#record[data-state=recording]").wait_for()
    time.sleep(1.5)
    with page.expect_download() as download:
        page.click("#record")
    recorded = tmp_path / "recorded.mp4"
    download.value.save_as(recorded)
    with VideoReader(recorded) as reader:
        frames = sum(1 for _ in reader)
        assert (reader.info.width, reader.info.height) == (256, 256)
        assert reader.info.duration > 1  # type: ignore[operator]
    assert frames > 5
    assert verify(recorded).marked

    on.says(page, "No face")
    page.locator("#hint", has_text="No face in view").wait_for()
    assert on.look(page).std() > 15, "the portrait stays; the empty room is never shown"
    on.says(page, "Live")

    with page.expect_download() as download:
        page.click("#snapshot")
    snapshot = tmp_path / "snapshot.png"
    download.value.save_as(snapshot)
    assert verify(snapshot).statement is not None

    sessions = set(server.service.sessions._sessions)
    page.reload()
    on.ready(page)
    web.wait_for(
        lambda: not sessions & set(server.service.sessions._sessions), "the session of before to end"
    )
    assert notes.errors == []
    assert notes.hosts == {f"127.0.0.1:{server.port}"}, "nothing comes from anywhere else"
    page.close(run_before_unload=True)
    web.wait_for(lambda: len(server.service.sessions) == 0, "the last session to end")


def yaw_of(page, on, engines, seconds):
    """Degrees that the portrait is turned by, the median over some seconds in which it is live."""
    tracker = engines.tracker.sibling(smooth=False)
    until = time.monotonic() + seconds
    yaws: list[float] = []
    while time.monotonic() < until or len(yaws) < 5:
        picture = on.look(page, 192).astype(np.uint8) if page.inner_text("#status") == "Live" else None
        face = None if picture is None else tracker.track(picture, time.monotonic())
        if face is not None:
            yaws.append(np.degrees(face.pose.yaw_pitch_roll[0]))
    return float(np.median(yaws))


@pytest.mark.timed
def test_an_edit_turns_the_live_portrait_and_reset_turns_it_back(on, visit, launch, engines, steady_film):
    page, notes = visit(using=launch(*on.fake_camera, film=steady_film))
    on.ready(page)
    on.live(page)
    page.click("#edits > summary")
    straight = yaw_of(page, on, engines, 1.5)
    page.locator("#slider-yaw").fill("20")
    page.wait_for_timeout(1000)
    assert yaw_of(page, on, engines, 1.5) == pytest.approx(straight + 20, abs=8)
    assert page.inner_text("#edited") == "1 on"
    page.click("#edits-reset")
    page.wait_for_timeout(1000)
    assert yaw_of(page, on, engines, 1.5) == pytest.approx(straight, abs=5)
    assert page.locator("#slider-yaw").input_value() == "0"
    assert notes.errors == []


@pytest.mark.timed
def test_a_portrait_of_256_pixels_moves_at_20_pictures_a_second(
    on, visit, launch, steady_film, record_property
):
    """Server and browser on the same two cores; where others need these too, it says nothing."""
    if not load.available():
        pytest.skip("this system does not tell what other programs use of the cores")
    page, _ = visit(using=launch(*on.fake_camera, film=steady_film))
    on.ready(page)
    on.live(page)
    page.locator("#transport", has_text="WebRTC").wait_for()
    page.wait_for_timeout(2000)
    others = load.OthersLoad()
    shown = "() => document.querySelector('#stream').getVideoPlaybackQuality().totalVideoFrames"
    told = []
    before, began = page.evaluate(shown), time.monotonic()
    for _ in range(6):
        page.wait_for_timeout(1000)
        told.append(on.number(page, "#fps"))
    fps, busy = (page.evaluate(shown) - before) / (time.monotonic() - began), others.cores
    record_property("fps", fps)
    record_property("others_cores", busy)
    assert np.mean(told) == pytest.approx(fps, rel=0.2, abs=2), "the page tells what the browser shows"
    if fps < 20 and (busy > FREE_CORES or len(os.sched_getaffinity(0)) < 2):
        pytest.skip(f"{fps:.1f} pictures a second while other programs kept {busy:.1f} cores busy")
    assert fps >= 20


def test_where_udp_is_blocked_the_websocket_carries_the_pictures(on, visit, server, web, monkeypatch):
    """No packet gets through to the server's media sockets, as behind a strict firewall."""
    from aioice.ice import StunProtocol

    monkeypatch.setattr(StunProtocol, "datagram_received", lambda *packet: None)
    page, notes = visit()
    on.ready(page)
    on.live(page)
    page.locator("#transport", has_text="WebSocket").wait_for()
    before = on.look(page)
    page.locator(".tile.photo", has_text="Grace Hopper").click()
    on.changes(page, before, 15)
    web.wait_for(lambda: on.number(page, "#fps") >= 5, "pictures to come")
    on.shots(page, "websocket")
    assert notes.errors == []


def test_every_control_of_the_motions_can_be_edited(on, visit, server, web):
    """Each with a name of its own in its group, and all at once."""
    page, notes = visit()
    on.ready(page)
    page.click("#edits > summary")
    page.click("#all-edits > summary")
    names = set(control_ranges())
    here = page.locator("#edits input[type=range]").evaluate_all(
        "(all) => all.map((slider) => slider.id.replace('slider-', ''))"
    )
    assert len(here) == len(set(here))
    assert set(here) == names
    labels = page.locator("#edits .sliders").evaluate_all(
        """(groups) => groups.flatMap((group) => [...group.querySelectorAll("label")].map(
          (label) => group.querySelector("legend").textContent + ": " + label.firstChild.textContent))"""
    )
    assert len(set(labels)) == len(names), "no two are called the same"
    assert "Mouth, in detail: Smile, left" in labels
    page.locator("#edits input[type=range]").evaluate_all(
        """(all) => all.forEach((slider) => {
          slider.value = Number(slider.value) + 0.05 * (slider.max - slider.min);
          slider.dispatchEvent(new Event("input"));
        })"""
    )
    assert page.inner_text("#edited") == f"{len(names)} on"
    session = on.newest_session(server)
    web.wait_for(lambda: set(session.live.settings.edits) == names, "all edits to be taken")
    assert page.locator("#alert").is_hidden()
    page.locator("#slider-noseSneer_R").scroll_into_view_if_needed()
    box = page.locator("#screen").bounding_box()
    assert 0 <= box["y"] < box["y"] + box["height"] <= page.viewport_size["height"], (
        "the portrait stays in view"
    )
    on.shots(page, "all_controls")
    assert notes.errors == []


def test_before_the_camera_edits_show_on_the_standing_portrait(on, visit, web):
    page, notes = visit()
    on.ready(page)
    page.locator("#cover", has_text="Bring this photo to life").wait_for()
    on.shots(page, "idle")
    web.wait_for(lambda: on.look(page).std() > 15, "the portrait")
    before = on.look(page)
    page.click("#edits > summary")
    page.wait_for_timeout(1000)
    assert on.unlike(page, before) < 0.5, "it stands still"
    page.locator("#slider-yaw").fill("25")
    on.changes(page, before, 4)
    page.click("#edits-reset")
    web.wait_for(lambda: on.unlike(page, before) < 0.5, "the portrait to turn back")
    page.click("#all-edits > summary")
    page.locator("#find").fill("jaw open")
    assert page.inner_text("#found") == "1 found"
    page.get_by_role("slider", name="Open").last.fill("0.8")
    on.changes(page, before, 1)
    assert page.inner_text("#edited") == "1 on"
    before = on.look(page)
    page.select_option("#whole", "whole")
    on.changes(page, before, 4)
    assert notes.errors == []
