"""Pictures as they lie in folders and tables of the web: whole ones of odd kinds, and broken ones."""

import base64
import io
import random
import struct
import zlib
from collections.abc import Callable

from PIL import Image, features


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def noise(draw: random.Random, width: int = 20, height: int = 20) -> Image.Image:
    return Image.frombytes("RGB", (width, height), draw.randbytes(width * height * 3))


def whole(draw: random.Random) -> bytes:
    return encoded(noise(draw))


def cut(draw: random.Random) -> bytes:
    content = encoded(noise(draw, 60, 60), draw.choice(["PNG", "JPEG", "GIF", "BMP"]))
    return content[: draw.randrange(len(content))]


def flipped(draw: random.Random) -> bytes:
    content = bytearray(encoded(noise(draw, 40, 40), draw.choice(["PNG", "JPEG", "TIFF"])))
    for _ in range(draw.randint(1, 30)):
        content[draw.randrange(len(content))] = draw.randrange(256)
    return bytes(content)


def no_picture(draw: random.Random) -> bytes:
    page = b"<!DOCTYPE html><html><body>404 Not Found</body></html>"
    return draw.choice(
        [b"", b"\0", page, b"<svg xmlns='http://www.w3.org/2000/svg'/>", draw.randbytes(300), b"GIF89a"]
    )


def odd_mode(draw: random.Random) -> bytes:
    mode, kind = draw.choice(
        [("1", "PNG"), ("L", "PNG"), ("LA", "PNG"), ("P", "GIF"), ("RGBA", "PNG"), ("CMYK", "JPEG"), ("I;16", "PNG")]
        + [("F", "TIFF"), ("I", "TIFF"), ("LAB", "TIFF"), ("YCbCr", "TIFF")]
    )
    return encoded(Image.new(mode, (draw.randint(1, 40), draw.randint(1, 40))), kind)


def odd_shape(draw: random.Random) -> bytes:
    return encoded(Image.new("RGB", draw.choice([(1, 1), (1, 3000), (3000, 1), (2, 1)]), "red"))


def odd_exif(draw: random.Random) -> bytes:
    """Orientations that there are and are not, and values that cannot be written back."""
    orientation = struct.pack("<HHIHH", 0x0112, 3, 1, draw.choice([0, 3, 6, 8, 99]), 0)
    resolution = struct.pack("<HHII", 0x011A, draw.choice([5, 10]), 1, 38)
    numbers = struct.pack("<ii", draw.choice([-72, 72]), draw.choice([0, 1]))
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + orientation + resolution + struct.pack("<I", 0) + numbers
    return encoded(noise(draw), "JPEG", exif=draw.choice([exif, exif[:20], b"Exif\0\0" + draw.randbytes(40)]))


def bomb(draw: random.Random) -> bytes:
    """A PNG of a few hundred bytes whose header promises 300 or 40,000 million pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    side = draw.choice([17_400, 200_000])
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def animated(draw: random.Random) -> bytes:
    kind = draw.choice(["GIF", "PNG"] + (["WEBP"] if features.check("webp") else []))
    return encoded(noise(draw), kind, save_all=True, append_images=[noise(draw)])


KINDS: list[Callable[[random.Random], bytes]] = [
    *(whole, cut, flipped, no_picture, odd_mode, odd_shape, odd_exif, bomb, animated)
]


def picture(draw: random.Random) -> bytes:
    return draw.choice(KINDS)(draw)


def data_url(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode()
