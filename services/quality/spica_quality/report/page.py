"""One self-contained HTML page per image or stack: nothing is fetched, the same input gives the same bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from math import nan
from typing import Any, Literal

import numpy as np
from markupsafe import Markup
from spica_imaging.stats import finite
from spica_proto.base import Reason
from spica_proto.images import Verdict
from spica_reporting.document import base_style, security, template
from spica_reporting.encoding import data_uri

from spica_quality.report import diagrams, focal
from spica_quality.report.colours import REASONS
from spica_quality.report.contents import COLUMNS, EXTREMES, FACTS, about, plain_value, with_unit
from spica_quality.report.diagrams import Expectation
from spica_quality.report.gathering import CcdPictures
from spica_quality.report.layout import Layout, lay_out
from spica_quality.report.outliers import outlying
from spica_quality.report.pictures import pictures
from spica_quality.report.remarks import Marks, Seen, marks, place_of, remarks
from spica_quality.science.metrics.figures import FIGURES, Row, number
from spica_quality.science.policy.policies import DEFAULT

TALLEST_PX = 640
"""Of the picture of a lone CCD."""

HEADER = (
    ("ORIGIN", "TELESCOP", "DETECTOR", "INSTRUME", "DATE", "RUNID"),
    ("OBJECT", "EXPTIME", "FILTER", "RA", "DEC", "EQUINOX", "AIRMASS"),
)
"""Cards at the head of the page, in two lines, as QualityFITS had them."""


@dataclass(frozen=True, slots=True)
class Link:
    """A file that belongs to the image."""

    title: str
    href: str
    """Relative to the page."""
    size_bytes: int | None = None
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Subject:
    """What the page is about."""

    kind: Literal["image", "stack"]
    name: str
    header: Mapping[str, object]
    """Cards by keyword; those of `HEADER` are shown."""
    links: tuple[Link, ...] = ()
    provenance: tuple[tuple[str, str], ...] = ()
    """What made it, from what: versions, settings, checksums of inputs; name and value."""


def render(
    subject: Subject,
    image: Row,
    rows: Sequence[Row],
    ccds: Sequence[CcdPictures],
    verdicts: Sequence[Verdict],
    expectation: Expectation | None = None,
) -> bytes:
    """The page.

    Args:
        subject: name, header, links, provenance.
        image: figures of the image, by the names of `science.figures`.
        rows: figures of the CCDs.
        ccds: pictures of the CCDs, in the same order.
        verdicts: of all policies; the default one's grade is the image's (the first one's where it is not there).
        expectation: number counts to compare with.

    """
    page = _Page(subject, image, rows, ccds, verdicts, expectation)
    text: str = _template().render(page.context())
    return text.encode()


class _Page:
    def __init__(
        self,
        subject: Subject,
        image: Row,
        rows: Sequence[Row],
        ccds: Sequence[CcdPictures],
        verdicts: Sequence[Verdict],
        expectation: Expectation | None,
    ) -> None:
        self.subject, self.image, self.rows, self.ccds = subject, image, rows, ccds
        self.verdicts, self.expectation = verdicts, expectation
        self.layout: Layout = lay_out(ccds)
        self.sources = diagrams.all_sources(ccds, rows, image)
        self.noticed = remarks(Seen(image, rows, ccds, self.layout, self.sources, _seconds(subject.header)))
        own = (verdict for verdict in verdicts if verdict.policy.startswith(f"{DEFAULT}@"))
        self.verdict = next(own, next(iter(verdicts), None))
        self.reasons = self.verdict.reasons if self.verdict else ()
        out = set(self.verdict.ccds_out) if self.verdict else set()
        self.out = [index for index, row in enumerate(rows) if row.get("name") in out]
        self.marks: Marks = marks(self.noticed, self.out)
        self.pictures = list(pictures(ccds, self.layout, rows, image, self.sources, expectation))
        self.ids = {"image", "ccds", "figures", *(picture.id for picture in self.pictures)}

    def context(self) -> dict[str, Any]:
        style, script = base_style() + _asset("report.css"), _asset("report.js")
        verdict = self.verdict
        present = int(
            np.bitwise_or.reduce(
                [np.bitwise_or.reduce(ccd.coarse.reasons, axis=None) for ccd in self.ccds] or [0]
            )
        )
        return {
            "subject": self.subject,
            "style": Markup(style),
            "script": Markup(script),
            "security": security(script),
            "header": [[(key, _card(self.subject.header.get(key))) for key in line] for line in HEADER],
            "grade": verdict.grade if verdict else "–",
            "policy": verdict.policy if verdict else "",
            "reasons": [(reason, self._place(reason)) for reason in self.reasons if reason.hdu is None],
            "ccds_out": self._ccds_out(),
            "noticed": [
                (remark, self._shown(remark.figure))
                for remark in self.noticed
                if not remark.ccds or not set(remark.ccds) <= set(self.out)
            ],
            "verdicts": [
                (one, [reason for reason in one.reasons if reason.hdu is None]) for one in self.verdicts
            ],
            "facts": self._facts(),
            "extremes": self._extremes(),
            "hero": self._hero(),
            "figures": [(picture, Markup(picture.svg), self._why(picture.id)) for picture in self.pictures],
            "table": self._table(),
            "thumbnails": self._thumbnails(),
            "legend": [
                (name, "#{:02x}{:02x}{:02x}".format(*colour))
                for bit, name, colour in REASONS[::-1]
                if bit & present
            ],
            "n_ccds": len(self.rows),
        }

    # ---- what is wrong ----

    def _place(self, reason: Reason) -> str:
        return self._shown(place_of(reason.keyword or ""))

    def _shown(self, place: str) -> str:
        return place if place in self.ids else "figures"

    def _why(self, figure_id: str) -> tuple[str, ...]:
        own = [
            reason.message
            for reason in self.reasons
            if reason.hdu is None and self._place(reason) == figure_id
        ]
        seen = [remark.words for remark in self.noticed if remark.figure == figure_id and remark.grave]
        return tuple(dict.fromkeys(own + seen))

    def _ccds_out(self) -> list[tuple[int, str, str]]:
        """CCDs that are not used: index, name, and why in words."""
        found = []
        for index in self.out:
            row = self.rows[index]
            why = [
                reason.message
                for reason in self.reasons
                if reason.hdu is not None and reason.hdu == row.get("hdu")
            ]
            found.append((index, str(row.get("name")), "; ".join(why)))
        return found

    # ---- figures in numbers ----

    def _facts(self) -> list[tuple[str, str, str]]:
        """Single values: title, value with unit, what it is."""
        facts = []
        for name, title in FACTS:
            value = self.image.get(name)
            if value is not None:
                facts.append((title, with_unit(name, value), about(name)))
        return facts

    def _extremes(self) -> list[tuple[str, str, list[str]]]:
        """TERAPIX's table: title, unit, least, mean and largest over the CCDs, and on which CCD each end is."""
        lines = []
        for name, title in EXTREMES:
            values = [number(row, name) for row in self.rows]
            known = finite(values)
            if not known.size:
                continue
            figure = FIGURES[name]
            ends = [self.image.get(f"{name}_{end}") for end in ("min", "mean", "max")]
            plain = [float(known.min()), float(known.mean()), float(known.max())]
            shown = [
                plain_value(figure.style, own if own is not None else other)
                for own, other in zip(ends, plain, strict=True)
            ]
            where = [str(self.rows[values.index(end)].get("name")) for end in (plain[0], plain[2])]
            lines.append((title, figure.unit, [*shown, *where]))
        return lines

    # ---- pictures ----

    def _hero(self) -> Markup:
        about = f"{self.subject.name}, {'as on the sky, north up, east left' if self.layout.on_sky else 'as read out'}"
        return Markup(focal.image_picture(self.ccds, self.layout, self.marks, about))

    # ---- CCDs ----

    def _table(self) -> dict[str, Any]:
        names = [
            name
            for name, _ in COLUMNS
            if any(row.get(name) is not None for row in self.rows)
            and (name != "condition" or len(self.rows) > 1)
        ]
        odd = {name: outlying(self.rows, name) for name in names}
        blamed = {reason.keyword for reason in self.reasons} if len(self.rows) == 1 else set()
        body = []
        for index, row in enumerate(self.rows):
            cells = []
            for name in names:
                value = row.get(name)
                level = max(odd[name][index], 2 if name in blamed else 0)
                if name == "condition" and value not in (None, "ok"):
                    level = 2
                known = isinstance(value, (int, float)) and not isinstance(value, bool)
                cells.append((plain_value(FIGURES[name].style, value), value if known else "", level))
            body.append(
                (index, str(row.get("name") or f"ccd{index:02d}"), self.marks.get(index, (0, ""))[0], cells)
            )
        titles = dict(COLUMNS)
        head = [(titles[name], FIGURES[name].unit, about(name)) for name in names]
        return {"head": head, "body": body}

    def _thumbnails(self) -> list[dict[str, Any]]:
        shown = []
        for index, (ccd, row) in enumerate(zip(self.ccds, self.rows, strict=True)):
            grave, why = self.marks.get(index, (0, ""))
            fwhm = "fwhm_arcsec" if row.get("fwhm_arcsec") is not None else "fwhm_px"
            words = [
                with_unit(name, row.get(name))
                for name in (fwhm, "background_adu")
                if row.get(name) is not None
            ]
            shown.append({
                "name": ccd.name or f"ccd{index:02d}",
                "image": data_uri(ccd.thumbnail),
                "overlay": data_uri(ccd.overlay) if ccd.overlay else "",
                "width": ccd.thumbnail_px[0],
                "height": ccd.thumbnail_px[1],
                "factor": ccd.thumbnail_factor,
                "widest": round(TALLEST_PX * ccd.thumbnail_px[0] / ccd.thumbnail_px[1]),
                "grave": grave,
                "why": why,
                "words": " · ".join(words),
            })  # fmt: skip
        return shown


def _seconds(header: Mapping[str, object]) -> float:
    try:
        return float(str(header.get("EXPTIME")))
    except ValueError:
        return nan


def _card(value: object) -> str:
    text = "" if value is None else str(value).strip()
    return text or "–"


@cache
def _asset(name: str) -> str:
    return (files("spica_quality.report") / "templates" / name).read_text("utf-8")


@cache
def _template() -> Any:
    return template(_asset("report.html"))
