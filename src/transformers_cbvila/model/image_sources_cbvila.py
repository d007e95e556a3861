"""The bytes of an image from where a text says it is: an address on the web, a `data:` URL, base64."""

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
# What may stand in a path or a query as it is (RFC 3986); everything else is quoted.
_SAFE = "%/:=&?~!$'()*+,;@"
_LONE_PERCENT = re.compile("%(?![0-9a-fA-F]{2})")


def is_web_address(source: str) -> bool:
    """Whether a text is an http(s) URL."""
    return _WEB.match(source) is not None


def is_data_url(source: str) -> bool:
    """Whether a text is a `data:` URL, which holds the image itself."""
    return _DATA.match(source) is not None


def path_of(source: str) -> str:
    """The path that a `file://` URL means; any other text as it is."""
    found = _FILE.match(source)
    return url2pathname(source[found.end() :]) if found else source


def download(url: str, timeout: float) -> bytes:
    """Fetch a URL. Letters beyond ASCII and spaces are quoted as browsers do; what is quoted already stays.

    Raises:
        ValueError: it cannot be fetched.
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
    # Several picture hosts refuse urllib's default user agent.
    request = urllib.request.Request(
        urlunsplit((parts.scheme, host, path, query, "")), headers={"User-Agent": "transformers-cbvila"}
    )
    if user:  # not sent on to where the host redirects to
        credentials = base64.b64encode(unquote(user).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {credentials}")
    return request


def _quoted(part: str) -> str:
    return quote(_LONE_PERCENT.sub("%25", part), safe=_SAFE)


def decode_data_url(url: str) -> bytes:
    """The bytes that a `data:` URL holds.

    Raises:
        ValueError: it is not one of base64.
    """
    header, _, payload = url.partition(",")
    try:
        if not header.lower().endswith(";base64"):
            raise ValueError("not base64")
        return _base64_bytes(unquote_to_bytes(payload))
    except ValueError as error:
        raise ValueError(f"expected 'data:image/...;base64,' and base64 text, got {shown(url)}: {error}") from error


def decode_base64(text: str) -> bytes:
    """What a text says in base64; nothing if it is no base64."""
    try:
        return _base64_bytes(text.encode("ascii"))
    except ValueError:
        return b""


def _base64_bytes(text: bytes) -> bytes:
    """The bytes of base64 in any usual form: with line breaks, for URLs, without padding."""
    text = b"".join(text.split()).translate(bytes.maketrans(b"-_", b"+/")).rstrip(b"=")
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from error
