"""Images from URLs, data URLs and base64."""

import base64
from io import BytesIO

import pytest
from image_server import RED, png

from transformers_cbvila.model.image_loading_cbvila import load_image


@pytest.mark.parametrize(
    "path, sent",
    [
        ("/紫.png", "/%E7%B4%AB.png"),
        ("/a b.png", "/a%20b.png"),
        ("/a%20b.png", "/a%20b.png"),
        ("/100%.png", "/100%25.png"),
        ("/ü/(x)[1].png", "/%C3%BC/(x)%5B1%5D.png"),
        ("/x.png?q=rot und blau&n=é", "/x.png?q=rot%20und%20blau&n=%C3%A9"),
        ("/x.png?q=a%26b&c=d+e", "/x.png?q=a%26b&c=d+e"),
        ("/x.png#teil", "/x.png"),
        ("/x;v=1,2.png?a=b:c/d@e", "/x;v=1,2.png?a=b:c/d@e"),
    ],
)
def test_load_image_url_request_path(image_server, path, sent):
    assert load_image(f"{image_server.url}{path}").getpixel((0, 0)) == RED
    assert image_server.requests[-1].path == sent


def test_load_image_url_scheme_in_capitals(image_server):
    assert load_image(f"HTTP://127.0.0.1:{image_server.server_port}/x.png").getpixel((0, 0)) == RED


def test_load_image_url_credentials_are_not_sent_to_redirects(image_server):
    load_image(f"http://me:p%40ss@127.0.0.1:{image_server.server_port}/moved")
    (_, sent, host), (path, later, _) = image_server.requests[-2:]
    assert (
        base64.b64decode(sent.removeprefix("Basic ")) == b"me:p@ss" and host == f"127.0.0.1:{image_server.server_port}"
    )
    assert (path, later) == ("/there", None)


@pytest.mark.parametrize(
    "url, host",
    [
        ("http://bücher.example/x.png", "xn--bcher-kva.example"),
        ("http://bücher.example:8080/x.png", "xn--bcher-kva.example:8080"),
        ("http://me:pw@bücher.example:8080/x.png", "xn--bcher-kva.example:8080"),
        ("http://example.org:8080/x.png", "example.org:8080"),
        ("http://[::1]:8080/x.png", "[::1]:8080"),
    ],
)
def test_load_image_url_host(url, host, monkeypatch):
    asked = []
    monkeypatch.setattr("urllib.request.urlopen", lambda request, timeout: asked.append(request) or BytesIO(png()))
    load_image(url)
    assert asked[0].host == host


@pytest.mark.parametrize("url", ["http://", "http://127.0.0.1:x/a.png", "http://[::1/a.png", "http://" + "ü" * 70])
def test_load_image_rejects_invalid_urls(url):
    with pytest.raises(ValueError, match="could not download 'http:.*save the image yourself"):
        load_image(url)


ENCODED = base64.b64encode(png()).decode()


@pytest.mark.parametrize(
    "text",
    [
        "data:image/png;base64," + ENCODED,
        "DATA:image/png;BASE64," + ENCODED,
        "data:;base64," + ENCODED,
        "data:image/png;base64," + "\n".join(ENCODED[i : i + 76] for i in range(0, len(ENCODED), 76)),
        "data:image/png;base64," + ENCODED.replace("+", "%2B").replace("/", "%2F").replace("=", "%3D"),
        "data:image/png;base64," + base64.urlsafe_b64encode(png()).decode().rstrip("="),
        ENCODED,
        "\n".join(ENCODED[i : i + 76] for i in range(0, len(ENCODED), 76)),
        png(),
    ],
)
def test_load_image_base64_texts(text):
    assert load_image(text).getpixel((0, 0)) == RED


@pytest.mark.parametrize("text", [ENCODED[:-8] + "###", "x" * 400_152, "data:image/png;base64," + "#" * 400_000])
def test_load_image_error_cuts_long_texts(text):
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        load_image(text)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("text", [base64.b64encode(b"what is written here is no picture at all").decode(), "a/" * 40])
def test_load_image_takes_other_base64_for_a_path(text):
    with pytest.raises(FileNotFoundError, match="no image file at"):
        load_image(text)


def test_load_image_prefers_existing_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "A" * 64
    (tmp_path / name).write_bytes(png())
    assert load_image(name).getpixel((0, 0)) == RED


@pytest.mark.parametrize("host", ["", "localhost"])
def test_load_image_file_url(host, tmp_path):
    path = tmp_path / "ein b\u00fcld.png"
    path.write_bytes(png())
    assert load_image(path.as_uri().replace("file://", f"FILE://{host}")).getpixel((0, 0)) == RED
