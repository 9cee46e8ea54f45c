"""`spica grade`: a person's judgement, which goes over the policy's."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from spica_console import exits
from spica_console.output import JsonOption


def grade(
    image: Annotated[str, typer.Argument(help="Image: id, beginning of an id, or name.")],
    grade: Annotated[str, typer.Argument(help="A (perfect) to D (not to be used).")],
    why: Annotated[str, typer.Option("--why", help="Your reason, kept with the grade.")],
    json: JsonOption = False,
) -> None:
    """Grade an image yourself. The grades before it stay; all services hear of the new one."""
    if grade not in ("A", "B", "C", "D"):
        exits.leave(exits.USAGE, f"{grade!r} is no grade: say A, B, C or D.")
    if not why.strip():
        exits.leave(exits.USAGE, "Say why: the reason is kept with the grade.")
    given = exits.run(lambda: _grade(image, grade, why.strip()))
    if json:
        from spica_console import output

        output.print_json(given)
    else:
        print(f"{given['name']} is {given['grade']} now, by {given['graded_by']}.")


async def _grade(image: str, grade: str, why: str) -> dict[str, Any]:
    import getpass

    from spica_console.connecting import reach_store
    from spica_console.grading import grade_by_person

    async with reach_store() as (pool, _):
        message = await grade_by_person(pool, image, grade, person=getpass.getuser(), why=why)
    return message.model_dump(mode="json", exclude_none=True)
