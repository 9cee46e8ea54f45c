"""Everything that is measured on one CCD, in order.

The pixels are worked on in place, and nothing else of the frame's size is made but the flags: a CCD takes
one and a half times its own size. The sky and its noise are evaluated where they are needed, and sources
are runs of pixels (`segments`), not a map.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from math import nan

import numpy as np
from numpy.typing import NDArray
from spica_imaging.sections import Section
from spica_imaging.stats import FWHM_PER_SIGMA

from spica_quality.science.background.sky import Sky, measure_sky, subtract, with_weight
from spica_quality.science.detection.firstlook import first_look
from spica_quality.science.detection.segmentation import detect
from spica_quality.science.detection.segments import Segments, Sources
from spica_quality.science.flags import Bit, Flags
from spica_quality.science.masking import marking as masks
from spica_quality.science.masking.bleeding import Readout, mark_bleeding
from spica_quality.science.masking.cosmics import SHARPEST_SIGMA_PX, mark_cosmics
from spica_quality.science.masking.detector import Health, look_at
from spica_quality.science.masking.tally import tally
from spica_quality.science.masking.trailprofile import Streak
from spica_quality.science.masking.trails import mark_trails
from spica_quality.science.metrics.conditions import ccd_condition, lit_fraction
from spica_quality.science.metrics.depth import PsfAt, moffat_stamp
from spica_quality.science.metrics.figures import Figures, plain, row
from spica_quality.science.metrics.gradients import ccd_gradient
from spica_quality.science.metrics.limits import depth_figures
from spica_quality.science.photometry.catalogue import Columns, measure_catalogue
from spica_quality.science.photometry.shapes import AdaptiveMoments, adaptive_moments
from spica_quality.science.psf.measure import PsfResult, measure_psf
from spica_quality.science.psf.model import PsfModel
from spica_quality.science.psf.starshapes import StarShapes, star_shapes

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]
Mask = NDArray[np.bool_]

RING_DIP = 0.2
"""Stars this much darker at the centre than around it are rings: not to be divided."""

_LEAST_NOISE_E = 0.5
"""No detector is quieter: less means that the pixels are not in adu, and that the gain is not theirs."""
_LEAST_PIXELS = 64
_LEAST_SHARE = 0.01
_NO_STAR_FWHM_PX = 2.5
_BRIGHT_SIGMA = 6.0
_FIRST_FWHM_PX = 3.0
_LEAST_STARS = 3
_MANY_STARS = 20
_NARROWER = 0.85


@dataclass(frozen=True, slots=True)
class Frame:
    """Pixels to be measured: one CCD, or a piece of a stack."""

    data: Pixels
    """Shape (ny, nx), adu; NaN where there is no value. Worked on in place."""
    section: Section
    gain_e_per_adu: float
    """0 where it is not known: photon noise of the sources is then left out."""
    saturation_adu: float
    weight: Pixels | None = None
    """Relative weight, for stacks: noise goes as 1/sqrt(weight), 0 is unusable. None: single exposure."""
    pixel_scale_arcsec: float = nan
    zeropoint_mag: float = nan
    """AB magnitude of 1 adu in this exposure; NaN: not known."""
    amplifiers: tuple[Section, ...] = ()
    """Parts of the CCD that are read out by themselves; none: not known."""
    readout: Readout = "columns"
    mark: Callable[[Flags], None] | None = None
    """Marks what masks and flat fields of the instrument say."""


@dataclass(frozen=True, slots=True)
class Options:
    """What may be chosen in measuring."""

    threshold_sigma: float = 1.5
    """In the filtered image, in units of the noise of unfiltered pixels (DETECT_THRESH)."""
    star_snr: float = 20.0
    background_box_px: int = 128
    cosmic_sigma: float = 5.0
    injected_stars: int = 500
    """Per CCD, to learn which are found; 0: none."""


@dataclass(slots=True)
class Measurement:
    """All that came of one CCD."""

    figures: Figures
    """By the names of `figures.CCD_NAMES`, without the CCD's own name and place."""
    data: Pixels
    """Pixels above the sky, 0 where unusable; where nothing could be measured, as they came."""
    flags: Flags
    sky: Sky | None = None
    columns: Columns = field(default_factory=dict)
    psf: PsfModel | None = None
    stars: Mask = field(default_factory=lambda: np.zeros(0, np.bool_))
    """Sources on the stellar locus, shape (n,)."""
    trails: tuple[Streak, ...] = ()
    health: Health | None = None


