"""The documents by which services are found: registry, capabilities, availability, tables, transfers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from tests.support.cadc.caom import COLUMNS, OBSCORE, Type

LOCATE = "http://www.opencadc.org/std/storage#locate-1.0"
FILES = "http://www.opencadc.org/std/storage#files-1.0"
TAP = "ivo://ivoa.net/std/TAP"
TABLES = "ivo://ivoa.net/std/VOSI#tables-1.1"
LOGIN = "ivo://ivoa.net/std/UMS#login-0.1"
CAPABILITIES = "ivo://ivoa.net/std/VOSI#capabilities"
AVAILABILITY = "ivo://ivoa.net/std/VOSI#availability"
CERTIFICATE = "ivo://ivoa.net/sso#tls-with-certificate"
SECURITY = ("", "ivo://ivoa.net/sso#cookie", CERTIFICATE, "ivo://ivoa.net/sso#token")
"""Anonymous, and with which credentials."""

VOSPACE = "http://www.ivoa.net/xml/VOSpace/v2.0"
SITES = ("cadc", "uvic")

SERVICES: dict[str, tuple[str, dict[str, str]]] = {
    "ivo://cadc.nrc.ca/argus": ("argus", {TAP: "", TABLES: "/tables"}),
    "ivo://cadc.nrc.ca/global/raven": ("raven", {LOCATE: "/locate", FILES: "/files"}),
    "ivo://cadc.nrc.ca/data": ("data", {}),
    "ivo://cadc.nrc.ca/gms": ("ac", {LOGIN: "/login"}),
}
"""Path and capabilities by ivo id; the minocs besides."""


class BadTransfer(ValueError):
    """A transfer document that cannot be read."""


def registry(base: str, minoc_base: str) -> str:
    """Which service has its capabilities where."""
    lines = ["# A stand-in's registry", ""]
    lines += [f"{ivo_id} = {base}/{path}/capabilities" for ivo_id, (path, _) in SERVICES.items()]
    lines += [f"ivo://cadc.nrc.ca/{site}/minoc = {minoc_base}/{site}/minoc/capabilities" for site in SITES]
    return "\n".join(lines) + "\n"


def capabilities(url: str, parts: dict[str, str]) -> str:
    """Of the service at `url`: standard id -> path below it."""
    all_parts = {**parts, CAPABILITIES: "/capabilities", AVAILABILITY: "/availability"}
    security = "".join(
        f'      <securityMethod standardID="{method}"/>\n' if method else "      <securityMethod/>\n"
        for method in SECURITY
    )
    body = "".join(
        f'  <capability standardID="{standard_id}">\n'
        '    <interface xsi:type="vs:ParamHTTP" role="std" version="1.0">\n'
        f'      <accessURL use="{"full" if path else "base"}">{escape(url + path)}</accessURL>\n'
        f"{security}    </interface>\n  </capability>\n"
        for standard_id, path in all_parts.items()
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<vosi:capabilities xmlns:vosi="http://www.ivoa.net/xml/VOSICapabilities/v1.0" '
        'xmlns:vs="http://www.ivoa.net/xml/VODataService/v1.1" '
        'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">\n'
        f"{body}</vosi:capabilities>\n"
    )


def availability() -> str:
    """All is well."""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<vosi:availability xmlns:vosi="http://www.ivoa.net/xml/VOSIAvailability/v1.0">'
        "<vosi:available>true</vosi:available><vosi:note>service is accepting requests</vosi:note>"
        "</vosi:availability>\n"
    )


def tables(detail: str | None) -> str:
    """All tables with their schemas; columns unless `detail` is `min`."""
    schemas: dict[str, dict[str, dict[str, Type]]] = {
        "caom2": COLUMNS,
        "ivoa": {"ObsCore": dict.fromkeys(OBSCORE, "char")},
    }
    body = "".join(
        f"<schema><name>{schema}</name>"
        + "".join(_table(schema, name, {} if detail == "min" else columns) for name, columns in named.items())
        + "</schema>"
        for schema, named in schemas.items()
    )
    space = 'xmlns:vosi="http://www.ivoa.net/xml/VOSITables/v1.0"'
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<vosi:tableset {space}>{body}</vosi:tableset>\n'


def table(name: str) -> str | None:
    """One table with its columns."""
    schema, _, table_name = name.partition(".")
    if schema.lower() == "ivoa" and table_name.lower() == "obscore":
        return _document(_table("ivoa", "ObsCore", dict.fromkeys(OBSCORE, "char")))
    for known, columns in COLUMNS.items():
        if (schema.lower(), table_name.lower()) == ("caom2", known.lower()):
            return _document(_table("caom2", known, columns))
    return None


def _document(body: str) -> str:
    space = 'xmlns:vosi="http://www.ivoa.net/xml/VOSITables/v1.0"'
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + body.replace(
        "<table>", f"<vosi:table {space}>"
    ).replace("</table>", "</vosi:table>")


def _table(schema: str, name: str, columns: dict[str, Type]) -> str:
    listed = "".join(f"<column><name>{column}</name></column>" for column in columns)
    return f"<table><name>{schema}.{name}</name><description>{name} of CAOM</description>{listed}</table>"


@dataclass(frozen=True)
class Asked:
    """A transfer that a client asks for."""

    uri: str
    direction: str
    protocols: tuple[tuple[str, str | None], ...]
    """Protocol and security method wanted."""


def read_transfer(body: bytes) -> Asked:
    """What a transfer document asks for."""
    try:
        root = ElementTree.fromstring(body)
    except ElementTree.ParseError as error:
        raise BadTransfer(f"invalid document: {error}") from error
    space = {"vos": VOSPACE}
    if root.tag != f"{{{VOSPACE}}}transfer":
        raise BadTransfer(f"not a transfer: {root.tag}")
    targets = [element.text or "" for element in root.findall("vos:target", space)]
    direction = root.findtext("vos:direction", "", space)
    if len(targets) != 1 or not targets[0]:
        raise BadTransfer(f"{len(targets)} targets; one is possible")
    protocols = []
    for element in root.findall("vos:protocol", space):
        security = element.find("vos:securityMethod", space)
        protocols.append((element.get("uri", ""), None if security is None else security.get("uri")))
    if not protocols:
        raise BadTransfer("no protocol")
    return Asked(targets[0], direction, tuple(protocols))


def transfer(asked: Asked, endpoints: Iterable[tuple[str, str, str | None]]) -> str:
    """The answer: protocol, URL and security method of every endpoint."""
    parts = [f"<vos:target>{escape(asked.uri)}</vos:target><vos:direction>{asked.direction}</vos:direction>"]
    for protocol, url, security in endpoints:
        method = f'<vos:securityMethod uri="{security}" />' if security else ""
        parts.append(
            f'<vos:protocol uri="{protocol}"><vos:endpoint>{escape(url)}</vos:endpoint>{method}</vos:protocol>'
        )
    return _transfer_document(parts)


def _transfer_document(parts: Sequence[str]) -> str:
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<vos:transfer xmlns:vos="{VOSPACE}" version="2.1">'
        f"{''.join(parts)}<vos:keepBytes>true</vos:keepBytes></vos:transfer>\n"
    )
