"""Who may ask: Host, Origin, token, rate; and what every answer carries. Without networks: the gate alone."""

import asyncio
import json
import random
import socket

import pytest
from reenact.errors import ReenactError

httpx = pytest.importorskip("httpx", reason="the server's tests need httpx, which is not installed")
pytest.importorskip("fastapi", reason="the server needs fastapi, which is not installed")
from reenact.runtime.web import server  # noqa: E402
from reenact.runtime.web.metrics import Metrics  # noqa: E402
from reenact.runtime.web.rates import RateLimiter  # noqa: E402
from reenact.runtime.web.security import PROTOCOL, TOKEN_PREFIX, Gate  # noqa: E402
from reenact.runtime.web.settings import ServeSettings, WebLimits, is_loopback, resolve_token  # noqa: E402
from starlette.applications import Starlette  # noqa: E402
from starlette.responses import PlainTextResponse  # noqa: E402
from starlette.routing import Route, WebSocketRoute  # noqa: E402

TOKEN = "correct-horse-battery"


def inner():
    async def answer(request):
        return PlainTextResponse("in")

    async def socket(websocket):
        await websocket.accept(PROTOCOL)
        await websocket.send_text("in")
        await websocket.close()

    paths = ("/", "/static/main.js", "/api/health", "/api/sessions", "/metrics")
    return Starlette(
        routes=[
            *(Route(path, answer, methods=["GET", "POST"]) for path in paths),
            WebSocketRoute("/live", socket),
        ]
    )


class Asked:
    """The gate with something behind it, asked without a network."""

    address = "192.0.2.9"

    def __init__(self, settings):
        self.metrics = Metrics()
        self.app = Gate(inner(), settings, self.metrics)

    def get(self, path, headers=None):
        return self.ask("GET", path, headers)

    def post(self, path, headers=None):
        return self.ask("POST", path, headers)

    def ask(self, method, path, headers):
        async def asking():
            transport = httpx.ASGITransport(self.app, client=(self.address, 1))
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
                return await client.request(method, path, headers=headers)

        return asyncio.run(asking())

    def raw(self, given):
        """Status, headers and body for headers as they are, without a client that mends them."""
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/metrics",
            "query_string": b"",
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in given.items()],
            "client": (self.address, 1),
        }
        sent = []

        async def receive():
            return {"type": "http.request"}

        async def send(message):
            sent.append(message)

        asyncio.run(self.app(scope, receive, send))
        headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return sent[0]["status"], headers, b"".join(message.get("body", b"") for message in sent[1:])

    def socket(self, *subprotocols, **headers):
        """What the server sends when a WebSocket is opened."""
        given = {"host": "127.0.0.1:8000", "sec-websocket-protocol": ", ".join(subprotocols), **headers}
        scope = {
            "type": "websocket",
            "path": "/live",
            "headers": [(name.encode(), value.encode()) for name, value in given.items()],
            "subprotocols": list(subprotocols),
            "client": (self.address, 1),
            "extensions": {"websocket.http.response": {}},
        }
        sent = []

        async def receive():
            return {"type": "websocket.connect"}

        async def send(message):
            sent.append(message)

        asyncio.run(self.app(scope, receive, send))
        return sent


def gate(host="127.0.0.1", **settings):
    return Asked(ServeSettings(host=host, port=8000, **settings))


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8000", "localhost:8000", "LOCALHOST", "[::1]:8000", "127.0.0.2", "localhost.:8000"]
)
def test_names_of_this_machine_are_answered(host):
    assert gate().get("/", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "127.0.0.1.evil.example", "192.168.1.5:8000", "localhost@evil.example"),
        *("", "localhost/evil", "localhost:8000:9", "evil.example#localhost", "localhost:x"),
    ],
)
def test_other_names_are_refused_so_that_no_name_can_be_rebound_to_us(host):
    answer = gate().get("/", headers={"Host": host})
    assert answer.status_code == 421
    assert answer.json()["code"] == "wrong_host"


def test_a_server_for_all_addresses_answers_to_its_machines_name_which_it_prints():
    settings = ServeSettings(host="0.0.0.0", port=8000, token=TOKEN)
    printed = server.address(settings)
    assert printed == f"http://{socket.gethostname()}:8000/#token={TOKEN}"
    assert (
        gate("0.0.0.0", token=TOKEN).get("/", headers={"Host": f"{socket.gethostname()}:8000"}).status_code
        == 200
    )
    assert server.address(ServeSettings(host="::1", port=1)) == "http://[::1]:1/"


