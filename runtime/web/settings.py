"""What a server is told when it starts: where it listens, who may come in, and how much each may ask for."""

import ipaddress
import re
import secrets
import socket
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import ReenactError
from ..engine import Precision

__all__ = ["ServeSettings", "WebLimits", "is_loopback", "public_name", "resolve_token"]

_OWN_TOKEN = re.compile(r"[A-Za-z0-9._~-]{16,}")
"""Of a user's own: nothing that an address, a header and a WebSocket's subprotocol do not all carry as it is."""


@dataclass(frozen=True)
class WebLimits:
    """How much is taken from clients; beyond it they get a refusal that names the limit."""

    sessions: int = 4
    """Sessions at once, of all clients together."""
    photos: int = 24
    """Uploaded photos of one session."""
    videos: int = 4
    """Uploaded videos of one session."""
    jobs: int = 8
    """Jobs of one session, done or not; the server runs one at a time."""
    photo_bytes: int = 20_000_000
    photo_pixels: int = 40_000_000
    video_bytes: int = 200_000_000
    video_pixels: int = 2_100_000
    video_seconds: float = 120.0
    job_seconds: float = 1800.0
    """For which one job may run."""
    recordings: int = 4
    """Of one session, kept at once."""
    recording_seconds: float = 600.0
    json_bytes: int = 65_536
    """Body of a request that is no upload; an SDP offer is the largest of them."""
    frame_bytes: int = 1_000_000
    """One camera picture over the WebSocket."""
    frame_pixels: int = 1_000_000
    """One camera picture, whatever it came by."""
    decode_seconds: float = 10.0
    """For which an upload may be decoded before it is given up."""
    upload_seconds: float = 120.0
    """For which an upload may take to arrive."""
    idle_seconds: float = 120.0
    """After which a session that nothing is heard of, and that has no job to finish, is closed."""
    unused_seconds: float = 900.0
    """After which a session whose page is open, but sends no frames and asks for nothing, is closed."""
    reconnect_seconds: float = 15.0
    """For which a session waits for its page after the connection broke."""
    requests_per_second: float = 100.0
    """Of one address, on average."""
    requests_at_once: int = 300
    """Of one address, before the average counts."""
    openings_per_minute: float = 20.0
    """New sessions of one address, on average."""
    openings_at_once: int = 10


@dataclass(frozen=True)
class ServeSettings:
    """How `reenact serve` was asked to run."""

    host: str = "127.0.0.1"
    port: int = 8000
    listening: str | None = None
    """The address that was found for `host`, where that is a name."""
    token: str | None = None
    """None lets everybody in who reaches the address, which is then a loopback address."""
    allowed_hosts: tuple[str, ...] = ()
    """Host names, beside the address itself, under which browsers may ask for the page."""
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    webrtc: bool = True
    backend: str = "auto"
    precision: Precision = "auto"
    limits: WebLimits = field(default_factory=WebLimits)

    @property
    def address(self) -> str:
        """Where the server listens, for media too."""
        return self.listening or self.host

    def __post_init__(self) -> None:
        if not is_loopback(self.host) and self.token is None:
            raise ReenactError(
                f"--host {self.host}: others can reach this address, so a token is needed; add --token auto, "
                "or leave --host out"
            )
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ReenactError("--tls-cert and --tls-key belong together; give both or neither")


def is_loopback(host: str) -> bool:
    """Whether only programs on this machine can reach `host`, a name or an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def public_name(settings: ServeSettings) -> str:
    """The name or address by which browsers are told to ask for the page."""
    everywhere = settings.host in ("0.0.0.0", "::")
    return socket.gethostname() if everywhere else settings.host


def resolve_token(given: str | None) -> str | None:
    """The token for --token: "auto" makes one of 192 random bits; ReenactError where an own one is unfit."""
    if given is None:
        return None
    if given == "auto":
        return secrets.token_urlsafe(24)
    if not _OWN_TOKEN.fullmatch(given):
        raise ReenactError(
            "--token: expected 16 or more of the letters a to z and A to Z, digits and the signs - . _ ~; "
            "--token auto makes a good one"
        )
    return given
