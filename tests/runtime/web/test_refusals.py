"""What clients are told of errors."""

from pathlib import Path

import pytest
from reenact.errors import BackendError, FaceNotFoundError, LimitError, MediaError
from reenact.runtime.media.limits import Limits
from reenact.runtime.web.refusals import refusal_of

PATH = Path("/srv/private/0123abcd")


def test_the_servers_own_path_is_never_told():
    refusal = refusal_of(MediaError(f"{PATH}: the picture is damaged; see {PATH} again"), PATH)
    assert str(PATH) not in refusal.message
    assert refusal.message == "The picture is damaged; see the file again"


def test_no_other_path_of_the_server_is_told_either():
    told = refusal_of(
        BackendError("engines in /home/ada/.cache/reenact/engines/ab12 are damaged; see C:\\Users\\x\\log")
    )
    assert told.message == "Engines in a file of the server are damaged; see a file of the server"
    assert refusal_of(MediaError("1/2 of 3.5 s/frame and 25/1")).message == "1/2 of 3.5 s/frame and 25/1"


@pytest.mark.parametrize(
    ("check", "said"),
    [
        (
            lambda: Limits(max_pixels=10).check_pixels(PATH, 5, 5),
            "5x5 pixels are more than the limit of 10; make it smaller",
        ),
        (
            lambda: Limits(max_seconds=1).check_seconds(PATH, 2.5),
            "2.5 s of video are more than the limit of 1 s",
        ),
    ],
)
def test_options_of_the_command_line_are_not_told(check, said):
    with pytest.raises(LimitError) as error:
        check()
    refusal = refusal_of(error.value, PATH)
    assert (refusal.status, refusal.code, refusal.message) == (413, "too_large", said)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (FaceNotFoundError("no face found"), 422, "no_face"),
        (MediaError("damaged"), 422, "unreadable"),
        (BackendError("no backend"), 409, "not_possible"),
    ],
)
def test_each_kind_of_error_has_its_word(error, status, code):
    refusal = refusal_of(error)
    assert (refusal.status, refusal.code) == (status, code)


def test_a_long_message_is_cut():
    assert len(refusal_of(MediaError("x" * 10_000)).message) <= 400