def measure(
    frame: Frame, options: Options = Options(), random: np.random.Generator | None = None
) -> Measurement:
    """Background, masks, stars, catalogue and depth of one CCD. Never fails on its pixels.

    `random`: for the stars that are injected to learn which are found; None injects none.
    """
    data, weight = frame.data, frame.weight
    flags = masks.initial_flags(data, frame.section, None if weight is None else ~(weight > 0))
    if frame.mark is not None:
        frame.mark(flags)
    saturation = masks.saturation_level(data, frame.saturation_adu)
    n_saturated = masks.mark_saturated(data, flags, saturation)
    health = look_at(data, flags, frame.amplifiers or (frame.section,)) if weight is None else None
    counted = tally(flags)
    figures: Figures = {
        "n_pixels": counted.n_pixels - counted.of(Bit.OUTSIDE),
        "n_saturated": n_saturated,
        "saturation_adu": plain(saturation),
        "pixel_scale_arcsec": plain(frame.pixel_scale_arcsec),
        "zeropoint_mag": plain(frame.zeropoint_mag),
    }
    done = Measurement(figures, data, flags, health=health)
    if counted.n_clean < max(_LEAST_PIXELS, _LEAST_SHARE * data.size):
        return _finished(done)
    sky = measure_sky(data, flags, options.background_box_px)
    if weight is not None:
        sky = with_weight(sky, weight, flags)
    if not sky.median_rms > 0.0:
        figures["background_adu"] = plain(sky.median_level)
        return _finished(done)
    done.sky = sky
    gain = frame.gain_e_per_adu if sky.median_rms * frame.gain_e_per_adu >= _LEAST_NOISE_E else 0.0
    if weight is None and n_saturated:
        mark_bleeding(data, flags, saturation, sky.median_rms, readout=frame.readout)
    subtract(data, flags, sky)
    figures |= _of_sky(sky, data.shape, stack=weight is not None)
    done.figures = figures
    _Ccd(done, sky, gain, saturation - sky.median_level, frame, options).measure(random)
    return _finished(done)


def _of_sky(sky: Sky, shape: tuple[int, ...], *, stack: bool) -> Figures:
    figures: Figures = {
        "background_adu": plain(sky.median_level),
        "background_rms_adu": plain(sky.median_rms),
        "lit_fraction": None if stack else plain(lit_fraction(sky.level_mesh, sky.rms_mesh)),
    }
    return figures | ccd_gradient(sky.level_mesh, (shape[0], shape[1])).figures()


def _finished(done: Measurement) -> Measurement:
    """Count what was marked, and name what is wrong at first sight."""
    counted = tally(done.flags)
    named = {
        "n_cosmic": Bit.COSMIC,
        "n_trail": Bit.TRAIL,
        "n_bad_column": Bit.COLUMN,
        "n_bleed": Bit.BLEED,
        "n_masked": Bit.MASKED,
    }
    counts: Figures = {name: counted.of(bit) for name, bit in named.items()}
    measured = done.sky is not None
    n_pixels = done.figures["n_pixels"]
    n_usable = counted.n_clean if measured else 0
    counts["n_usable"] = n_usable
    if isinstance(n_pixels, int) and n_pixels:
        saturated = done.figures["n_saturated"]
        counts["usable_fraction"] = plain(n_usable / n_pixels)
        counts["saturated_fraction"] = plain(saturated / n_pixels) if isinstance(saturated, int) else None
    values = {"n_sources": 0, "n_stars": 0, **done.figures, **counts}
    condition = ccd_condition(values)
    if done.health is not None and done.health.condition in ("blank", "dead"):
        values["condition"] = done.health.condition
    else:
        values |= condition.figures()
    done.figures = row(values)
    return done


