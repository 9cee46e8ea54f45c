from __future__ import annotations

import errno
import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from spica_export import delivery
from spica_export.claiming import MARK
from spica_export.delivery import Parcel, deliver
from spica_export.jobs import ExportOrder, export_stack
from spica_proto.base import Product
from spica_runtime.errors import NotRetriable, Retriable, Unavailable
from spica_runtime.storage import DataFolder

from tests.unit.export.dossiers import dossier

CONTENT = b"pixels" * 1000


def parcel(folder: Path, content: bytes = CONTENT) -> Parcel:
    folder.mkdir(exist_ok=True)
    source = folder / "source.fits"
    source.write_bytes(content)
    return Parcel(source, "x.fits", "image", hashlib.sha256(content).hexdigest(), len(content))


def test_a_receipt_says_what_stands_there(tmp_path: Path) -> None:
    item = parcel(tmp_path)
    receipt = deliver(item, tmp_path / "out/D3_r")
    assert Path(receipt.path).read_bytes() == CONTENT
    assert (receipt.sha256, receipt.size_bytes, receipt.name) == (item.sha256, len(CONTENT), "x.fits")
    assert [path.name for path in (tmp_path / "out/D3_r").iterdir()] == ["x.fits"]


def test_delivering_again_changes_nothing(tmp_path: Path) -> None:
    item = parcel(tmp_path)
    first = deliver(item, tmp_path / "out")
    before = (tmp_path / "out/x.fits").stat()
    assert deliver(item, tmp_path / "out") == first
    after = (tmp_path / "out/x.fits").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


@pytest.mark.parametrize("spoilt", [CONTENT[:-1], CONTENT[:-1] + b"X", b""])
def test_a_spoilt_delivery_is_replaced(tmp_path: Path, spoilt: bytes) -> None:
    item = parcel(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/x.fits").write_bytes(spoilt)
    deliver(item, tmp_path / "out")
    assert (tmp_path / "out/x.fits").read_bytes() == CONTENT


def test_a_changed_source_is_never_delivered(tmp_path: Path) -> None:
    item = replace(parcel(tmp_path), sha256="0" * 64)
    with pytest.raises(NotRetriable) as caught:
        deliver(item, tmp_path / "out")
    assert caught.value.code == "product_changed"
    assert not list((tmp_path / "out").iterdir())
    with pytest.raises(NotRetriable) as caught:
        deliver(replace(item, source=tmp_path / "gone"), tmp_path / "out")
    assert caught.value.code == "product_missing"


def test_a_destination_that_is_a_file_waits_with_a_clear_message(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("in the way")
    with pytest.raises(Unavailable, match="SPICA_EXPORT_DESTINATION") as caught:
        deliver(parcel(tmp_path), tmp_path / "out/D3_r")
    assert caught.value.code == "destination_unavailable"


@pytest.mark.parametrize(
    ("number", "codes"),
    [(errno.ENOSPC, {"destination_full", "disk_full"}), (errno.EROFS, {"destination_unavailable"})],
)
def test_a_full_or_read_only_disk_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, codes: set[str]
) -> None:
    item = parcel(tmp_path)

    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(Unavailable) as caught:
        deliver(item, tmp_path / "out")
    assert caught.value.code in codes
    assert not (tmp_path / "out/x.fits").exists()


def test_a_copy_that_reads_back_differently_is_no_receipt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "_read_back", lambda _: "f" * 64)
    with pytest.raises(Retriable) as caught:
        deliver(parcel(tmp_path), tmp_path / "out")
    assert caught.value.code == "delivery_differs"


def order(root: Path, **changes: Any) -> ExportOrder:
    data = DataFolder(root)
    folder = root / "stacks/s1"
    folder.mkdir(parents=True, exist_ok=True)
    products: list[Product] = []
    for kind, name in (
        ("image", "a.fits"),
        ("weight", "a.weight.fits"),
        ("catalogue", "a.ldac"),
        ("preview", "a.png"),
    ):
        (folder / name).write_bytes(kind.encode() * 99)
        products.append(data.product(folder / name, kind))
    values: dict[str, Any] = {
        "data": data,
        "folder": "stacks/s1",
        "destination": root / "delivered",
        "stack_id": "0a1b2c3d",
        "names": ("D3_r", "D3_r_0a1b"),
        "products": tuple(products),
        "dossier": dossier(),
    }
    return ExportOrder(**{**values, **changes})


def test_a_whole_stack_is_delivered_with_its_papers(tmp_path: Path) -> None:
    result = export_stack(order(tmp_path))
    names = [receipt.name for receipt in result.receipts]
    assert names == ["D3_r.fits", "D3_r_weight.fits", "D3_r.cat", "D3_r.png", "D3_r.xml", "D3_r.txt"]
    assert sorted(path.name for path in (tmp_path / "delivered/D3_r").iterdir()) == sorted([MARK, *names])
    for receipt in result.receipts:
        content = Path(receipt.path).read_bytes()
        assert hashlib.sha256(content).hexdigest() == receipt.sha256 and len(content) == receipt.size_bytes
    # The list covers everything but itself.
    listing = (tmp_path / "delivered/D3_r/D3_r.txt").read_text().splitlines()
    assert [line.split()[1] for line in listing if not line.startswith("#")] == names[:-1]
    assert [product.path for product in result.made] == ["stacks/s1/D3_r.xml", "stacks/s1/D3_r.txt"]
    assert export_stack(order(tmp_path)) == result


def test_the_list_of_checksums_comes_last(tmp_path: Path) -> None:
    broken = order(tmp_path)
    wrong = broken.products[2].model_copy(update={"sha256": "0" * 64})
    with pytest.raises(NotRetriable):
        export_stack(replace(broken, products=(*broken.products[:2], wrong, broken.products[3])))
    assert not (tmp_path / "delivered/D3_r/D3_r.txt").exists()
