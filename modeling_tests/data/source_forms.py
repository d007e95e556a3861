"""The same four pairs in every form in which people keep them; each form is a function that writes one."""

import base64
import gzip
import io
import json
import os
import tarfile
import zipfile

from PIL import Image

COLOURS = ["red", "green", "blue", "black"]
CAPTIONS = {f"a {colour}" for colour in COLOURS}


def picture(colour, kind="PNG"):
    """The bytes of a picture file."""
    file = io.BytesIO()
    Image.new("RGB", (16, 16), colour).save(file, kind)
    return file.getvalue()


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def pictures(folder):
    for colour in COLOURS:
        write(folder / f"{colour}.png", picture(colour))
    return folder


def csv(divider=",", image="image"):
    lines = [divider.join((image, "caption")), *(divider.join((f"img/{c}.png", f"a {c}")) for c in COLOURS)]
    return "\n".join(lines) + "\n"


def jsonl(image="image", start="img/"):
    return "".join(json.dumps({image: f"{start}{c}.png", "caption": f"a {c}"}) + "\n" for c in COLOURS)


def tar(path, members, mode="w"):
    """A .tar file of (name, content)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for name, content in members:
            content = content if isinstance(content, bytes) else content.encode()
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return str(path)


def samples(ending="png", text="txt"):
    """Members of a WebDataset: pictures, and captions as `text` or in a `json`."""
    kind = {"jpg": "JPEG", "jpeg": "JPEG"}.get(ending.lower(), ending.upper())
    for number, colour in enumerate(COLOURS):
        caption = f"a {colour}"
        yield f"{number:03}.{ending}", picture(colour, kind)
        yield f"{number:03}.{text}", json.dumps({"caption": caption, "n": number}) if text == "json" else caption


def zipped(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members:
            archive.writestr(name, content)
    return str(path)


def described(folder, name="metadata.jsonl"):
    """A folder of pictures with a metadata file."""
    pictures(folder)
    lines = jsonl("file_name", "") if name.endswith("jsonl") else csv(image="file_name").replace("img/", "")
    write(folder / name, lines)
    return str(folder)


def with_texts(folder, ending=".txt"):
    pictures(folder)
    for colour in COLOURS:
        write(folder / f"{colour}{ending}", f"a {colour}\n")
    return str(folder)


def _table(name, content):
    def make(folder):
        pictures(folder / "img")
        return write(folder / name, content)

    return make


def _linked(folder):
    os.symlink(described(folder / "there"), folder / "link")
    return str(folder / "link")


def _shards(folder):
    members = list(samples())
    tar(folder / "0.tar", members[:4])
    tar(folder / "1.tar", members[4:])
    return folder


def _mixed(folder):
    kinds = zip(COLOURS, ("jpg", "png", "webp", "JPEG"), strict=True)
    members = []
    for colour, ending in kinds:
        kind = {"jpg": "JPEG"}.get(ending, ending.upper())
        members += [(f"{colour}.{ending}", picture(colour, kind)), (f"{colour}.txt", f"a {colour}")]
    return tar(folder / "mixed.tar", members)


def _data_urls(folder):
    lines = [
        {"image": "data:image/png;base64," + base64.b64encode(picture(c)).decode(), "caption": f"a {c}"}
        for c in COLOURS
    ]
    return write(folder / "urls.jsonl", "\n".join(map(json.dumps, lines)))


_LINES = json.dumps([json.loads(line) for line in jsonl().splitlines()])

FORMS = {
    "csv": _table("a.csv", csv()),
    "csv with brackets": _table("a[1].csv", csv()),
    "csv in a folder with brackets": lambda folder: _table("a.csv", csv())(folder / "[2023] trip"),
    "CSV": _table("A.CSV", csv()),
    "tsv": _table("a.tsv", csv("\t")),
    "csv.gz": _table("a.csv.gz", gzip.compress(csv().encode())),
    "tsv.gz": _table("a.tsv.gz", gzip.compress(csv("\t").encode())),
    "jsonl.gz": _table("a.jsonl.gz", gzip.compress(jsonl().encode())),
    "JSONL": _table("A.JSONL", jsonl()),
    "ndjson": _table("a.ndjson", jsonl()),
    "json": _table("a.json", _LINES),
    "csv made on Windows": _table("a.csv", "\ufeff" + csv().replace("/", "\\").replace("\n", "\r\n")),
    "csv with file_name": _table("a.csv", csv(image="file_name")),
    "jsonl with file_name": _table("a.jsonl", jsonl("file_name")),
    "data urls": _data_urls,
    "folder": lambda folder: described(folder / "photos"),
    "folder with brackets": lambda folder: described(folder / "br[1]"),
    "folder with an ending": lambda folder: described(folder / "my.csv", "metadata.csv"),
    "linked folder": _linked,
    "texts": lambda folder: with_texts(folder / "texts"),
    "TEXTS": lambda folder: with_texts(folder / "texts [x]", ".TXT"),
    "pattern of pictures": lambda folder: with_texts(folder / "texts") + "/*.png",
    "tar": lambda folder: tar(folder / "a.tar", samples()),
    "tar.gz": lambda folder: tar(folder / "a.tar.gz", samples(), "w:gz"),
    "tar of JPG": lambda folder: tar(folder / "a.TAR", samples("JPG", "TXT")),
    "tar of webp": lambda folder: tar(folder / "a.tar", samples("webp")),
    "tar with json": lambda folder: tar(folder / "a.tar", samples("jpg", "json")),
    "mixed tar": _mixed,
    "folder of tars": lambda folder: str(_shards(folder / "shards [1]")),
    "pattern of tars": lambda folder: str(_shards(folder / "shards") / "*.tar"),
    "zip": lambda folder: zipped(
        folder / "a.zip",
        [*((f"p/{c}.png", picture(c)) for c in COLOURS), ("p/metadata.jsonl", jsonl("file_name", ""))],
    ),
    "zip of texts": lambda folder: zipped(
        folder / "a.ZIP", [m for c in COLOURS for m in ((f"{c}.png", picture(c)), (f"{c}.txt", f"a {c}"))]
    ),
}
