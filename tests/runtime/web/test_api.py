"""The OpenAPI description holds, whatever is sent: schemathesis makes requests up, right ones and wrong ones."""

import pytest

pytest.importorskip("aiortc", reason="the server needs the extra [web], which is not installed")
schemathesis = pytest.importorskip(
    "schemathesis", reason="schemathesis, which makes requests up, is not installed"
)
from hypothesis import HealthCheck, Phase, settings  # noqa: E402
from reenact.runtime.web.app import create_api  # noqa: E402
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
def places(serve):
    """Sessions that requests hit, made anew whenever one of them was closed."""
    with serve(sessions=4, jobs=1000, photos=1000, recordings=1000) as running, running.client() as client:
        yield Places(running, client)


class Places:
    def __init__(self, running, client):
        self.running, self.client, self.id = running, client, None

    def session(self):
        if self.id is None or self.client.get(f"/api/sessions/{self.id}").status_code != 200:
            for session in list(self.running.service.sessions._sessions):
                self.client.delete(f"/api/sessions/{session}")
            self.id = self.client.post("/api/sessions").json()["id"]
        return self.id


made_up = schema.exclude(path_regex="/events$").parametrize()


def some(examples, *phases):
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        phases=phases,
        suppress_health_check=list(HealthCheck),
    )


@made_up
@some(3, Phase.generate)
def test_requests_made_up_are_answered_as_described(case, places):
    check(case, places)


@pytest.mark.slow
@made_up
@some(40, Phase.explicit, Phase.generate)
def test_very_many_requests_made_up_are_answered_as_described(request, case, places):
    if "slow" not in request.config.getoption("markexpr"):
        pytest.skip("takes minutes; run with -m slow")
    check(case, places)


def check(case, places):
    if "session_id" in case.path_parameters and len(str(case.path_parameters["session_id"])) % 4:
        case.path_parameters["session_id"] = places.session()  # three of four get past the door
    response = case.call(base_url=places.running.url, timeout=30)
    case.validate_response(response, checks=CHECKS)
    if response.status_code >= 400:
        problem = response.json()
        assert problem["code"]
        assert problem["message"]
        assert "Traceback" not in problem["message"]


def test_the_server_is_well_after_all_that(places):
    health = places.client.get("/api/health").json()
    assert health["status"] == "ok"
    assert places.client.get(f"/api/sessions/{places.session()}").json()["status"]["state"] == "waiting"
