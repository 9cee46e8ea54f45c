"""METRICS.md: all figures in words, written from the table in science/metrics/figures.py.

`python -m spica_quality.metricspage` writes it; a test fails when it is not current.
"""

from __future__ import annotations

from pathlib import Path

from spica_quality.science.metrics.conditions import CCD_CONDITIONS, FRAME_CONDITIONS
from spica_quality.science.metrics.figures import FIGURES, IMAGE_ONLY, Combine

PAGE = Path(__file__).parent.parent / "METRICS.md"

_HEAD = """# Metrics

What is measured on every CCD, and on every image and stack. Written from the table in
`spica_quality/science/metrics/figures.py` by `python -m spica_quality.metricspage`: change it there.

A figure that could not be measured is null. Numbers have six significant digits. Figures with *range* have
`<name>_min`, `<name>_mean` and `<name>_max` over the CCDs besides. Policies and the console know them by these names.

"""


def page() -> str:
    """The page as it should be."""
    lines = [_HEAD, "## Of a CCD, and of the image\n\n"]
    lines += ["| name | unit | of the image | meaning |\n", "|---|---|---|---|\n"]
    for figure in FIGURES.values():
        if figure.name in IMAGE_ONLY:
            continue
        of_image = "" if figure.combine is Combine.CCD_ONLY else figure.combine.value
        if figure.extremes:
            of_image += "; range"
        lines.append(f"| `{figure.name}` | {figure.unit} | {of_image} | {figure.about} |\n")
    lines += ["\n## Of images and stacks only\n\n", "| name | unit | meaning |\n", "|---|---|---|\n"]
    lines += [f"| `{name}` | {FIGURES[name].unit} | {FIGURES[name].about} |\n" for name in IMAGE_ONLY]
    for title, conditions in (("of a frame", FRAME_CONDITIONS), ("of a CCD", CCD_CONDITIONS)):
        lines += [f"\n## Conditions {title}\n\n", "| `condition` | meaning |\n", "|---|---|\n"]
        lines += [f"| `{name}` | {meaning} |\n" for name, meaning in conditions.items()]
    return "".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
