"""Reading policies: those that come along, and those of a folder of the site's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from spica_quality.errors import bad_policy
from spica_quality.science.policy.policies import Policies, Policy, parse_policy

SHIPPED = Path(__file__).parent / "policies"


@dataclass(frozen=True, slots=True)
class PolicyFile:
    """A policy and where it stands."""

    policy: Policy
    path: Path
    shipped: bool


def load_policies(folder: Path | None = None) -> Policies:
    """All policies that hold: those that come along, and over them those of a folder.

    Raises
    ------
    UsageError
        A file cannot be used, or the folder is not there; the message says what is wrong with it.

    """
    return Policies(tuple(file.policy for file in policy_files(folder).values()))


def policy_files(folder: Path | None = None) -> dict[str, PolicyFile]:
    """The same by name, `default` first, with the file of each."""
    found = {file.policy.name: file for file in _read(SHIPPED, shipped=True)}
    if folder is not None:
        own: dict[str, PolicyFile] = {}
        for file in _read(folder, shipped=False):
            name = file.policy.name
            if name in own:
                raise bad_policy(
                    file.path, f"{own[name].path} is called {name!r} too: give it another `name`"
                )
            own[name] = file
        found |= own
    return dict(sorted(found.items(), key=lambda item: (item[0] != "default", item[0])))


def _read(folder: Path, *, shipped: bool) -> list[PolicyFile]:
    if not folder.is_dir():
        raise bad_policy(
            folder, "SPICA_QUALITY_POLICIES names a folder of policies (*.toml), and this is none"
        )
    return [PolicyFile(read_policy(path), path, shipped) for path in sorted(folder.glob("*.toml"))]


def read_policy(path: Path) -> Policy:
    """Read one file; `UsageError` says what is wrong with it."""
    try:
        return parse_policy(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        raise bad_policy(path, _faults(error)) from error
    except (OSError, ValueError) as error:
        raise bad_policy(path, str(error)) from error


def _faults(error: ValidationError) -> str:
    """All faults, each with the place in the file, in one line."""
    return "; ".join(
        f"{'.'.join(str(part) for part in fault['loc'])}: {message}" if fault["loc"] else message
        for fault in error.errors()
        for message in [fault["msg"].removeprefix("Value error, ")]
    )
