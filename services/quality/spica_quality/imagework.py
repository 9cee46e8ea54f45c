"""Measuring one image, CCD by CCD. Runs in a worker process."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from spica_imaging.frame import Ccd, iter_ccds
from spica_imaging.profiles import Profile, load_profiles
from spica_runtime.errors import Retriable
from spica_runtime.memory import give_back
from spica_runtime.provenance import CODE_VERSION
from spica_runtime.storage import segment

from spica_quality.ccdwork import CcdContext, CcdResult, measure_ccd
from spica_quality.errors import unknown_profile, unreadable
from spica_quality.instrument import InstrumentWord
from spica_quality.jobs import Assessment, ImageOrder
from spica_quality.judgement import judge_by_all
from spica_quality.maps import MapWriter, map_files
from spica_quality.products import Written, caption_of, metrics_of
from spica_quality.report.diagrams import expected_counts
from spica_quality.report.page import Subject
from spica_quality.science.metrics.counts import band_of
from spica_quality.wholeimage import Known, Observed, image_figures, known_stars, place_of


def assess_image(order: ImageOrder) -> Assessment:
    """See `jobs.measure_image`."""
    profiles = load_profiles(order.profiles)
    if order.profile not in profiles:
        raise unknown_profile(order.profile, sorted(profiles))
    profile, source = profiles[order.profile], order.source or order.data.path(order.path)
    folder = order.folder or f"quality/{segment('image_id', order.image_id)}"
    files = Written(order.data, folder, segment("name", order.name))
    with (
        map_files(files.path("weight.fits.fz"), files.path("flag.fits.fz")) as maps,
        InstrumentWord(source, profile, order.n_ccds, order.data, order.auxiliaries) as instrument,
    ):
        results = _measure_ccds(order, profile, source, instrument, maps)
        where = place_of(results, order.pointing_deg)
        known = known_stars(order.reference, order.why_no_reference, where, order.mjd_obs)
        observed = Observed(order.filter, profile.layout.ccd_counts)
        rows, image = image_figures(observed, results, where, known.stars)
        judged = judge_by_all(order.policies, image, rows, order.profile, "image", order.run)
        hdus_out = {ccd.hdu for ccd in judged.default.out}
        maps.finish({place for place, one in enumerate(rows) if one["hdu"] in hdus_out})
    weight, flags = files.product("weight.fits.fz", "weight"), files.product("flag.fits.fz", "flag_map")
    tables = [result.table for result in results]
    catalogue = files.catalogue(tables)
    parquet = files.parquet(tables, {"image": order.name})
    psf = files.psf_models([(result.name, result.psf) for result in results])
    pictures = [result.pictures for result in results]
    cards = dict(tables[0].header) if tables else {}
    table = files.votable(cards, image, rows, judged.verdicts)
    made = (weight, flags, catalogue, parquet, psf, table)
    subject = Subject(
        "image",
        order.name,
        cards,
        links=files.links(made),
        provenance=_provenance(order, instrument, known),
    )
    expectation = expected_counts(band_of(order.filter), where.galactic_deg if where else None)
    preview = files.preview(pictures, caption_of(order.name, order.label, image, judged.default))
    report = files.report(subject, image, rows, pictures, judged.verdicts, expectation)
    return Assessment(
        metrics=metrics_of(image),
        figures=image,
        per_ccd=tuple(dict(row) for row in rows),
        grade=judged.default.letter,
        reasons=judged.reasons,
        verdicts=judged.verdicts,
        catalogue=catalogue,
        weight=weight,
        preview=preview,
        flag_map=flags,
        psf_model=psf,
        report=report,
        products=(parquet, table),
        used=(*instrument.used, *known.used),
        notes=(*instrument.notes, *known.notes),
    )


def _measure_ccds(
    order: ImageOrder, profile: Profile, source: Path, instrument: InstrumentWord, maps: MapWriter
) -> list[CcdResult]:
    """Measure all CCDs, some at a time: the kernels let other threads run, and memory stays at the few in work."""
    context = CcdContext(
        image_id=order.image_id,
        profile=profile,
        on_sky=order.on_sky,
        exposure_time_s=order.exposure_time_s,
        n_ccds=order.n_ccds,
        options=order.tuning.options(order.n_ccds),
        instrument=instrument,
        centre_deg=order.pointing_deg,
    )
    results: list[CcdResult] = []

    def take(future: Future[CcdResult]) -> None:
        result = future.result()
        assert result.maps is not None
        maps.add(len(results), result.maps)
        results.append(replace(result, maps=None))
        give_back()

    waiting: deque[Future[CcdResult]] = deque()
    with ThreadPoolExecutor(order.threads) as pool:
        try:
            for ccd in _ccds(source, profile):
                # Counted so, as `enumerate` would hold on to each CCD while the next one is read.
                place = len(results) + len(waiting)
                waiting.append(pool.submit(measure_ccd, ccd, place, context))
                del ccd
                if len(waiting) > order.threads - 1:
                    take(waiting.popleft())
            while waiting:
                take(waiting.popleft())
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return results


def _ccds(path: Path, profile: Profile) -> Iterator[Ccd]:
    """The CCDs of the file; reading errors, which come out lazily, get a name."""
    ccds = iter_ccds(path, profile)
    while True:
        try:
            ccd = next(ccds)
        except StopIteration:
            return
        except FileNotFoundError as error:
            raise Retriable(
                "frame_missing", f"{path} is not there. Is the data folder mounted?", {"path": str(path)}
            ) from error
        except MemoryError:
            raise
        except Exception as error:
            # Damaged FITS makes readers stumble in every way there is: a division by zero, a missing module.
            raise unreadable(path, error) from error
        if ccd.data.size:
            yield ccd
        del ccd  # or its pixels would stay until the next one is there


def _provenance(order: ImageOrder, instrument: InstrumentWord, known: Known) -> tuple[tuple[str, str], ...]:
    tuning = order.tuning
    return (
        ("Code", f"spica {CODE_VERSION}"),
        ("Input", f"{order.path}, sha256 {order.sha256}"),
        *(
            (f"Master {product.kind}", f"{product.path}, sha256 {product.sha256}")
            for product in instrument.used
        ),
        ("Reference", known.told),
        ("Policies", ", ".join(policy.tag for policy in order.policies)),
        (
            "Settings",
            f"detection at {tuning.threshold_sigma:g} σ, stars from S/N {tuning.star_snr:g}, background boxes of "
            f"{tuning.background_box_px} px, cosmic rays from {tuning.cosmic_sigma:g} σ",
        ),
    )
