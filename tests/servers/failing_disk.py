"""A disk that fails or is slow, for one process and some of its files: a library loaded before all others."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static long number(const char *name) { const char *text = getenv(name); return text ? atol(text) : 0; }

static int watched(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n <= 0) return 0;
    path[n] = 0;
    const char *part = getenv("DISK_WATCH");
    return strstr(path, part ? part : "ledger.sqlite") != NULL;
}

/* 1 when this call must fail; counted over all threads, told to whoever reads the log */
static int strikes(const char *what, int fd) {
    static long calls = 0;
    if (!watched(fd)) return 0;
    long at = number("DISK_FAILS_AT"), now = __atomic_add_fetch(&calls, 1, __ATOMIC_SEQ_CST);
    int failed = at && (now == at || (now > at && number("DISK_STAYS_BROKEN")));
    const char *log = getenv("DISK_LOG");
    if (log) {
        char line[80];
        int length = snprintf(line, sizeof line, "%ld %s%s\n", now, what, failed ? " failed" : "");
        FILE *file = fopen(log, "a");
        if (file) { syscall(SYS_write, fileno(file), line, length); fclose(file); }
    }
    if (failed) errno = (int)number("DISK_ERRNO");
    return failed;
}

#define REAL(name, type) static __typeof__(type) real; if (!real) real = (__typeof__(type))dlsym(RTLD_NEXT, name)

ssize_t write(int fd, const void *bytes, size_t n) {
    REAL("write", ssize_t (*)(int, const void *, size_t));
    return strikes("write", fd) ? -1 : real(fd, bytes, n);
}
ssize_t pwrite(int fd, const void *bytes, size_t n, off_t at) {
    REAL("pwrite", ssize_t (*)(int, const void *, size_t, off_t));
    return strikes("write", fd) ? -1 : real(fd, bytes, n, at);
}
ssize_t pwrite64(int fd, const void *bytes, size_t n, off64_t at) {
    REAL("pwrite64", ssize_t (*)(int, const void *, size_t, off64_t));
    return strikes("write", fd) ? -1 : real(fd, bytes, n, at);
}
int ftruncate(int fd, off_t n) {
    REAL("ftruncate", int (*)(int, off_t));
    return strikes("truncate", fd) ? -1 : real(fd, n);
}
int ftruncate64(int fd, off64_t n) {
    REAL("ftruncate64", int (*)(int, off64_t));
    return strikes("truncate", fd) ? -1 : real(fd, n);
}
static void dawdle(int fd) {
    long ms = watched(fd) ? number("DISK_SYNC_MS") : 0;
    struct timespec pause = {ms / 1000, (ms % 1000) * 1000000L};
    if (ms) nanosleep(&pause, NULL);
}
int fsync(int fd) {
    REAL("fsync", int (*)(int));
    dawdle(fd);
    return strikes("sync", fd) ? -1 : real(fd);
}
int fdatasync(int fd) {
    REAL("fdatasync", int (*)(int));
    dawdle(fd);
    return strikes("sync", fd) ? -1 : real(fd);
}
"""


def failing_disk(folder: Path) -> Path:
    """The library, compiled into a folder; the test is skipped by name where nothing compiles it."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not Path("/proc/self/fd").is_dir():
        pytest.skip("no C compiler (or no /proc): writes cannot be made to fail from outside")
    source, library = folder / "disk.c", folder / "disk.so"
    source.write_text(_SOURCE, encoding="utf-8")
    command = [compiler, "-shared", "-fPIC", "-O1", "-w", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True, capture_output=True)
    return library


def environment(
    library: Path,
    log: Path,
    *,
    fails_at: int = 0,
    stays_broken: bool = False,
    errno: int = 0,
    sync_ms: int = 0,
    watch: str = "ledger.sqlite",
) -> dict[str, str]:
    """What a process on such a disk has in its environment.

    Args:
        watch: what the path of a file holds that may fail.
        fails_at: number of the write, truncation or sync of the watched files that fails, from 1; 0 none.
        stays_broken: all that come after it fail as well.
        sync_ms: how much longer every sync takes.
        log: gets a line for each, "<number> write|truncate|sync[ failed]".
    """
    return {
        "LD_PRELOAD": str(library),
        "DISK_WATCH": watch,
        "DISK_LOG": str(log),
        "DISK_FAILS_AT": str(fails_at),
        "DISK_STAYS_BROKEN": str(int(stays_broken)),
        "DISK_ERRNO": str(errno),
        "DISK_SYNC_MS": str(sync_ms),
    }
