"""Writing what was measured, each file whole; and reading it into messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from spica_imaging.ldac import LdacTable, write_ldac
from spica_proto.base import Product
from spica_proto.images import Metrics, Verdict
from spica_runtime.storage import DataFolder, whole_file

from spica_quality.cataloguefiles import write_parquet
from spica_quality.psffile import write_psfex
from spica_quality.report import page
from spica_quality.report.diagrams import Expectation
from spica_quality.report.gathering import CcdPictures
from spica_quality.report.page import Link, Subject
from spica_quality.report.preview import Caption, draw_preview
from spica_quality.report.votable import votable
from spica_quality.science.metrics.figures import Figures, Row, number
from spica_quality.science.policy import verdicts
from spica_quality.science.psf.model import PsfModel

_TITLES = {
    "weight": "Weight map",
    "flag_map": "Flag map",
    "catalogue": "Catalogue (FITS LDAC)",
    "catalogue_parquet": "Catalogue (Parquet)",
    "psf_model": "PSF model (PSFEx format)",
    "votable": "All figures (VOTable)",
}


@dataclass(frozen=True, slots=True)
class Written:
    """The files of one measurement: all in one folder, all beginning with the name."""

    data: DataFolder
    folder: str
    name: str

    def path(self, suffix: str) -> Path:
        """Where the file of this suffix stands."""
        return self.data.path(f"{self.folder}/{self.name}.{suffix}")

    def product(self, suffix: str, kind: str) -> Product:
        """Describe a file that was written."""
        return self.data.product(self.path(suffix), kind)

    def catalogue(self, tables: Sequence[LdacTable]) -> Product:
        """The catalogue as FITS_LDAC."""
        with whole_file(self.path("ldac")) as part:
            write_ldac(part, tables)
        return self.product("ldac", "catalogue")

    def parquet(self, tables: Sequence[LdacTable], about: Mapping[str, str]) -> Product:
        """The same sources as Parquet."""
        with whole_file(self.path("parquet")) as part:
            write_parquet(part, tables, dict(about))
        return self.product("parquet", "catalogue_parquet")

    def psf_models(self, models: Sequence[tuple[str, PsfModel | None]]) -> Product:
        """The models of the point spread function, in PSFEx's format."""
        with whole_file(self.path("psf")) as part:
            write_psfex(part, models)
        return self.product("psf", "psf_model")

    def preview(self, pictures: Sequence[CcdPictures], caption: Caption) -> Product:
        """The small picture for lists."""
        return self._bytes("png", "preview", draw_preview(pictures, caption))

    def votable(
        self, cards: Mapping[str, object], image: Row, rows: Sequence[Row], judged: Sequence[Verdict]
    ) -> Product:
        """All figures and verdicts as VOTable."""
        return self._bytes("vot", "votable", votable(self.name, cards, image, rows, judged))

    def report(
        self,
        subject: Subject,
        image: Row,
        rows: Sequence[Row],
        pictures: Sequence[CcdPictures],
        judged: Sequence[Verdict],
        expectation: Expectation | None,
    ) -> Product:
        """The page for people."""
        content = page.render(subject, image, rows, pictures, judged, expectation)
        return self._bytes("html", "report", content)

    def links(self, products: Sequence[Product]) -> tuple[Link, ...]:
        """As the page names them: beside it."""
        return tuple(
            Link(
                _TITLES.get(product.kind, product.kind),
                Path(product.path).name,
                product.size_bytes,
                product.sha256,
            )
            for product in products
        )

    def _bytes(self, suffix: str, kind: str, content: bytes) -> Product:
        with whole_file(self.path(suffix)) as part:
            part.write_bytes(content)
        return self.product(suffix, kind)


def metrics_of(figures: Figures) -> Metrics:
    """Figures as they go into messages: those that the contract names; null for what could not be measured."""
    known = {name: value for name in Metrics.model_fields if (value := figures.get(name)) is not None}
    return Metrics.model_validate(known)


def caption_of(name: str, label: tuple[str, ...], figures: Figures, verdict: verdicts.Verdict) -> Caption:
    """What is written above the preview."""

    def figure(key: str, style: str, unit: str = "") -> str:
        value = number(figures, key)
        return format(value, style) + unit if isfinite(value) else "–"

    depth = figure("limiting_mag", ".2f", " mag (5σ)")
    if depth == "–":
        depth = figure("limiting_flux_adu", ".4g", " adu (5σ)")
    return Caption(
        title=name,
        lines=(
            "   ".join(label),
            f"FWHM {figure('fwhm_arcsec', '.2f', '″')} ({figure('fwhm_px', '.2f', ' px')})   "
            f"ellipticity {figure('ellipticity', '.3f')}   stars {figure('n_stars', '.0f')}   "
            f"sources {figure('n_sources', '.0f')}",
            f"sky {figure('background_adu', '.1f', ' adu')} ± {figure('background_rms_adu', '.3g')}   depth {depth}   "
            f"usable {100 * number(figures, 'usable_fraction'):.1f} %   graded by policy:{verdict.policy}",
        ),
        grade=verdict.letter,
        reasons=tuple(f"{finding.letter}: {finding.message}" for finding in verdict.findings[:4]),
    )
