"""The steps in which a stack is made; each waits for all of the one before."""

from __future__ import annotations

from typing import Literal

Step = Literal["prepare", "tile", "assemble"]
"""As in the contract (`spica_proto.stacks.StackPartWanted`)."""

STEPS: tuple[Step, ...] = ("prepare", "tile", "assemble")
