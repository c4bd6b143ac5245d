"""A real PostgreSQL, for the tests that ask one."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def postgres_cluster(password: str, programs: Path | None = None) -> Iterator[Path]:
    """A cluster of its own: the folder of its socket, which is its host. The user ``me`` has the ``password``.
    ``programs``: the folder of initdb and pg_ctl (None: the newest of Debian's packages)."""
    if programs is None:
        of_debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
        if not of_debian:
            pytest.skip("PostgreSQL is not installed")
        programs = of_debian[-1]
    folder = Path(tempfile.mkdtemp(prefix="pg"))  # a socket's path has at most 107 bytes
    (folder / "password").write_text(password)
    plain = {}
    if os.getuid() == 0:  # PostgreSQL refuses to run as root
        nobody = pwd.getpwnam("nobody")
        plain = {"user": nobody.pw_uid, "group": nobody.pw_gid}
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        os.chown(folder / "password", nobody.pw_uid, nobody.pw_gid)

    def program(name: str, *arguments: str) -> None:
        command = [str(programs / name), "-D", str(folder / "data"), *arguments]
        environment = {"PATH": os.environ["PATH"], "LC_ALL": "C"}
        subprocess.run(command, check=True, cwd="/", env=environment, stdout=subprocess.DEVNULL, **plain)

    account = ["-U", "me", "-A", "scram-sha-256", "--pwfile", str(folder / "password")]
    program("initdb", *account, "-E", "UTF8", "--no-sync")
    options = f"-k {folder} -c listen_addresses='' -c fsync=off"
    program("pg_ctl", "-w", "-l", str(folder / "log"), "-o", options, "start")
    try:
        yield folder
    finally:
        program("pg_ctl", "-m", "immediate", "stop")
        shutil.rmtree(folder)
