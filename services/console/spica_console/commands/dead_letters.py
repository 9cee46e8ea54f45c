"""`spica dead-letters`: messages that could not be handled; look at them, send them again."""

from __future__ import annotations

from typing import Annotated

import typer

from spica_console import exits
from spica_console.output import JsonOption

app = typer.Typer(no_args_is_help=True, help="Messages that could not be handled.")


@app.command("list", epilog=exits.EPILOG)
def list_letters(
    everything: Annotated[bool, typer.Option("--all", help="Also those that were sent again.")] = False,
    json: JsonOption = False,
) -> None:
    """List dead letters that wait, oldest first, each with the reason."""
    exits.run(lambda: _list(everything, json))


@app.command("show", epilog=exits.EPILOG)
def show(
    letter: Annotated[str, typer.Argument(help="Id of a dead letter, or its beginning.")],
    json: JsonOption = False,
) -> None:
    """Show one dead letter with its body, headers and numbers."""
    exits.run(lambda: _show(letter, json))


@app.command("resend", epilog=exits.EPILOG)
def resend(
    letters: Annotated[list[str] | None, typer.Argument(help="Ids, or their beginnings.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that wait.")] = False,
    json: JsonOption = False,
) -> None:
    """Send dead letters again, to the service that could not handle them and to no other."""
    exits.run(lambda: _resend(letters or [], everything, json))


async def _list(everything: bool, as_json: bool) -> None:
    from spica_runtime import deadletters

    from spica_console import output
    from spica_console.connecting import reach_store

    async with reach_store() as (pool, _):
        letters = await deadletters.waiting(pool, everything=everything)
    if as_json:
        output.print_json(letters)
    elif not letters:
        print("No dead letter waits.")
    else:
        output.console().print(
            output.table(
                "",
                ("id", "when", "service", "subject", "code", "message", "attempts", "sent again"),
                (
                    (
                        letter["dead_letter_id"][:8],
                        f"{letter['created_at']:%Y-%m-%d %H:%M:%S}",
                        letter["service"],
                        letter["subject"],
                        letter["code"],
                        letter["message"],
                        letter["attempts"],
                        f"{letter['sent_again_at']:%H:%M:%S}" if letter["sent_again_at"] else "",
                    )
                    for letter in letters
                ),
            )
        )


async def _show(letter_id: str, as_json: bool) -> None:
    from spica_runtime import deadletters

    from spica_console import output
    from spica_console.connecting import reach_store
    from spica_console.letters import the_one

    async with reach_store() as (pool, _):
        letter = the_one(await deadletters.waiting(pool, everything=True), letter_id)
    if as_json:
        output.print_json(letter)
        return
    console = output.console()
    console.print(f"[bold]{letter['dead_letter_id']}[/]  {letter['service']} heard {letter['subject']}")
    console.print(f"  [red]{letter['code']}[/]: {letter['message']}")
    console.print(f"  {letter['attempts']} attempt(s), {letter['created_at']:%Y-%m-%d %H:%M:%S}")
    for title in ("numbers", "headers"):
        for key, value in letter[title].items():
            console.print(f"  [dim]{key}[/] {value}", markup=True)
    print(letter["body"])


async def _resend(wanted: list[str], everything: bool, as_json: bool) -> None:
    from spica_runtime import deadletters
    from spica_runtime.errors import UsageError

    from spica_console import output
    from spica_console.connecting import reach_store
    from spica_console.letters import the_one

    if not wanted and not everything:
        raise UsageError("nothing_named", "Name dead letters, or say --all.")
    async with reach_store() as (pool, _):
        waiting = await deadletters.waiting(pool)
        chosen = waiting if everything else [the_one(waiting, letter_id) for letter_id in wanted]
        sent = [
            {
                "dead_letter_id": letter["dead_letter_id"],
                "message_id": await deadletters.resend(pool, letter["dead_letter_id"]),
            }
            for letter in chosen
        ]
    if as_json:
        output.print_json(sent)
    else:
        print(f"{len(sent)} dead letter(s) sent again; running services publish them within a second.")
