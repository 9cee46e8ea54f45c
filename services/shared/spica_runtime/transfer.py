"""Files from one node to another: by their path where it can be reached, else over HTTP; always compared by SHA-256.

A node's data root is recognised by its marker file, not by its name: the same path may well be there on
this host, and be this host's own.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from urllib.parse import quote

import httpx
from spica_proto.base import Product
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from spica_runtime.errors import Retriable, SpicaError, Unavailable
from spica_runtime.nodes import read_marker
from spica_runtime.pg import Record
from spica_runtime.storage import DataFolder, sha256_of, whole_file

_CHUNK = 1 << 20
_TRIES = 3
_ADDRESSES = 2
"""Of a node's services, those seen last: if none of them answers, the host does not."""
_TIMEOUT = httpx.Timeout(5.0, read=60.0)

Tell = Callable[[int], None]
"""Told of bytes that came, as they come."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Another node, as the store knows it."""

    node_id: str
    data_root: Path
    marker: str | None
    urls: tuple[str, ...]
    silent_s: float
    away: bool = False
    """Silent for longer than a few heartbeats: it is not worth while to knock, and wait for an answer."""

    @classmethod
    def of(cls, row: Record, away_s: float) -> Peer:
        """From a row of the query `peers`."""
        return cls(
            row["node_id"],
            Path(row["data_root"]),
            row["marker"],
            tuple(row["urls"]),
            row["silent_s"],
            row["silent_s"] > away_s,
        )

    def reachable_root(self) -> Path | None:
        """Its data root, if this host sees that very folder under the same path."""
        marker = read_marker(self.data_root) if self.marker is not None else None
        return self.data_root if marker is not None and marker.key == self.marker else None


class NodeAway(Unavailable):
    """A node's files can be reached neither by path nor over HTTP."""


class Stopped(Exception):
    """The transfer was told to stop."""


def bring(
    peer: Peer,
    product: Product,
    target: Path,
    *,
    token: str | None,
    tell: Tell = lambda _: None,
    stopped: Callable[[], bool] = lambda: False,
) -> bool:
    """Make `target` the copy of a peer's file, whole and compared; False where it stood there already.

    Blocks: call it from a thread. `stopped` is asked now and then, and ends it with `Stopped`.

    Raises
    ------
    NodeAway
        The peer cannot be reached (`node_away`): the work waits.
    Retriable
        The peer does not have the file (`file_gone`), or other bytes (`copy_differs`); something else
        stands here (`file_in_the_way`).

    """
    if target.exists():
        if target.stat().st_size == product.size_bytes and sha256_of(target) == product.sha256:
            tell(product.size_bytes)
            return False
        if product.kind == "image":  # never replaced; what was made of one may be, since it can be made again
            raise Retriable(
                "file_in_the_way", f"{target} holds other bytes than those that are to come there."
            )
    with whole_file(target) as part:
        digest, size = hashlib.sha256(), 0
        with part.open("wb") as file:
            for chunk in _chunks(peer, product, token):
                if stopped():
                    raise Stopped
                file.write(chunk)
                digest.update(chunk)
                size += len(chunk)
                tell(len(chunk))
        if digest.hexdigest() != product.sha256:
            raise Retriable(
                "copy_differs",
                f"{product.path} came from node {peer.node_id} with {size} bytes, SHA-256 {digest.hexdigest()}; expected "
                f"{product.size_bytes} bytes, {product.sha256}. The copy was thrown away.",
                {"size_bytes": size},
            )
    return True


def _chunks(peer: Peer, product: Product, token: str | None) -> Iterator[bytes]:
    root = peer.reachable_root()
    if root is not None:
        with _reading(peer, product), DataFolder(root).path(product.path).open("rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk
    else:
        yield from _over_http(peer, product, token)


@contextlib.contextmanager
def _reading(peer: Peer, product: Product) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise _gone(peer, product) from error
    except OSError as error:
        raise NodeAway(
            "node_away", f"{product.path} of node {peer.node_id} cannot be read: {error}.", after_s=10.0
        ) from error


def _gone(peer: Peer, product: Product) -> Retriable:
    return Retriable("file_gone", f"Node {peer.node_id} does not have {product.path} (any more).")


def _over_http(peer: Peer, product: Product, token: str | None) -> Iterator[bytes]:
    """The file's bytes; a connection that breaks is taken up again where it broke."""
    if token is None or peer.away or not peer.urls:
        why = "none of its services has said where it answers"
        if token is None:
            why = "SPICA_NODE_TOKEN is not set"
        elif peer.away:
            why = f"it has been silent for {peer.silent_s:.0f} s"
        raise NodeAway(
            "node_away",
            f"Node {peer.node_id}'s data folder {peer.data_root} cannot be reached from here by its path, nor its files "
            f"over HTTP: {why}.",
            after_s=10.0,
        )
    at, faults = 0, dict[str, None]()
    with httpx.Client(trust_env=False, timeout=_TIMEOUT) as client:
        for address in peer.urls[:_ADDRESSES] * _TRIES:
            url = f"{address}/data/{quote(product.path)}"
            headers = {"authorization": f"Bearer {token}", "accept-encoding": "identity"}
            if at:
                headers["range"] = f"bytes={at}-"
            try:
                with client.stream("GET", url, headers=headers) as response:
                    if response.status_code == HTTPStatus.NOT_FOUND:
                        raise _gone(peer, product)
                    if response.status_code != (HTTPStatus.PARTIAL_CONTENT if at else HTTPStatus.OK):
                        faults[f"{url} answered {response.status_code}"] = None
                        continue
                    for chunk in response.iter_raw(_CHUNK):
                        at += len(chunk)
                        yield chunk
                    return
            except httpx.HTTPError as error:
                faults[f"{url}: {error or type(error).__name__}"] = None
    raise NodeAway(
        "node_away", f"Node {peer.node_id} does not give {product.path}: {'; '.join(faults)}.", after_s=10.0
    )


def data_route(data: DataFolder, token: str) -> Route:
    """GET /data/{path}: a file of this node for the other nodes, which know the token. Ranges are served."""
    secret = f"Bearer {token}".encode()

    async def give(request: Request) -> Response:
        given = request.headers.get("authorization", "").encode()
        if not hmac.compare_digest(given, secret):
            raise HTTPException(HTTPStatus.UNAUTHORIZED, "The token of the nodes is wanted.")
        relative: str = request.path_params["path"]
        try:
            path = data.path(relative)
        except (SpicaError, ValueError) as error:
            raise HTTPException(HTTPStatus.NOT_FOUND, "There is no such file.") from error
        # Hidden is what is not whole yet, and what is nobody else's business.
        hidden = any(part.startswith(".") for part in relative.split("/"))
        if hidden or not path.is_file():
            raise HTTPException(HTTPStatus.NOT_FOUND, "There is no such file.")
        return FileResponse(path, media_type="application/octet-stream")

    return Route("/data/{path:path}", give)