def test_a_reachable_server_answers_to_addresses_and_to_names_it_was_told():
    client = gate("0.0.0.0", token=TOKEN, allowed_hosts=("Studio.local",))
    assert client.get("/", headers={"Host": "192.168.1.5:8000"}).status_code == 200
    assert client.get("/", headers={"Host": "studio.local:8000"}).status_code == 200
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 421


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9000"},
        {"Origin": "http://localhost:8000"},
        {"Origin": "file://127.0.0.1:8000"},
        {"Origin": "http://["},
        {"Origin": "http://[::1"},
        {"Origin": "http://127.0.0.1:8000]"},
        {"Origin": "http://\u2100.example".encode()},
        {"Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://evil.example", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "cross-site"},
    ],
)
def test_requests_of_other_pages_are_refused(headers):
    answer = gate().post("/api/sessions", headers=headers)
    assert answer.status_code == 403
    assert answer.json()["code"] == "wrong_origin"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "http://127.0.0.1:8000", "Sec-Fetch-Site": "same-origin"},
        {"Origin": "https://127.0.0.1:8000"},
        {"Sec-Fetch-Site": "none"},
    ],
)
def test_our_own_page_and_programs_are_let_in(headers):
    assert gate().post("/api/sessions", headers=headers).status_code == 200


def test_a_link_from_another_page_opens_ours():
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert gate().get("/", headers=headers).status_code == 200


def test_a_websocket_of_another_page_is_refused():
    first = gate().socket(PROTOCOL, origin="http://evil.example")[0]
    assert (first["type"], first["status"]) == ("websocket.http.response.start", 403)
    assert gate().socket(PROTOCOL, origin="http://127.0.0.1:8000")[0]["type"] == "websocket.accept"


def test_without_the_token_only_the_page_itself_is_given():
    client = gate("0.0.0.0", token=TOKEN)
    open_to_all = ("/", "/static/main.js", "/api/health")
    assert [client.get(path).status_code for path in open_to_all] == [200, 200, 200]
    for path in ("/api/sessions", "/metrics", "/static", "/api/healthy"):
        assert client.get(path).status_code == 401, path
    refused = client.post("/api/sessions")
    assert (refused.status_code, refused.json()["code"]) == (401, "token_needed")
    assert refused.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "given", ["Bearer wrong-horse-battery", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer", "ü"]
)
def test_a_wrong_token_is_refused(given):
    headers = {"Authorization": given.encode("latin-1")}
    assert gate("0.0.0.0", token=TOKEN).get("/metrics", headers=headers).status_code == 401


def test_the_right_token_lets_in():
    client = gate("0.0.0.0", token=TOKEN)
    assert client.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"}).text == "in"
    accepted = client.socket(PROTOCOL, TOKEN_PREFIX + TOKEN)[0]
    assert (accepted["type"], accepted["subprotocol"]) == ("websocket.accept", PROTOCOL)
    assert client.socket(PROTOCOL, TOKEN_PREFIX + "wrong")[0]["status"] == 401
    assert client.socket(PROTOCOL)[0]["status"] == 401


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


def guessed(client, times):
    return [client.get("/metrics", headers=bearer(f"{n:020}")).status_code for n in range(times)]


def test_guessing_tokens_is_slowed_down_to_one_in_five_seconds():
    """Beyond ten not even the right one is looked at, else an answer would tell the guesser."""
    client, clock = gate("0.0.0.0", token=TOKEN), Clock()
    client.app._wrong_tokens = RateLimiter(0.2, 10, clock)
    assert guessed(client, 14) == [401] * 10 + [429] * 4
    refused = client.get("/metrics", headers=bearer(TOKEN))
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "5")
    clock.now = 4.9
    assert guessed(client, 1) == [429]
    clock.now = 5.1
    assert guessed(client, 2) == [401, 429]
    clock.now = 10.2
    assert client.get("/metrics", headers=bearer(TOKEN)).status_code == 200, "nobody is shut out for good"


def test_a_guesser_has_no_more_tries_for_having_a_whole_ipv6_network():
    client = gate("::", token=TOKEN)
    told = []
    for last in range(12):
        client.address = f"2001:db8::{last:x}"
        told += guessed(client, 1)
    assert told == [401] * 10 + [429] * 2
    client.address = "2001:db8:0:1::1"
    assert guessed(client, 1) == [401]


