"""Message in, outcome out: planning a stack. How it is made stands in `parts.py`."""

from __future__ import annotations

from spica_proto.stacks import StackFailed, StackPlanned, StackRequested
from spica_runtime.handling import Delivery, Outcome, Transaction
from spica_runtime.nodes import assign_stack
from spica_runtime.service import Platform

from spica_stack.laying import lay_out_now
from spica_stack.parts import ask_for_next
from spica_stack.planning import plan
from spica_stack.settings import StackSettings
from spica_stack.store import Store, hold, insert_members, insert_stack, replaced, set_failed


class Handlers:
    """What the stack service answers before a stack is made, and when it fails."""

    def __init__(self, platform: Platform[StackSettings], store: Store) -> None:
        self._platform, self._store, self._settings = platform, store, platform.settings

    # ---- stack.requested ----

    async def requested(self, message: StackRequested, delivery: Delivery) -> Outcome:
        """Choose the members and fix the output grid. The same request_id twice is one stack."""
        request_id = message.request_id or delivery.event_id
        if known := await self._store.stack_of_request(request_id):
            return Outcome(about=known.stack_id, summary=f"known: {known.name} is {known.state}")
        laid = await lay_out_now(self._platform.pool, message, self._settings, self._platform.files.locate)
        choice = laid.choice
        planned = plan(choice.request, request_id, choice, laid.grid, self._settings)

        async def save(transaction: Transaction) -> None:
            if await insert_stack(transaction.connection, planned, message, delivery.time):
                await insert_members(transaction.connection, planned.stack_id, choice.verdicts)
                await assign_stack(
                    transaction.connection,
                    self._platform.node,
                    self._platform.platform_settings,
                    planned.stack_id,
                )
                transaction.emit(planned)

        used = await self._store.products_at([member.header_path or "" for member in choice.members])
        return Outcome(
            save=save,
            about=planned.stack_id,
            used=used,
            configuration=choice.configuration,
            summary=_planned_summary(planned),
        )

    # ---- stack.failed ----

    async def failed(self, message: StackFailed, delivery: Delivery) -> Outcome:
        """Whichever stage gave up: the stack's state says so."""
        stack_id = message.stack_id
        if stack_id is None:
            return Outcome(summary="no stack was planned")

        async def save(transaction: Transaction) -> None:
            failure = message.model_dump(mode="json", include={"stage", "code", "message", "dead_letter_id"})
            await set_failed(transaction.connection, stack_id, failure)
            await self._resume_replaced(transaction, stack_id)

        return Outcome(save=save, about=stack_id, summary=f"failed in {message.stage}: {message.code}")

    async def _resume_replaced(self, transaction: Transaction, stack_id: str) -> None:
        """Nothing is made instead of the one that this was to replace: where that was in work, it goes on."""
        if (replaced_id := await replaced(transaction.connection, stack_id)) is None:
            return
        old = await hold(transaction.connection, replaced_id)
        if old is not None and not old.given_up and old.refusal() is None:
            await ask_for_next(transaction, old.stack_id, old.name)
            transaction.note(f"{old.name} ({old.stack_id}) was to be replaced by it, and goes on")


def _planned_summary(planned: StackPlanned) -> str:
    grid = planned.grid
    return (
        f"{planned.name}: {len(planned.image_ids)} exposures, {planned.n_left_out} left out, "
        f"{grid.width_px} x {grid.height_px} px"
    )
