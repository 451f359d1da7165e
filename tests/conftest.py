"""One set of rules for every test: no clock decides a law, no test reaches beyond loopback, none waits for a disk."""

import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import settings

# Deadlines measure the machine, not the law: the first call of a test may import torch.
settings.register_profile("semalign", deadline=None)
settings.load_profile("semalign")

MEMORY, ROOM_BYTES = Path("/dev/shm"), 4 * 1024**3


def pytest_configure() -> None:
    """Folders of tests lie in memory where there is room for them, unless TMPDIR names another place.

    All that is written is synced, which takes a disk milliseconds each time; what that is good for would show only
    without power. Where nothing may be executed, the libraries that some tests build could not be loaded.
    """
    if "TMPDIR" in os.environ or not os.access(MEMORY, os.W_OK):
        return
    if shutil.disk_usage(MEMORY).free > ROOM_BYTES and not os.statvfs(MEMORY).f_flag & os.ST_NOEXEC:
        os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)