def test_whoever_shares_an_address_with_a_guesser_and_was_in_before_stays_in():
    client = gate("0.0.0.0", token=TOKEN)
    assert client.get("/metrics", headers=bearer(TOKEN)).status_code == 200
    guessed(client, 20)
    assert client.get("/metrics", headers=bearer(TOKEN)).status_code == 200
    assert client.get("/metrics").status_code == 401, "no token is still none"


def test_asking_without_a_token_is_no_guess():
    client = gate("0.0.0.0", token=TOKEN)
    assert [client.get("/metrics").status_code for _ in range(20)] == [401] * 20
    assert client.get("/metrics", headers=bearer(TOKEN)).status_code == 200


def test_too_many_requests_are_told_when_to_come_back():
    limits = WebLimits(requests_per_second=1.0, requests_at_once=3)
    client = gate(limits=limits)
    answers = [client.get("/") for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert client.metrics.value("reenact_refusals_total", reason="too_many_requests") == 2
    assert int(answers[-1].headers["Retry-After"]) >= 1


def test_every_answer_carries_strict_headers():
    for answer in (
        gate().get("/"),
        gate().get("/nothing"),
        gate().get("/", headers={"Host": "evil.example"}),
    ):
        policy = answer.headers["Content-Security-Policy"]
        for part in ("default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"):
            assert part in policy.split("; ")
        assert "unsafe" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert "microphone=()" in answer.headers["Permissions-Policy"]
    assert gate().get("/api/sessions").headers["Cache-Control"] == "no-store"


def test_no_header_whatever_it_holds_breaks_the_gate():
    """It is the first that reads them; what it cannot read it refuses, in words and with strict headers."""
    bits = (
        "http://",
        "[",
        "]",
        "::1",
        "127.0.0.1:8000",
        "@",
        ":",
        "/",
        "?",
        "#",
        "%",
        "null",
        "Bearer ",
        TOKEN,
        ",",
    )
    names = ("Origin", "Host", "Authorization", "Sec-Fetch-Site", "Sec-Fetch-Mode", "Sec-WebSocket-Protocol")
    chance = random.Random(5)
    client = gate(
        "0.0.0.0", token=TOKEN, limits=WebLimits(requests_per_second=1e6, requests_at_once=1_000_000)
    )
    seen = set()
    for _ in range(3000):
        given = {
            name: "".join(
                chance.choice((*bits, chr(chance.randint(33, 255)))) for _ in range(chance.randint(0, 5))
            )
            for name in chance.sample(names, chance.randint(1, 3))
        }
        status, headers, body = client.raw({"Host": "127.0.0.1:8000", **given})
        seen.add(status)
        assert status in (200, 401, 403, 421, 429), given
        assert "content-security-policy" in headers, given
        assert status == 200 or json.loads(body)["code"], given
    assert {200, 401, 403, 421} <= seen


def test_others_may_reach_it_only_with_a_token():
    for host in ("0.0.0.0", "192.168.1.5", "::", "studio.local"):
        with pytest.raises(ReenactError, match="--token auto"):
            ServeSettings(host=host)
        ServeSettings(host=host, token=TOKEN)


def test_loopback_addresses_need_no_token():
    assert all(is_loopback(host) for host in ("127.0.0.1", "127.8.9.10", "::1", "localhost"))
    assert not any(is_loopback(host) for host in ("0.0.0.0", "::", "128.0.0.1", "localhost.evil.example", ""))


def test_tokens_are_long_and_those_made_are_never_the_same():
    assert resolve_token(None) is None
    first, second = resolve_token("auto"), resolve_token("auto")
    assert first is not None
    assert len(first) >= 32
    assert first != second
    assert resolve_token(TOKEN) == TOKEN
    assert resolve_token("All_16.signs~fit-") == "All_16.signs~fit-"
    others = [f"sixteen{sign}and-more" for sign in "+/=,@:#&%?\n"]  # no page could carry them
    for bad in (
        "short",
        "fifteen-letters",
        "has spaces in it all over",
        "ünïcödetokenünïcöde",
        "control\x00characters",
        "ends-with-a-line\n",
        *others,
    ):
        with pytest.raises(ReenactError, match="--token"):
            resolve_token(bad)


def test_certificate_and_key_belong_together(tmp_path):
    with pytest.raises(ReenactError, match="--tls-key"):
        ServeSettings(tls_certificate=tmp_path / "cert.pem")
