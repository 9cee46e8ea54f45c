"""`spica show`: all that is known of an image or a stack."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from spica_console import exits
from spica_console.output import JsonOption


def show(
    name: Annotated[str, typer.Argument(help="Image or stack: id, beginning of an id, or name.")],
    json: JsonOption = False,
) -> None:
    """Show all that is known of an image or a stack: what was measured and judged, by whom, and why.

    For an image also: which stacks looked at it, and the rule that took it or left it out.
    """
    exits.run(lambda: _show(name, json))


async def _show(name: str, as_json: bool) -> None:
    from spica_console import nodes, output, store
    from spica_console.connecting import reach_store

    async with reach_store() as (pool, _):
        known = store.Store(pool)
        kind: str
        facts: Any
        if image_id := await known.image_id(name):
            kind, facts = "image", await known.image(image_id)
            facts["node"] = await nodes.whereabouts(pool, image_id)
        elif stack_id := await known.stack_id(name):
            kind, facts = "stack", await known.stack(stack_id)
        elif rejections := await known.rejections_of(name):
            kind, facts = "rejections", rejections
        else:
            raise store.unknown(name)
    if as_json:
        output.print_json({"kind": kind, kind: facts})
    else:
        _PRINT[kind](facts)


def _image(image: dict[str, Any]) -> None:
    from spica_console import output

    console = output.console()
    console.print(f"[bold]{image['name']}[/]  [dim]{image['image_id']}[/]")
    console.print(
        f"  {image['instrument']}  run {image['run']}  filter {image['filter']}  object {image['object'] or '–'}"
        f"  {image['exposure_time_s']:g} s  airmass {output.number(image['airmass'], 3) or '–'}"
        f"  {image['n_ccds']} CCD(s), WCS: {image['wcs']}"
    )
    console.print(f"  RA {image['ra_deg']:.5f}°  Dec {image['dec_deg']:+.5f}°  batch {image['batch'] or '–'}")
    console.print(f"  {image['path']}  {image['size_bytes']:,} bytes{_node(image.get('node'))}")
    _loaded(image)
    _versions(image)
    for repair in image["repairs"]:
        console.print(f"  [yellow]repaired[/] {output.reasons_line([repair])}")
    _auxiliaries(image["auxiliaries"])
    _measurements(image["measurements"])
    _grades(image["grades"])
    if image["solutions"]:
        console.print(
            output.table(
                "Solutions",
                (
                    "solution",
                    "for",
                    "reference",
                    "matched",
                    "rms RA mas",
                    "rms Dec mas",
                    "zero point",
                    "depth",
                ),
                (_solution(row) for row in image["solutions"]),
            )
        )
    if image["stacks"]:
        console.print(
            output.table(
                "Stacks that looked at it",
                ("stack", "state", "taken", "rule", "found"),
                (
                    (
                        row["name"],
                        output.styled_state(row["state"]),
                        "[green]yes[/]" if row["selected"] else "[yellow]no[/]",
                        row["rule"],
                        row["found"],
                    )
                    for row in image["stacks"]
                ),
            )
        )
    _failures(image["failures"])


_LOADED = (
    (("began", "mjd_obs"), ("ended", "mjd_end"), ("public", "released_at")),
    (
        ("programme", "agency_run"),
        ("queue run", "queue_run"),
        ("camera run", "camera_run"),
        ("PI", "principal_investigator"),
        ("number", "sequence_number"),
        ("type", "observation_type"),
    ),
    (
        ("seeing", "seeing_arcsec", "″"),
        ("absorption", "sky_absorption_mag", " mag"),
        ("background", "background_adu_per_s", " adu/s"),
        ("photometric", "is_photometric"),
        ("queue grade", "queue_grade"),
    ),
    (
        ("zero point", "header_zeropoint_mag", " mag"),
        ("±", "header_zeropoint_sigma_mag", " mag"),
        ("nominal", "header_zeropoint_nominal_mag", " mag"),
        ("airmass term", "header_airmass_term_mag", " mag"),
        ("colour term", "header_colour_term"),
    ),
)


def _loaded(image: dict[str, Any]) -> None:
    """What the header tells besides, a line for each kind; what is not known is left out."""
    from spica_console import output

    for line in _LOADED:
        parts = []
        for label, column, *unit in line:
            value = image[column]
            if value is None:
                continue
            if column.startswith("mjd"):
                value = output.moment(value)
            elif column == "released_at":
                value = f"{value:%Y-%m-%d}"
            elif isinstance(value, bool):
                value = "yes" if value else "no"
            parts.append(
                f"{label} {value:g}{''.join(unit)}" if isinstance(value, float) else f"{label} {value}"
            )
        if parts:
            output.console().print(f"  {'  '.join(parts)}", markup=False)


def _versions(image: dict[str, Any]) -> None:
    from spica_console import output

    console = output.console()
    if image["uri"]:
        changed = (
            f", as changed there {image['modified_at']:%Y-%m-%d %H:%M:%S}" if image["modified_at"] else ""
        )
        console.print(f"  {image['uri']}{changed}", markup=False)
    if image["superseded_by"]:
        never = "" if image["announced"] else "; it came after that version and was not processed"
        console.print(f"  [yellow]superseded[/] by {image['superseded_by']}{never}")
    for version in image["versions"]:
        if version["superseded_by"] == image["image_id"]:
            console.print(f"  supersedes {version['image_id']}")


def _auxiliaries(rows: list[dict[str, Any]]) -> None:
    from spica_console import output

    if rows:
        output.console().print(
            output.table(
                "Calibration frames that it names",
                ("kind", "name", "state", "where"),
                (
                    (
                        row["kind"],
                        row["name"],
                        {"here": "[green]here[/]", "wanted": "[cyan]wanted[/]"}.get(
                            row["state"], f"[yellow]{row['state']}[/]"
                        ),
                        row["path"] or output.reasons_line(row["reasons"]) or "nobody asked for it",
                    )
                    for row in rows
                ),
            )
        )


def _node(node: dict[str, Any] | None) -> str:
    """On which node it is, where images lie on nodes."""
    if node is None:
        return ""
    if node["lost_since"]:
        return f"  [red]lost with node {node['node_id']} since {node['lost_since']:%Y-%m-%d %H:%M}[/]"
    going = f", on its way to {node['placed_on']}" if node["placed_on"] not in (None, node["node_id"]) else ""
    return f"  on node {node['node_id']}{going}"


def _solution(row: dict[str, Any]) -> tuple[Any, ...]:
    from spica_console import output

    quality = row["quality"]
    rms_ra, rms_dec = quality.get("rms_mas") or (None, None)
    return (
        row["solution_id"][:8],
        f"stack {row['stack_id'][:8]}" if row["stack_id"] else "itself",
        row["reference_name"],
        quality.get("n_matched"),
        output.number(rms_ra, 1),
        output.number(rms_dec, 1),
        output.number(row["zeropoint_mag"], 3),
        output.number(row["limiting_mag"]),
    )


def _measurements(rows: list[dict[str, Any]]) -> None:
    from spica_console import output

    if rows:
        output.console().print(
            output.table(
                "Measurements",
                ("when", "FWHM ″", "ellipticity", "stars", "sources", "background", "rms", "usable"),
                (
                    (
                        f"{row['created_at']:%Y-%m-%d %H:%M:%S}",
                        output.number(row["metrics"].get("fwhm_arcsec")),
                        output.number(row["metrics"].get("ellipticity"), 3),
                        row["metrics"].get("n_stars"),
                        row["metrics"].get("n_sources"),
                        output.number(row["metrics"].get("background_adu")),
                        output.number(row["metrics"].get("background_rms_adu")),
                        output.number(row["metrics"].get("usable_fraction"), 3),
                    )
                    for row in rows
                ),
            )
        )


def _grades(rows: list[dict[str, Any]]) -> None:
    from spica_console import output

    if rows:
        output.console().print(
            output.table(
                "Grades",
                ("when", "grade", "by", "why"),
                (
                    (
                        f"{row['created_at']:%Y-%m-%d %H:%M:%S}",
                        output.styled_grade(row["grade"]),
                        row["graded_by"],
                        row["comment"] or output.reasons_line(row["reasons"]),
                    )
                    for row in rows
                ),
            )
        )


def _failures(rows: list[dict[str, Any]]) -> None:
    from spica_console import output

    for row in rows:
        sent = " (sent again)" if row["sent_again_at"] else ""
        output.console().print(
            f"[red]failed[/]{sent} in {row['service']} on {row['subject']}: {row['code']}: {row['message']}"
        )


def _stack(stack: dict[str, Any]) -> None:
    from spica_console import output

    console = output.console()
    console.print(
        f"[bold]{stack['name']}[/]  {output.styled_state(stack['state'])}  [dim]{stack['stack_id']}[/]"
    )
    grid = stack["grid"]
    if grid:
        console.print(
            f"  filter {stack['filter']}  {stack['combine']}  {grid.get('width_px')}×{grid.get('height_px')} px of "
            f"{output.number(grid.get('pixel_scale_arcsec'), 4)}″ around RA {output.number(grid.get('crval_ra_deg'), 5)}° "
            f"Dec {output.number(grid.get('crval_dec_deg'), 5)}°"
        )
    console.print(f"  request {stack['request_id']}")
    _parts(stack["parts"])
    _measurements(stack["measurements"])
    _grades(stack["grades"])
    console.print(
        output.table(
            "Images",
            ("image", "taken", "rule", "found"),
            (
                (
                    row["name"],
                    "[green]yes[/]" if row["selected"] else "[yellow]no[/]",
                    row["rule"],
                    row["found"],
                )
                for row in stack["members"]
            ),
        )
    )
    _failures(stack["failures"])


def _parts(rows: list[dict[str, Any]]) -> None:
    """In how many parts it was made, in a line for each step."""
    from spica_console import output, stack_progress

    for row in rows:
        hosts = row["hosts"] or []
        many = "" if len(hosts) <= 3 else f" and {len(hosts) - 3} more"
        where = f" on {', '.join(hosts[:3])}{many}" if hosts else ""
        took = f" in {stack_progress.duration(row['work_s'])}" if row["work_s"] else ""
        longest = f" (the longest {stack_progress.duration(row['longest_s'])})" if row["done"] > 1 else ""
        words = stack_progress.STEPS[row["step"]]
        output.console().print(
            f"  {words}: {row['done']} of {row['parts']} done{took}{longest}{where}", markup=False
        )


def _rejections(rows: list[dict[str, Any]]) -> None:
    from spica_console import output

    for row in rows:
        console = output.console()
        console.print(f"[bold]{row['name']}[/]  [yellow]rejected[/] {row['created_at']:%Y-%m-%d %H:%M:%S}")
        console.print(f"  {row['uri']}  set aside: {row['set_aside'] or '–'}")
        for reason in row["reasons"]:
            console.print(f"  {reason['code']}: {output.reasons_line([reason])}")


_PRINT: dict[str, Callable[[Any], None]] = {"image": _image, "stack": _stack, "rejections": _rejections}
