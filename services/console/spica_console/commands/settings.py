"""`spica settings`: every setting there is, with its name in the environment, default and meaning."""

from __future__ import annotations

from spica_console import exits
from spica_console.output import JsonOption


def settings(json: JsonOption = False) -> None:
    """List all settings: how each is called in the environment, what it is now, what it does.

    In spica.toml (or the file named by SPICA_CONFIG) they stand in the table of their part, without prefix.
    """
    from spica_console import output
    from spica_console.catalogue import all_settings

    rows = exits.run(all_settings)
    if json:
        output.print_json(rows)
        return
    console = output.console()
    for part in dict.fromkeys(row["part"] for row in rows):
        console.print(
            output.table(
                f"[{part}]".replace("[", "\\["),
                ("environment", "default", "now", "meaning"),
                (
                    (
                        row["env"],
                        row["default"],
                        row["now"] if row["now"] != row["default"] else "",
                        row["meaning"],
                    )
                    for row in rows
                    if row["part"] == part
                ),
            )
        )
