"""The OpenAPI description holds, whatever is sent: schemathesis makes requests up, right ones and wrong ones."""

import time
from collections import Counter

import pytest

pytest.importorskip("aiortc", reason="the server needs the extra [web], which is not installed")
schemathesis = pytest.importorskip(
    "schemathesis", reason="schemathesis, which makes requests up, is not installed"
)
from hypothesis import HealthCheck, Phase, given, settings  # noqa: E402
from hypothesis.strategies import one_of  # noqa: E402
from reenact.runtime.web.app import create_api  # noqa: E402
from reenact.runtime.web.guard import VideoFacts  # noqa: E402
from reenact.runtime.web.photos import Video  # noqa: E402
from reenact.runtime.web.service import Service  # noqa: E402
from reenact.runtime.web.settings import ServeSettings  # noqa: E402
from schemathesis.checks import not_a_server_error  # noqa: E402
from schemathesis.specs.openapi.checks import (  # noqa: E402
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
description = create_api(Service(ServeSettings())).openapi()
schema = schemathesis.openapi.from_dict(description)
operations = [found.ok() for found in schema.get_all_operations()]


def test_every_route_says_how_it_refuses():
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            where = f"{method} {path}"
            statuses = set(operation["responses"])
            assert {"401", "403", "421", "429"} <= statuses, where
            assert not path.count("{session_id}") or "404" in statuses, where
            assert operation["description"], where
            assert operation["tags"], where


@pytest.fixture(scope="module")
def places(serve, hopper_jpeg):
    """Sessions that requests hit, made anew whenever one of them was closed, with one of everything in them."""
    with (
        serve(sessions=4, jobs=1000, photos=1000, recordings=1000, videos=1000) as running,
        running.client() as client,
    ):
        yield Places(running, client, hopper_jpeg)


class Places:
    """What ids in paths may name: all of it is there when a request asks for it."""

    def __init__(self, running, client, photo):
        self.running, self.client, self.content = running, client, photo
        self.id = None
        self.reached: Counter[str] = Counter()

    def session(self):
        if self.id is None or self.client.get(f"/api/sessions/{self.id}").status_code != 200:
            for session in list(self.running.service.sessions._sessions):
                self.client.delete(f"/api/sessions/{session}")
            self.id = self.client.post("/api/sessions").json()["id"]
        return self.id

    @property
    def _path(self):
        return f"/api/sessions/{self.session()}"

    def photo_id(self):
        own = [
            photo["id"] for photo in self.client.get(f"{self._path}/photos").json() if not photo["built_in"]
        ]
        return own[0] if own else self.client.post(f"{self._path}/photos", content=self.content).json()["id"]

    def video_id(self):
        store = self.running.service.sessions.get(self.session()).photos
        if not store.videos():
            video = Video("v" * 12, store._folder / "none", VideoFacts(16, 16, 25.0, 5, 0.2))
            store._videos[video.id] = video
        return store.videos()[0].id

    def job_id(self):
        """One that has ended, so that its events do, too."""
        jobs = self.running.service.sessions.get(self.session()).jobs
        for job in jobs._jobs.values():
            if job.state == "done":
                return job.id
        info = self.client.post(
            f"{self._path}/jobs", json={"photo": "grace-hopper", "motion": "blink"}
        ).json()
        job = jobs._jobs[info["id"]]
        job.task.get_loop().call_soon_threadsafe(job.task.cancel)
        while not job.task.done():
            time.sleep(0.01)
        job.output.write_bytes(b"a film")
        job.state = "done"
        return job.id

    def recording_id(self):
        recordings = self.running.service.sessions.get(self.session()).recordings
        for recording in recordings._recordings.values():
            if not recording.info.recording:
                return recording.id
        for recording in list(recordings._recordings):
            self.running.run(recordings.remove(recording))
        made = self.client.post(f"{self._path}/recordings").json()["id"]
        self.client.patch(f"{self._path}/live", json={"edits": {"yaw": 5}})
        self.client.post(f"{self._path}/recordings/{made}/stop")
        return made


def some(examples, *phases):
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        phases=phases,
        suppress_health_check=list(HealthCheck),
    )


@pytest.mark.parametrize("operation", operations, ids=lambda operation: operation.label)
def test_requests_made_up_are_answered_as_described(operation, places):
    """Some that fit the description and some that do not."""
    ways = [operation.as_strategy(generation_mode=mode) for mode in schemathesis.GenerationMode]

    @some(4, Phase.generate)
    @given(case=one_of(*ways))
    def answered(case):
        check(case, places)

    answered()


@pytest.mark.slow
@schema.parametrize()
@some(40, Phase.explicit, Phase.generate)
def test_very_many_requests_made_up_are_answered_as_described(request, case, places):
    if "slow" not in request.config.getoption("markexpr"):
        pytest.skip("takes minutes; run with -m slow")
    check(case, places)


def check(case, places):
    """Three of four of the ids are those of something that is there."""
    for name, value in case.path_parameters.items():
        if len(str(value)) % 4:
            case.path_parameters[name] = places.session() if name == "session_id" else getattr(places, name)()
    response = case.call(base_url=places.running.url, timeout=30)
    case.validate_response(response, checks=CHECKS)
    if response.status_code < 400:
        places.reached[case.operation.path] += 1
    else:
        problem = response.json()
        assert problem["code"]
        assert problem["message"]
        assert "Traceback" not in problem["message"]


def test_requests_got_behind_the_door_everywhere(places):
    """Not only refusals came from what is named by a second id."""
    named = {path for path in description["paths"] if path.count("{") == 2}
    assert len(named) >= 8
    missed = {path for path in named if not places.reached[path]}
    assert not missed, "only refusals came from these"


def test_the_server_is_well_after_all_that(places):
    health = places.client.get("/api/health").json()
    assert health["status"] == "ok"
    assert places.client.get(f"/api/sessions/{places.session()}").json()["status"]["state"] == "waiting"
