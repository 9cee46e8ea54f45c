"""The list of checksums that goes with a product; `sha256sum -c` reads it."""

from __future__ import annotations

from spica_export.science.dossier import Dossier


def checksum_list(dossier: Dossier) -> str:
    """What the files are (comment lines), and one line `<sha256>  <name>` each."""
    seeing = dossier.metrics.get("fwhm_arcsec")
    depth = dossier.metrics.get("limiting_mag")
    lines = [
        f"# {dossier.name}",
        "#",
        f"# {dossier.n_exposures} exposures, {dossier.exposure_time_s:g} s, filter {dossier.filter}, grade {dossier.grade}",
        f"# magnitude (AB) = -2.5 log10(counts) + {dossier.zeropoint_mag:g}",
    ]
    if seeing is not None:
        lines.append(f"# median FWHM of stars {seeing:.2f} arcsec")
    if depth is not None:
        lines.append(f"# 5 sigma point source {depth:.2f} mag")
    lines += [f"# stack {dossier.stack_id}", "#"]
    width = max((len(file.name) for file in dossier.files), default=0)
    lines += [f"# {file.name:<{width}}  {file.kind}, {file.size_bytes} bytes" for file in dossier.files]
    lines += ["#", "# Check with: sha256sum -c <this file>"]
    lines += [f"{file.sha256}  {file.name}" for file in dossier.files]
    return "\n".join(lines) + "\n"
