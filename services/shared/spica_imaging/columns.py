"""Columns of catalogues: what each name means and in which unit it is.

Names are source-extractor's where it has the quantity, so that its users and SCAMP and PSFEx know them; units are in
its spelling. A magnitude of what has no flux is 99. Positions count from 1 at the first pixel's centre; angles go from
+x towards +y.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Column:
    """What a column holds."""

    unit: str
    """Empty for plain numbers."""
    meaning: str


def _fluxes(name: str, meaning: str) -> dict[str, Column]:
    """A flux, its error, and the same as magnitudes."""
    return {
        f"FLUX_{name}": Column("count", f"Flux {meaning}"),
        f"FLUXERR_{name}": Column("count", f"Error of FLUX_{name}"),
        f"MAG_{name}": Column("mag", f"Magnitude {meaning}"),
        f"MAGERR_{name}": Column("mag", f"Error of MAG_{name}"),
    }


COLUMNS: Final[dict[str, Column]] = {
    "NUMBER": Column("", "Running number, from 1"),
    "X_IMAGE": Column("pixel", "Isophotal barycentre along x"),
    "Y_IMAGE": Column("pixel", "Isophotal barycentre along y"),
    "XPEAK_IMAGE": Column("pixel", "Column of the brightest pixel"),
    "YPEAK_IMAGE": Column("pixel", "Row of the brightest pixel"),
    "XMIN_IMAGE": Column("pixel", "First column of the source"),
    "XMAX_IMAGE": Column("pixel", "Last column of the source"),
    "YMIN_IMAGE": Column("pixel", "First row of the source"),
    "YMAX_IMAGE": Column("pixel", "Last row of the source"),
    "ERRA_IMAGE": Column("pixel", "Error of the barycentre, major axis"),
    "ERRB_IMAGE": Column("pixel", "Error of the barycentre, minor axis"),
    "ERRTHETA_IMAGE": Column("deg", "Angle of the barycentre's error ellipse"),
    "XWIN_IMAGE": Column("pixel", "Windowed position along x"),
    "YWIN_IMAGE": Column("pixel", "Windowed position along y"),
    "ERRAWIN_IMAGE": Column("pixel", "Error of the windowed position, major axis"),
    "ERRBWIN_IMAGE": Column("pixel", "Error of the windowed position, minor axis"),
    "ERRTHETAWIN_IMAGE": Column("deg", "Angle of the windowed error ellipse"),
    **_fluxes("ISO", "over the source's own pixels"),
    **_fluxes("AUTO", "in the Kron ellipse"),
    **_fluxes("APER", "in circles (diameters: SEXAPEDn)"),
    **_fluxes("PSF", "of the fitted PSF"),
    "FLUX_MAX": Column("count", "Brightest pixel above the background"),
    "MU_MAX": Column("mag * arcsec**(-2)", "Surface brightness of the brightest pixel"),
    "ISOAREA_IMAGE": Column("pixel**2", "Pixels of the source"),
    "A_IMAGE": Column("pixel", "Isophotal rms along the major axis"),
    "B_IMAGE": Column("pixel", "Isophotal rms along the minor axis"),
    "THETA_IMAGE": Column("deg", "Angle of the major axis"),
    "ELONGATION": Column("", "A_IMAGE / B_IMAGE"),
    "ELLIPTICITY": Column("", "1 - B_IMAGE / A_IMAGE"),
    "KRON_RADIUS": Column("", "AUTO ellipse in units of A_IMAGE, B_IMAGE"),
    "FLUX_RADIUS": Column("pixel", "Radius of half of FLUX_AUTO; 0: not known"),
    "SNR_WIN": Column("", "Signal-to-noise ratio in the window"),
    "AWIN_IMAGE": Column("pixel", "Windowed rms along the major axis"),
    "BWIN_IMAGE": Column("pixel", "Windowed rms along the minor axis"),
    "THETAWIN_IMAGE": Column("deg", "Windowed angle of the major axis"),
    "FWHM_IMAGE": Column("pixel", "FWHM, from the adaptive size"),
    "FWHM_WORLD": Column("deg", "FWHM, from the adaptive size"),
    "SIGMA_ADAPT": Column("pixel", "Size by adaptive moments"),
    "SIGMAERR_ADAPT": Column("pixel", "Error of SIGMA_ADAPT"),
    "E1_ADAPT": Column("", "(xx - yy) / (xx + yy), adaptive moments"),
    "E2_ADAPT": Column("", "2 xy / (xx + yy), adaptive moments"),
    "EERR_ADAPT": Column("", "Error of E1_ADAPT and of E2_ADAPT"),
    "CHI2_PSF": Column("", "Chi2 per degree of freedom of the PSF fit"),
    "XPSF_IMAGE": Column("pixel", "Position of the PSF fit along x"),
    "YPSF_IMAGE": Column("pixel", "Position of the PSF fit along y"),
    "ERRAPSF_IMAGE": Column("pixel", "Error of the PSF position, major axis"),
    "ERRBPSF_IMAGE": Column("pixel", "Error of the PSF position, minor axis"),
    "ERRTHETAPSF_IMAGE": Column("deg", "Angle of the PSF error ellipse"),
    "NITER_PSF": Column("", "Steps of the PSF fit; 0: position held fixed"),
    "SPREAD_MODEL": Column("", "Wider (> 0) than the PSF, or sharper"),
    "SPREADERR_MODEL": Column("", "Error of SPREAD_MODEL"),
    "CLASS_STAR": Column("", "Probability of a point source, by its size"),
    "BACKGROUND": Column("count", "Background at the source"),
    "THRESHOLD": Column("count", "Detection threshold above the background"),
    "FLAGS": Column("", "1 crowded 2 blended 4 saturated 8 cut 16 gaps"),
    "IMAFLAGS_ISO": Column("", "Flag map, OR over the source's pixels"),
    "NIMAFLAGS_ISO": Column("", "Unusable pixels of the source"),
    "SPICA_STAR": Column("", "1: taken for the point spread function"),
    "VIGNET": Column("count", "Pixels about the source; -1e30: none"),
    "ALPHA_J2000": Column("deg", "Right ascension of the barycentre"),
    "DELTA_J2000": Column("deg", "Declination of the barycentre"),
    "ALPHAWIN_J2000": Column("deg", "Right ascension, windowed position"),
    "DELTAWIN_J2000": Column("deg", "Declination, windowed position"),
}