@dataclass(slots=True)
class _Ccd:
    """What is known of a CCD once its sky is off."""

    done: Measurement
    sky: Sky
    gain: float
    ceiling: float
    """Saturation above the sky, adu."""
    frame: Frame
    options: Options
    _sharp: bool = False
    """Whether anything is known of how sharp stars are."""

    def measure(self, random: np.random.Generator | None) -> None:
        """From masks to depth."""
        done, sky = self.done, self.sky
        data, flags = done.data, done.flags
        self._mark_lost()
        looks = self._bright(_FIRST_FWHM_PX)
        ring = looks.dip > RING_DIP
        fwhm = self._sharpness(looks)
        if not ring and self._mark_foreign(fwhm):
            looks = self._bright(fwhm)
        # Rings are not to be divided into their parts.
        sources, segments = self._detect(fwhm, deblend=not ring)
        done.figures |= looks.figures() | {"n_sources": len(sources)}
        if not len(sources):
            return
        rms = sky.rms_at(sources.x, sources.y)
        shapes = adaptive_moments(data, flags, sources, segments, rms, fwhm / FWHM_PER_SIGMA)
        found = measure_psf(
            data,
            flags,
            shapes,
            rms,
            gain_e_per_adu=self.gain,
            usable=(sources.flags & 8) == 0,
            segments=segments,
            least_snr=self.options.star_snr,
        )
        done.psf, done.stars = found.model, found.locus
        seen = found.figures.fwhm_with_pixel_px
        width = seen if np.isfinite(seen) else fwhm
        done.columns = self._catalogue(sources, segments, shapes, found, width)
        n_stars = int(np.count_nonzero(found.locus))
        done.figures |= found.figures.row(self.frame.pixel_scale_arcsec) | {"n_stars": n_stars}
        done.figures["n_galaxies"] = count_galaxies(done.columns, self.options.star_snr)
        if n_stars:
            done.figures |= self._depth((sources, segments), found, width, random)

    def _mark_lost(self) -> None:
        """Add COLUMN and DEAD to the flags, and COSMIC where no star of any image could be so sharp.

        Among many cosmic rays and few stars the latter would else be overlooked.
        """
        if self.frame.weight is None:
            data, flags, sky = self.done.data, self.done.flags, self.sky
            # Columns first, as all pixels of a cold one are dead.
            masks.mark_bad_columns(data, flags, sky.median_rms)
            masks.mark_dead(data, flags, sky)
            mark_cosmics(data, flags, sky, SHARPEST_SIGMA_PX, self.gain, limit=self.options.cosmic_sigma)

    def _sharpness(self, looks: StarShapes) -> float:
        """FWHM of the narrowest stars along their narrow side, px; a common value where nothing is known of them."""
        first = first_look(self.done.data, self.done.flags, self.sky, 0.9 * self.ceiling)
        known = [first.minor_sigma_px] if first.n >= _LEAST_STARS else []
        if np.isfinite(looks.width_px):
            known.append(looks.width_px / FWHM_PER_SIGMA)
        elif known and first.n < _MANY_STARS:
            # A few sources of one size may be galaxies: no star is then known to be wider than the narrowest source.
            known.append(first.least_sigma_px)
        if known and first.roundest_sigma_px < _NARROWER * np.nanmin(known):
            # The many of one size are galaxies, and the few stars among them narrower.
            known.append(first.roundest_sigma_px)
        self._sharp = bool(known)
        sigma = max(np.nanmin(known), SHARPEST_SIGMA_PX) if known else nan
        return FWHM_PER_SIGMA * float(sigma) if known else _NO_STAR_FWHM_PX

    def _mark_foreign(self, fwhm: float) -> bool:
        """Add COSMIC and TRAIL to the flags; whether that could be done.

        Not on stacks, where neighbours share noise; not where nobody knows how sharp stars are; not on rings, whose
        rims are sharper than they are wide.
        """
        if self.frame.weight is not None or not self._sharp:
            return False
        data, flags, sky = self.done.data, self.done.flags, self.sky
        mark_cosmics(data, flags, sky, fwhm / FWHM_PER_SIGMA, self.gain, limit=self.options.cosmic_sigma)
        self.done.trails = mark_trails(data, flags, sky, fwhm)
        return True

    def _detect(self, fwhm: float, *, deblend: bool) -> tuple[Sources, Segments]:
        return detect(
            self.done.data,
            self.done.flags,
            self.sky,
            fwhm_px=fwhm,
            threshold_sigma=self.options.threshold_sigma,
            min_area=self._least_area(fwhm),
            deblend=deblend,
        )

    @staticmethod
    def _least_area(fwhm: float) -> int:
        return 3 if fwhm < 3 else 5

    def _bright(self, fwhm: float) -> StarShapes:
        """What the bright sources have in common, undivided: rings and doubled stars are seen whole."""
        sources, _ = detect(
            self.done.data,
            self.done.flags,
            self.sky,
            fwhm_px=fwhm,
            threshold_sigma=_BRIGHT_SIGMA,
            min_area=self._least_area(fwhm),
            deblend=False,
        )
        return star_shapes(
            self.done.data,
            self.done.flags,
            sources.x,
            sources.y,
            sources.peak,
            noise_adu=self.sky.median_rms,
            ceiling_adu=0.9 * self.ceiling,
        )

    def _catalogue(
        self, sources: Sources, segments: Segments, shapes: AdaptiveMoments, found: PsfResult, width: float
    ) -> Columns:
        stars = found.locus
        sigma = float(np.median(shapes.sigma[stars])) if stars.any() else nan
        columns = measure_catalogue(
            self.done.data,
            self.done.flags,
            self.sky,
            sources,
            segments,
            gain=self.gain,
            fwhm_px=width,
            psf=found.model,
            zeropoint=self.frame.zeropoint_mag,
            pixel_scale_arcsec=self.frame.pixel_scale_arcsec,
            fwhm_per_sigma=width / sigma if sigma > 0 else FWHM_PER_SIGMA,
            shapes=shapes,
        )
        columns["SPICA_STAR"] = stars.astype(np.int16)
        return columns

    def _depth(
        self,
        detected: tuple[Sources, Segments],
        found: PsfResult,
        width: float,
        random: np.random.Generator | None,
    ) -> Figures:
        figures = found.figures
        beta = figures.moffat_beta if np.isfinite(figures.moffat_beta) else 3.0
        psf: PsfAt = found.model.at if found.model is not None else partial(moffat_stamp, width, beta)
        return depth_figures(
            self.done.data,
            self.done.flags,
            self.sky,
            *detected,
            psf,
            fwhm_px=width,
            gain_e_per_adu=self.gain,
            threshold_sigma=self.options.threshold_sigma,
            min_area=self._least_area(width),
            zeropoint_mag=self.frame.zeropoint_mag,
            random=random if self.options.injected_stars else None,
            n_injected=self.options.injected_stars,
        )


def count_galaxies(columns: Columns, least_snr: float) -> int:
    """Sources wider than stars by more than their errors, bright enough to tell."""
    spread, error = (columns.get(name) for name in ("SPREAD_MODEL", "SPREADERR_MODEL"))
    if spread is None or error is None or not np.isfinite(spread).any():
        return 0
    with np.errstate(invalid="ignore"):
        bright = columns["SNR_WIN"] > 0.5 * least_snr
        return int(np.count_nonzero(bright & (spread > 0.003 + 3.0 * error)))
