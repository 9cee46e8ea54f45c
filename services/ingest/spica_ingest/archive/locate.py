"""Where a file's bytes are: an archive's name for it (`cadc:CFHT/2376828p.fits.fz`) to addresses, best first."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote, urlsplit
from xml.etree.ElementTree import ParseError
from xml.sax.saxutils import escape

import defusedxml.ElementTree as SafeXml
from defusedxml import DefusedXmlException

from spica_ingest.archive import errors
from spica_ingest.archive.http import ArchiveHttp
from spica_ingest.archive.registry import FILES, LOCATE, Registry, local_name
from spica_ingest.science import naming

_NAME = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*):(?P<collection>[^/\s?#%\\]+)/(?P<path>[^\s?#%\\]+)", re.ASCII
)
_MAX_NAME = 500
_TRANSFER = (
    '<?xml version="1.0" encoding="UTF-8"?>'
    '<vos:transfer xmlns:vos="http://www.ivoa.net/xml/VOSpace/v2.0" version="2.1">'
    "<vos:target>{target}</vos:target><vos:direction>pullFromVoSpace</vos:direction>"
    '<vos:protocol uri="ivo://ivoa.net/vospace/core#httpsget"/></vos:transfer>'
)
_SAFE_IN_PATH = "/:+@,=~!$&'()*;"


def is_web(uri: str) -> bool:
    """Whether this is a plain http(s) address."""
    return uri[:8].lower().startswith(("http://", "https://"))


def check_name(uri: str, schemes: tuple[str, ...]) -> None:
    """Refuse what cannot be an archive's name for a file. Raises `NotRetriable` (`unsupported_uri`)."""
    match = _NAME.fullmatch(uri) if len(uri) <= _MAX_NAME and uri.isprintable() else None
    if match is None or match["scheme"] not in schemes or ".." in uri.split("/"):
        known = ", ".join(f"{scheme}:" for scheme in schemes)
        raise errors.unsupported(
            repr(uri[:_MAX_NAME]), f"an archive's name is one of {known} followed by COLLECTION/file."
        )


def file_name(uri: str) -> str:
    """Name for the file of a URI, safe on every file system."""
    path = urlsplit(uri).path if is_web(uri) else uri
    return naming.safe(unquote(path.rsplit("/", 1)[-1]), default="file")


class Locator:
    """Asks the archive's global inventory where a file is."""

    def __init__(self, http: ArchiveHttp, registry: Registry, service_id: str) -> None:
        self._http = http
        self._registry = registry
        self._service_id = service_id

    async def addresses(self, uri: str) -> tuple[str, ...]:
        """Addresses that give the file, in the order the archive names them. Never empty.

        An archive that negotiates no transfers redirects from its `files` interface.
        """
        standards = {item.standard_id for item in await self._registry.interfaces(self._service_id)}
        if LOCATE not in standards:
            base = await self._registry.url(self._service_id, FILES)
            return (f"{base}/{quote(uri, safe=_SAFE_IN_PATH)}",)
        url = await self._registry.url(self._service_id, LOCATE)
        answer = await self._http.request(
            "POST",
            url,
            content=_TRANSFER.format(target=escape(uri)).encode(),
            headers={"Content-Type": "text/xml"},  # exactly so: with a charset it is refused
        )
        try:
            found = parse_transfer(answer.content)
        except (ParseError, DefusedXmlException, ValueError) as error:
            raise errors.unavailable(url, f"it answers with no transfer document ({error})") from None
        if not found:
            raise errors.no_such_file(uri, "it names no place where the file is")
        return found


def parse_transfer(document: bytes) -> tuple[str, ...]:
    """Endpoints of a VOSpace transfer document, each once. Raises ValueError for another document."""
    root, found = SafeXml.fromstring(document), []
    if local_name(root) != "transfer":
        raise ValueError(f"its root is <{local_name(root)}>")
    for element in root.iter():
        url = (element.text or "").strip()
        if local_name(element) == "endpoint" and is_web(url):
            found.append(url)
    return tuple(dict.fromkeys(found))
