"""Work for a worker process: the XML, the list of checksums, and the delivery."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from spica_proto.base import Product
from spica_proto.stacks import Receipt
from spica_runtime.storage import DataFolder, whole_file

from spica_export.claiming import claim
from spica_export.delivery import Parcel, deliver
from spica_export.science.checksums import checksum_list
from spica_export.science.dossier import Dossier, File
from spica_export.science.naming import file_name
from spica_export.science.votable import build_votable


@dataclass(frozen=True, slots=True)
class ExportOrder:
    """All that a worker needs to export one stack."""

    data: DataFolder
    folder: str
    """Of the stack, relative to the data folder."""
    destination: Path
    stack_id: str
    names: tuple[str, ...]
    """For the delivered folder, and for its files without suffix: the first one that no other stack has."""
    products: tuple[Product, ...]
    dossier: Dossier


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What came of it."""

    made: tuple[Product, ...]
    receipts: tuple[Receipt, ...]
    destination: str


def _parcel(order: ExportOrder, product: Product, base: str) -> Parcel:
    source = order.data.path(product.path)
    return Parcel(
        source=source,
        name=file_name(base, product.kind, preview_suffix=source.suffix),
        kind=product.kind,
        sha256=product.sha256,
        size_bytes=product.size_bytes,
    )


def _files(parcels: Sequence[Parcel]) -> tuple[File, ...]:
    return tuple(File(parcel.name, parcel.kind, parcel.size_bytes, parcel.sha256) for parcel in parcels)


def _write(order: ExportOrder, kind: str, content: bytes, base: str) -> Product:
    path = order.data.path(f"{order.folder}/{file_name(base, kind)}")
    with whole_file(path) as part:
        part.write_bytes(content)
    return order.data.product(path, kind)


def export_stack(order: ExportOrder) -> ExportResult:
    """Write XML and checksums beside the stack, then deliver everything; the checksums come last.

    So a folder with a list of checksums is a complete one.
    """
    folder = claim(order.destination, order.names, order.stack_id)
    base = folder.name
    parcels = [_parcel(order, product, base) for product in order.products]
    votable = _write(order, "votable", build_votable(replace(order.dossier, files=_files(parcels))), base)
    parcels.append(_parcel(order, votable, base))
    listing = checksum_list(replace(order.dossier, files=_files(parcels)))
    checksums = _write(order, "checksums", listing.encode(), base)
    parcels.append(_parcel(order, checksums, base))
    receipts = tuple(deliver(parcel, folder) for parcel in parcels)
    return ExportResult(made=(votable, checksums), receipts=receipts, destination=str(folder))
