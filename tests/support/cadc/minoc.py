"""minoc: the bytes of files, whole, in ranges, as headers, as cutouts."""

from __future__ import annotations

import re
from email.utils import format_datetime, parsedate_to_datetime

from starlette.requests import Request
from starlette.routing import Route

from tests.support.cadc import fitsparts
from tests.support.cadc.reply import Refused, Reply, entry_of, meets_fault, store_of
from tests.support.cadc.store import Stored

SERVER = "OpenCADC/cadc-rest + storage-inventory/minoc-1.0"
_UNSUPPORTED = ("CIRCLE", "POLYGON", "POS", "BAND", "TIME", "POL")


class Minoc:
    """Its endpoints, the same for every site."""

    def routes(self) -> list[Route]:
        """Below /<site>/minoc."""
        return [Route("/{site}/minoc/files/{rest:path}", self.files, methods=["GET", "HEAD"])]

    async def files(self, request: Request) -> Reply:
        """`<uri>`, or `<key>/<uri>` with a key that raven gave."""
        first, _, rest = request.path_params["rest"].partition("/")
        key, uri = (None, request.path_params["rest"]) if ":" in first else (first, rest)
        meets_fault(request, uri)
        if key is not None and not store_of(request).opens(key, uri):
            raise Refused(403, "permission denied: invalid token")
        stored = found(request, uri, opened=key is not None)
        if self._unchanged(request, stored):
            return Reply(status=304, headers={"Server": SERVER})
        names = [(name.upper(), value) for name, value in request.query_params.multi_items()]
        cutouts = [value for name, value in names if name == "SUB"]
        meta = ("META", "true") in names
        if any(name in _UNSUPPORTED for name, _ in names):
            raise Refused(400, "cutouts on the sky are not made here")
        if request.method == "GET" and (meta or cutouts):
            return self._operation(stored, cutouts, meta)
        return self._content(request, stored)

    @staticmethod
    def _unchanged(request: Request, stored: Stored) -> bool:
        since = request.headers.get("if-modified-since")
        return since is not None and stored.modified.replace(microsecond=0) <= parsedate_to_datetime(since)

    @staticmethod
    def _operation(stored: Stored, cutouts: list[str], meta: bool) -> Reply:
        if not (stored.content_type in ("application/fits", "image/fits") or _named_fits(stored.name)):
            raise Refused(400, f"not a fits file: {stored.uri}")
        if meta and cutouts:
            raise Refused(400, "Conflicting SODA parameters found: [META, SUB]")
        try:
            if meta:
                body, media_type, name = fitsparts.headers(stored.read()), "text/plain", f"{stored.name}.txt"
            else:
                body, media_type = fitsparts.cutout(stored.read(), cutouts), "application/fits"
                name = f"{stored.name.removesuffix('.fz').removesuffix('.fits')}.cutout.fits"
        except fitsparts.BadCutout as error:
            raise Refused(400, str(error)) from error
        headers = {"Content-Disposition": f'inline; filename="{name}"', "Server": SERVER}
        return Reply(body, media_type=media_type, headers=headers, chunked=True)

    @staticmethod
    def _content(request: Request, stored: Stored) -> Reply:
        wanted = request.headers.get("range") if request.method == "GET" else None
        span = None if wanted is None else read_range(wanted, stored.size_bytes)
        if span is None:
            return describe(stored, SERVER)
        reply = describe(stored, SERVER, span=span)
        reply.status = 206
        reply.headers["Content-Range"] = f"bytes {span[0]}-{span[1] - 1}/{stored.size_bytes}"
        return reply


def found(request: Request, uri: str, *, opened: bool = False) -> Stored:
    """A file this user may read. Raises Refused: 404, 403."""
    store = store_of(request)
    stored = store.files.get(uri)
    if stored is None:
        raise Refused(404, f"not found: {uri}")
    if not opened and not store.may_read(uri, entry_of(request).user):
        raise Refused(403, f"permission denied: {uri}")
    return stored


def describe(stored: Stored, server: str, *, span: tuple[int, int] | None = None) -> Reply:
    """A file, or a part of it; digest and encoding are those of the whole, as stored."""
    headers = {
        "Digest": stored.digest,
        "Last-Modified": format_datetime(stored.modified, usegmt=True),
        "Content-Disposition": f'inline; filename="{stored.name}"',
        "Accept-Ranges": "bytes",
        "x-artifact-id": stored.artifact_id,
        "Server": server,
    }
    if stored.content_encoding is not None:
        headers["Content-Encoding"] = stored.content_encoding
    return Reply(
        stored.read, media_type=stored.content_type, headers=headers, span=span or (0, stored.size_bytes)
    )


def read_range(header: str, size_bytes: int) -> tuple[int, int] | None:
    """First byte and the one after the last; None: the header is ignored. Raises Refused (416).

    As minoc does it: `bytes=-n` is the beginning up to n, and what is not one clean range is passed over.
    """
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", re.sub(r"\s", "", header))
    if match is None or not (match[1] or match[2]):
        return None
    start, last = int(match[1] or 0), min(int(match[2] or size_bytes - 1), size_bytes - 1)
    if start >= size_bytes:
        raise Refused(416, "Offset greater than size of file", {"Content-Range": f"bytes */{size_bytes}"})
    return None if last < start else (start, last + 1)


def _named_fits(name: str) -> bool:
    return name.endswith((".fits", ".fits.fz", ".fz"))
