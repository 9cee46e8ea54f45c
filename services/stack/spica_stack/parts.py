"""A stack is made in parts that stand for themselves: members are prepared, tiles made, files put together.

What is decided, is decided in the transaction that says a part is done, with the stack's row held: whether the step is
complete, what follows, and whether anybody still wants it. So it does not matter who does which part, who is killed, and
what comes twice.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

from spica_proto.stacks import Gain, StackCalibrated, StackCoadded, StackPartWanted
from spica_runtime.handling import Delivery, Outcome, Transaction
from spica_runtime.service import Platform

from spica_stack import store as table
from spica_stack.errors import unknown_stack
from spica_stack.making.order import CoaddResult
from spica_stack.making.parts import Made, PartsMissingError, Task, make_part, parts_of, told_path
from spica_stack.making.steps import STEPS, Step
from spica_stack.ordering import Work, paths_of, work_on
from spica_stack.progress import Progress
from spica_stack.settings import StackSettings
from spica_stack.store import DonePart, Making, Standing, Store
from spica_stack.sweeping import Sweeper

_STACKS_AT_A_TIME = 4
# Where each host has its own files, those of a stack may be moved meanwhile; for SPICA_NODE_KEEP_S they stay as well.
_FOUND_FOR_S = 120.0


class Parts:
    """What the stack service answers while a stack is made."""

    def __init__(
        self, platform: Platform[StackSettings], store: Store, progress: Progress, sweeper: Sweeper
    ) -> None:
        self._platform, self._store, self._settings = platform, store, platform.settings
        self._progress, self._sweeper = progress, sweeper
        self._work: OrderedDict[str, tuple[float, Work]] = OrderedDict()

    # ---- stack.calibrated ----

    async def begin(self, message: StackCalibrated, delivery: Delivery) -> Outcome:
        """Decide into which parts the stack falls, and ask for the first ones."""
        stack_id, reference = message.stack_id, message.reference.name
        work = await work_on(self._platform, self._store, stack_id, reference=reference)
        order = work.order
        members, n_tiles = await asyncio.to_thread(parts_of, order)
        samples = await self._store.input_samples(stack_id) + order.grid.width * order.grid.height
        whole = work.engine != "spica" or samples < 1e6 * self._settings.whole_below_megasamples
        making = Making(delivery.event_id, whole, n_tiles, order.memory_bytes, order.tile_samples, reference)
        before = await self._store.standing(stack_id)
        if before is not None and before.making is not None:
            # Made of other solutions, most likely.
            await asyncio.to_thread(shutil.rmtree, order.data.path(order.parts), ignore_errors=True)

        async def save(transaction: Transaction) -> None:
            connection = transaction.connection
            await table.hold(connection, stack_id)
            await table.begin_making(connection, stack_id, making)
            if not whole:
                await table.add_parts(connection, stack_id, "prepare", members)
                await table.add_parts(connection, stack_id, "tile", range(n_tiles))
            await table.add_parts(connection, stack_id, "assemble", [0])
            await ask_for_next(transaction, stack_id, work.stack.name)

        parts = "in one part" if whole else f"in parts: {len(members)} members, {n_tiles} tiles"
        return Outcome(
            save=save, about=stack_id, configuration=work.configuration, summary=f"to be made {parts}"
        )

    # ---- stack.part_wanted ----

    async def part(self, message: StackPartWanted, delivery: Delivery) -> Outcome:
        """Do one part, and ask for what follows."""
        stack_id, step, number = message.stack_id, message.step, message.number
        standing = await self._store.standing(stack_id)
        if standing is None:
            raise unknown_stack(stack_id)
        if standing.given_up:
            return self._put_aside(message)
        making, refusal = standing.making, standing.refusal()
        refusal = refusal or await self._untimely(message)
        if refusal is not None or making is None:
            return self._dropped(message, f"{step} {number} not done: {refusal}")
        work = await self._work_on(stack_id, making)
        task = Task(work.order, step, number, making.token, making.whole, work.engine)
        try:
            async with self._progress.of(stack_id, told_path(work.order) if step == "assemble" else None):
                made = await self._platform.compute.run(make_part, task)
        except PartsMissingError as missing:
            return self._back_to(message, missing, making)
        return await self._done(message, made, work, making)

    async def _untimely(self, message: StackPartWanted) -> str | None:
        """Why this part is not to be done now; it is asked for again when its time comes."""
        done = await self._store.part_is_done(message.stack_id, message.step, message.number)
        if done is not False:
            return "done already" if done else "not wanted any more"
        counts = await self._store.steps(message.stack_id)
        for step in STEPS[: STEPS.index(message.step)]:
            if step in counts and counts[step].done < counts[step].total:
                return f"step {step} is not complete (any more)"
        return None

    def _dropped(self, message: StackPartWanted, words: str) -> Outcome:
        """Nothing is done. Sent again for a stack that had failed, it still says that the stack goes on."""

        async def save(transaction: Transaction) -> None:
            standing = await table.hold(transaction.connection, message.stack_id)
            if standing is None or standing.state != "failed" or standing.given_up:
                return
            if standing.refusal() is None:
                await _go_on(transaction, message.stack_id, message.name)
                transaction.note("the stack goes on")

        return Outcome(save=save, about=message.stack_id, summary=words)

    async def _done(self, message: StackPartWanted, made: Made, work: Work, making: Making) -> Outcome:
        stack_id, step = message.stack_id, message.step
        part = DonePart(
            step, message.number, made.path, made.sha256, made.numbers, socket.gethostname(), made.elapsed_s
        )

        async def save(transaction: Transaction) -> None:
            connection = transaction.connection
            standing = await self._held(transaction, stack_id, making)
            if standing is None:
                return
            if not await table.finish_part(connection, stack_id, part):
                transaction.note("done by another worker meanwhile")
                return
            if made.result is not None:
                coadded = _coadded(work, made.result)
                await table.set_coadded(connection, stack_id, _kept(coadded, made.result, work))
                transaction.emit(coadded)
                self._sweeper.look_soon()
                return
            if standing.given_up:
                return
            if standing.state == "failed":
                await _go_on(transaction, stack_id, work.stack.name)
            counts = await table.steps(connection, stack_id)
            if counts[step].done == counts[step].total:
                await ask_for_next(transaction, stack_id, work.stack.name)

        outcome = Outcome(
            save=save,
            about=stack_id,
            summary=f"{step} {message.number} in {made.elapsed_s:.1f} s",
            log=made.log,
        )
        return outcome if made.result is None else await self._with_provenance(outcome, work, made.result)

    async def _with_provenance(self, outcome: Outcome, work: Work, result: CoaddResult) -> Outcome:
        paths = [path for row in work.members for path in paths_of(row)[1:]]
        if work.base is not None and work.base.sums is not None:
            paths.append(work.base.sums)
        return replace(
            outcome,
            used=(*(row.image for row in work.members), *await self._store.products_at(paths)),
            made=tuple(result.products.values()),
            configuration=work.configuration,
            summary=f"{result.n_exposures} exposures, {result.exposure_time_s:g} s",
        )

    def _back_to(self, message: StackPartWanted, missing: PartsMissingError, making: Making) -> Outcome:
        """Files of an earlier step are gone: they are made once more, and after that this part is asked for again."""

        async def save(transaction: Transaction) -> None:
            if await self._held(transaction, message.stack_id, making) is None:
                return
            again = await table.want_again(
                transaction.connection, message.stack_id, missing.step, missing.numbers
            )
            await _ask(transaction, message.stack_id, message.name, missing.step, again)
            transaction.note(f"{len(again)} parts of step {missing.step} are wanted again")

        return Outcome(
            save=save,
            about=message.stack_id,
            summary=f"{message.step} {message.number} not done: files of step {missing.step} are missing",
        )

    def _put_aside(self, message: StackPartWanted) -> Outcome:
        """Nothing is done for a stack that has failed. When it goes on, it asks for what was put aside."""

        async def save(transaction: Transaction) -> None:
            standing = await table.hold(transaction.connection, message.stack_id)
            if standing is not None and standing.given_up:
                await table.put_aside(transaction.connection, message.stack_id, message.step, message.number)
            elif standing is not None and standing.refusal() is None:
                await _ask(transaction, message.stack_id, message.name, message.step, [message.number])
                transaction.note("the stack goes on meanwhile: asked for again")

        return Outcome(
            save=save,
            about=message.stack_id,
            summary=f"{message.step} {message.number} not done: stack has failed",
        )

    async def _held(self, transaction: Transaction, stack_id: str, making: Making) -> Standing | None:
        """Hold the stack; None where this part has no effect any more (and the log says why)."""
        standing = await table.hold(transaction.connection, stack_id)
        refusal = "no such stack" if standing is None else standing.refusal(making.token)
        if refusal is not None:
            transaction.note(f"without effect: {refusal}")
            return None
        return standing

    async def _work_on(self, stack_id: str, making: Making) -> Work:
        """The stack's order; kept, since it is the same for all of its parts."""
        now, known = time.monotonic(), self._work.get(making.token)
        if known is None or (self._platform.node.placed and now - known[0] > _FOUND_FOR_S):
            known = (
                now,
                await work_on(
                    self._platform,
                    self._store,
                    stack_id,
                    reference=making.reference,
                    making=making,
                ),
            )
        self._work[making.token] = known
        self._work.move_to_end(making.token)
        while len(self._work) > _STACKS_AT_A_TIME:
            self._work.popitem(last=False)
        return known[1]


