"""A file that an encoder writes and that is of use at any moment: where the disk refuses, what there is stays."""

import os
from pathlib import Path

__all__ = ["GrowingFile"]


class GrowingFile:
    """For PyAV to write to. The first write that fails raises OSError; whatever is written later is thrown away.

    So when the encoder is closed after that, nothing is changed in a file that can be read up to there.
    """

    def __init__(self, path: Path) -> None:
        """Create or empty the file; OSError where that cannot be."""
        self.name = str(path)
        self._file = path.open("wb", buffering=0)
        self.failed = False

    def write(self, content: bytes) -> int:
        """At the place that `seek` has set, or after what was written last."""
        if self.failed:
            return len(content)
        try:
            done = 0
            while done < len(content):
                done += self._file.write(content[done:])
        except OSError:
            self.failed = True
            raise
        return done

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """The new place in bytes."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """The place in bytes."""
        return self._file.tell()

    def close(self) -> None:
        """Close the file; PyAV leaves that to us."""
        self._file.close()
