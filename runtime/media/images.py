"""Reads and writes still pictures; size limits are checked on the header, before anything is decoded."""

import mmap
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from ...errors import MediaError
from .decode import StreamDecoder
from .frame import Image
from .headers import HEADER_ERRORS, Header, read_header
from .limits import Limits
from .picture import over_white, upright

__all__ = ["read_image", "read_image_header", "write_image"]

_WRITE_OPTIONS = {
    ".png": [cv2.IMWRITE_PNG_COMPRESSION, 3],
    ".jpg": [cv2.IMWRITE_JPEG_QUALITY, 95],
    ".jpeg": [cv2.IMWRITE_JPEG_QUALITY, 95],
    ".webp": [cv2.IMWRITE_WEBP_QUALITY, 95],
    ".bmp": [],
    ".tiff": [],
    ".tif": [],
}