async def ask_for_next(transaction: Transaction, stack_id: str, name: str) -> None:
    """Ask for all that is not done of the first step that is not complete; whoever asks holds the stack."""
    counts = await table.steps(transaction.connection, stack_id)
    for step in STEPS:
        if step in counts and counts[step].done < counts[step].total:
            numbers = await table.wanted(transaction.connection, stack_id, step)
            await _ask(transaction, stack_id, name, step, numbers)
            return


async def _go_on(transaction: Transaction, stack_id: str, name: str) -> None:
    """A stack that had failed is being made again: ask for the parts that were put aside meanwhile."""
    for step, numbers in await table.go_on(transaction.connection, stack_id):
        await _ask(transaction, stack_id, name, step, numbers)


async def _ask(
    transaction: Transaction, stack_id: str, name: str, step: Step, numbers: Sequence[int]
) -> None:
    counts = await table.steps(transaction.connection, stack_id)
    for number in numbers:
        transaction.emit(
            StackPartWanted(stack_id=stack_id, name=name, step=step, number=number, of=counts[step].total)
        )


def _coadded(work: Work, result: CoaddResult) -> StackCoadded:
    products = result.products
    return StackCoadded(
        stack_id=work.stack.stack_id,
        name=work.stack.name,
        filter=work.stack.filter,
        image=products["image"],
        weight=products["weight"],
        n_exposures=result.n_exposures,
        exposure_time_s=result.exposure_time_s,
        zeropoint_mag=result.zeropoint_mag,
        rejected_pixels=result.n_rejected,
        exposures=products.get("exposures"),
        rejected=products.get("rejected"),
        sums=products.get("sums"),
        gains=tuple(
            Gain(
                image_id=gain.image_id,
                name=gain.name,
                depth_mag=gain.depth_mag,
                fwhm_arcsec=gain.fwhm_arcsec,
                coverage=gain.coverage,
            )
            for gain in result.gains
        ),
        engine=work.engine,
    )


def _kept(coadded: StackCoadded, result: CoaddResult, work: Work) -> dict[str, object]:
    """What stays in the store of making a stack."""
    said = coadded.model_dump(
        mode="json", exclude={"stack_id", "name", "filter", "engine"}, exclude_none=True
    )
    return {
        "coadd": {
            **said,
            "left_out": list(result.left_out),
            "members": [row.image_id for row in work.members],
            "engine": work.engine,
            "elapsed_s": {step: round(seconds, 3) for step, seconds in result.elapsed_s.items()},
        }
    }
