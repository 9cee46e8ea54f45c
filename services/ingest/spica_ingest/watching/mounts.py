"""What kind of file system a folder lies on. Linux; elsewhere nothing is known."""

from __future__ import annotations

from pathlib import Path

_REMOTE = (
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "9p", "ceph", "lustre", "gpfs", "beegfs", "glusterfs", "orangefs",
    "ncpfs", "coda", "virtiofs", "panfs",
)  # fmt: skip
_REMOTE_FUSE = (
    "sshfs",
    "glusterfs",
    "ceph",
    "s3fs",
    "goofys",
    "gcsfuse",
    "rclone",
    "cvmfs2",
    "beegfs",
    "mount-s3",
)
_MOUNTS = Path("/proc/self/mountinfo")


def network_file_system(folder: Path, mounts: Path = _MOUNTS) -> str | None:
    """Type of the file system that `folder` lies on, if other hosts may write to it; else None.

    The kernel notices only what is done through itself there.
    """
    try:
        table = mounts.read_text(errors="surrogateescape")
    except OSError:
        return None
    kind = file_system(folder, table)
    if kind is None:
        return None
    name, _, program = kind.partition(".")
    remote = name in _REMOTE or (name == "fuse" and program in _REMOTE_FUSE)
    return kind if remote else None


def file_system(folder: Path, table: str) -> str | None:
    """Type of the file system of a folder by a table as in proc_pid_mountinfo(5); the last mount on a point counts."""
    path = Path(folder).resolve()
    found: tuple[int, str] | None = None
    for line in table.splitlines():
        before, _, behind = line.partition(" - ")
        fields, kinds = before.split(" "), behind.split(" ")
        if len(fields) < 5 or not kinds[0]:
            continue
        point = Path(_plain(fields[4]))
        if path.is_relative_to(point) and (found is None or len(point.parts) >= found[0]):
            found = (len(point.parts), kinds[0])
    return found[1] if found else None


def _plain(field: str) -> str:
    """A path of the table: space, tab, newline and backslash stand there as octal numbers."""
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, character)
    return field
