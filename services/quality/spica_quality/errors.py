"""What can go wrong in the quality service besides what the runtime knows."""

from __future__ import annotations

from pathlib import Path

from spica_runtime.errors import NotRetriable, UsageError


def unreadable(path: Path, error: Exception) -> NotRetriable:
    """The file was verified once, and cannot be read now."""
    return NotRetriable(
        "unreadable_frame",
        f"{path} cannot be read: {error}. It was sound when it arrived; restore it and send the message again.",
        {"path": str(path)},
    )


def unknown_profile(name: str, known: list[str]) -> NotRetriable:
    """The message names an instrument profile that is not here."""
    return NotRetriable(
        "unknown_profile",
        f"No instrument profile is named {name!r}; known are {', '.join(known)}. Put the profile's file into "
        "the folder that SPICA_PROFILES names and send the message again.",
        {"profile": name},
    )


def unknown_stack(stack_id: str) -> NotRetriable:
    """A coadded stack that the store does not know."""
    return NotRetriable("unknown_stack", f"The store knows no stack {stack_id}.", {"stack_id": stack_id})


def bad_policy(path: Path, what: str) -> UsageError:
    """A policy, or the folder of policies, cannot be used."""
    return UsageError("bad_policy", f"The policy {path} cannot be used: {what}.", {"path": str(path)})
