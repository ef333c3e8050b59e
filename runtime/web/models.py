"""The bodies of the HTTP API, as OpenAPI shows them; live settings and status are in `live.py`, jobs in `jobs.py`."""

from pydantic import BaseModel, ConfigDict, Field

from .live import LiveSettings, LiveStatus

__all__ = [
    "Answer",
    "Capabilities",
    "ControlInfo",
    "Health",
    "LimitsInfo",
    "Offer",
    "PhotoInfo",
    "SessionInfo",
    "SystemInfo",
    "VideoInfo",
]


class Health(BaseModel):
    """Whether the server is up and has room."""

    status: str = Field(examples=["ok"])
    version: str
    sessions: int
    places: int


class SystemInfo(BaseModel):
    """A method that makes the pictures."""

    name: str
    available: bool
    reason: str | None


class ControlInfo(BaseModel):
    """One of the motion controls that `edits` may name."""

    name: str
    low: float
    high: float


class LimitsInfo(BaseModel):
    """What is taken at most."""

    photo_bytes: int
    photo_pixels: int
    video_bytes: int
    video_pixels: int
    video_seconds: float
    frame_bytes: int
    frame_pixels: int
    recording_seconds: float


class Capabilities(BaseModel):
    """What this server can do."""

    systems: list[SystemInfo]
    sizes: list[int]
    controls: list[ControlInfo]
    motions: list[str]
    webrtc: bool
    limits: LimitsInfo


class SessionInfo(BaseModel):
    """A session; keep its id to yourself, it opens everything in it."""

    id: str
    settings: LiveSettings
    status: LiveStatus


class PhotoInfo(BaseModel):
    """A photo that can be shown."""

    id: str
    name: str = Field(description="Of built-in photos; empty for uploads.")
    width: int
    height: int
    built_in: bool


class VideoInfo(BaseModel):
    """A video that can drive a job."""

    id: str
    width: int
    height: int
    fps: float
    seconds: float | None


class Offer(BaseModel):
    """An SDP offer with one video, sent and received, and all candidates in it."""

    model_config = ConfigDict(extra="forbid")

    sdp: str = Field(min_length=1, max_length=60_000)


class Answer(BaseModel):
    """The SDP answer, complete with candidates."""

    sdp: str
