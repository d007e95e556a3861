"""Reads the bytes of images from http(s) URLs, `data:` URLs and base64."""

import base64
import binascii
import http.client
import re
import urllib.request
from urllib.parse import quote, unquote, unquote_to_bytes, urlsplit, urlunsplit
from urllib.request import url2pathname

from .messages_cbvila import shown, shown_error

_WEB = re.compile("https?://", re.IGNORECASE)
_DATA = re.compile("data:", re.IGNORECASE)
_FILE = re.compile("file://(?:localhost)?(?=/)", re.IGNORECASE)
# Characters of a path or query that are not quoted (RFC 3986).
_SAFE = "%/:=&?~!$'()*+,;@"
_LONE_PERCENT = re.compile("%(?![0-9a-fA-F]{2})")


def is_web_address(source: str) -> bool:
    """Returns whether a text is an http(s) URL."""
    return _WEB.match(source) is not None


def is_data_url(source: str) -> bool:
    """Returns whether a text is a `data:` URL, which contains the image."""
    return _DATA.match(source) is not None


def to_path(source: str) -> str:
    """Returns the path of a `file://` URL, and any other text unchanged."""
    found = _FILE.match(source)
    return url2pathname(source[found.end() :]) if found else source


def download(url: str, timeout: float) -> bytes:
    """Downloads a URL, with non-ASCII letters and spaces quoted as browsers do.

    Raises:
        ValueError: If it cannot be downloaded.
    """
    try:
        with urllib.request.urlopen(_request(url), timeout=timeout) as response:
            return response.read()
    except (OSError, http.client.HTTPException, ValueError, OverflowError) as error:
        raise ValueError(
            f"could not download {shown(url, 200)} ({shown_error(error)}); save the image yourself and pass its path"
        ) from error


def _request(url: str) -> urllib.request.Request:
    parts = urlsplit(url)
    user, _, host = parts.netloc.rpartition("@")
    if not host.isascii():
        name, port = host.rpartition(":")[::2] if parts.port is not None else (host, "")
        host = name.encode("idna").decode() + (port and f":{port}")
    path, query = _quoted(parts.path), _quoted(parts.query)
    # Several image hosts refuse urllib's default user agent.
    request = urllib.request.Request(
        urlunsplit((parts.scheme, host, path, query, "")), headers={"User-Agent": "transformers-cbvila"}
    )
    if user:  # not sent to the target of a redirect
        credentials = base64.b64encode(unquote(user).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {credentials}")
    return request


def _quoted(part: str) -> str:
    return quote(_LONE_PERCENT.sub("%25", part), safe=_SAFE)


def decode_data_url(url: str) -> bytes:
    """Returns the contents of a `data:` URL.

    Raises:
        ValueError: If they are not base64.
    """
    header, _, payload = url.partition(",")
    try:
        if not header.lower().endswith(";base64"):
            raise ValueError("not base64")
        return _base64_bytes(unquote_to_bytes(payload))
    except ValueError as error:
        raise ValueError(f"expected 'data:image/...;base64,' and base64 text, got {shown(url)}: {error}") from error


def decode_base64(text: str) -> bytes:
    """Returns the bytes of a base64 text, empty if it is not base64."""
    try:
        return _base64_bytes(text.encode("ascii"))
    except ValueError:
        return b""


def _base64_bytes(text: bytes) -> bytes:
    """Decodes base64 in any common form: with line breaks, URL-safe, without padding."""
    text = b"".join(text.split()).translate(bytes.maketrans(b"-_", b"+/")).rstrip(b"=")
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from error
