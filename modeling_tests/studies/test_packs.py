"""Scripts of the packs: archives are checked, and tiny made-up packages become the rows of a pack. No network."""

import hashlib
import io
import json
import lzma
import os
import shutil
import tarfile
from dataclasses import replace

import pytest
from datasets import load_dataset
from PIL import Image

import studies.data.emoji as emoji
import studies.data.openclipart as openclipart
from studies.data.drawings import draw_svg
from studies.data.packages import debian_package, files_in, npm_package, obtain


def png(color, size=(72, 72), mode="RGBA"):
    file = io.BytesIO()
    Image.new(mode, size, color).save(file, "PNG")
    return file.getvalue()


def tar(files, **options):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", **options) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                archive.addfile(member)
            else:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def deb(files):
    """An `ar` archive whose first member has an odd length, as a real one may."""
    members = {"debian-binary": b"2.0", "data.tar.xz": lzma.compress(tar(files))}
    content = b"!<arch>\n"
    for name, member in members.items():
        content += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(member):<10}`\n".encode()
        content += member + b"\n" * (len(member) % 2)
    return content


def stored(package, folder, content):
    """Puts an archive into `folder`, and returns the package with its checksum."""
    (folder / package.archive).write_bytes(content)
    return replace(package, sha256=hashlib.sha256(content).hexdigest())


def rows(folder, split):
    return load_dataset("parquet", data_files=str(folder / f"{split}.parquet"), split="train")


def test_obtain_takes_only_the_pinned_archive(tmp_path):
    package = stored(npm_package("dots", "1.0.0", ""), tmp_path, b"dots")
    assert obtain(package, tmp_path) == tmp_path / "dots-1.0.0.tgz"
    (tmp_path / "dots-1.0.0.tgz").write_bytes(b"other")
    with pytest.raises(ValueError, match=r"dots-1\.0\.0\.tgz has the SHA-256 .* was expected: delete the file"):
        obtain(package, tmp_path)


def test_obtain_without_client_says_which_file_to_put_where(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    way_out = r"apt-get is not installed.*get dots_1\.0_all\.deb elsewhere.*put it into .*packages"
    with pytest.raises(RuntimeError, match=way_out):
        obtain(debian_package("dots", "1:1.0", ""), tmp_path / "packages")


@pytest.mark.skipif(os.name == "nt", reason="the client stood in for is a shell script")
def test_obtain_downloads_once_and_leaves_nothing_after_a_failure(tmp_path, monkeypatch):
    client = tmp_path / "npm"
    client.write_text('#!/bin/sh\necho "$@" > some-name.tgz\n')
    client.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    content = b"pack --silent dots@1.0.0\n"
    package = replace(npm_package("dots", "1.0.0", ""), sha256=hashlib.sha256(content).hexdigest())
    folder = tmp_path / "packages"
    assert obtain(package, folder).read_bytes() == content
    client.write_text("#!/bin/sh\necho half > some-name.tgz; echo no such version >&2; exit 1\n")
    assert obtain(package, folder).read_bytes() == content
    with pytest.raises(RuntimeError, match=r"did not download one archive \(no such version\)"):
        obtain(npm_package("lines", "1.0.0", ""), folder)
    assert [file.name for file in folder.iterdir()] == ["dots-1.0.0.tgz"]


@pytest.mark.parametrize("archive", ["dots.tgz", "dots.deb"])
def test_files_in_reads_files_of_a_folder_without_links(archive, tmp_path):
    files = {"./a/b/1.txt": b"1", "./a/b/c/2.txt": b"2", "./a/bb/3.txt": b"3", "./a/b/link.txt": "1.txt"}
    content = deb(files) if archive.endswith("deb") else tar(files)
    (tmp_path / archive).write_bytes(content)
    assert dict(files_in(tmp_path / archive, "a/b")) == {"1.txt": b"1", "c/2.txt": b"2"}


def test_files_in_refuses_a_deb_without_files(tmp_path):
    (tmp_path / "dots.deb").write_bytes(b"!<arch>\n")
    with pytest.raises(ValueError, match=r"dots\.deb has no member data\.tar"):
        list(files_in(tmp_path / "dots.deb", "a"))


def listed(hexcode, annotation, **fields):
    neutral = {"skintone": "", "group": "people-body", "subgroups": "person", "tags": "adult, somebody"}
    return {"hexcode": hexcode, "annotation": annotation, **neutral, **fields}


@pytest.fixture
def emoji_packages(tmp_path, monkeypatch):
    """Three emoji in four tiny packages, and what a pack leaves out: a skin tone, and one that is not Unicode's."""
    data = [
        listed("2764", "red heart", tags=""),
        listed("1F9D1-200D-1F680", "person’s Rocket!"),
        listed("1FAEA", "new face"),
        listed("1F44D-1F3FB", "thumbs up: light", skintone="1"),
        listed("E000", "logo", group="extras-openmoji"),
    ]
    heart, rocket = "2764-fe0f", "1f9d1-200d-1f680"
    contents = {
        "noto": {f"img/google/64/{name}.png": png("red", (64, 64)) for name in (heart, rocket)},
        "twemoji": {f"img/twitter/64/{name}.png": png("#0000ff80", (64, 64)) for name in [heart]},
        "fluent": {f"icons/flat/{name}.svg": b"<svg/>" for name in ("red-heart", "persons-rocket-default")},
        "openmoji": {f"color/svg/{emoji['hexcode']}.svg": b"<svg/>" for emoji in data}
        | {"data/openmoji.json": json.dumps(data).encode()},
    }
    for artist, files in contents.items():
        content = tar({f"package/{name}": content for name, content in files.items()})
        monkeypatch.setitem(emoji.PACKAGES, artist, stored(emoji.PACKAGES[artist], tmp_path, content))
    monkeypatch.setattr(emoji, "draw_svg", lambda content, size: Image.new("RGBA", (size, size), "lime"))
    return tmp_path


def test_emoji_has_rows_of_each_artist_in_unicode_order(emoji_packages, tmp_path):
    out = tmp_path / "emoji"
    assert emoji.main(["--output_dir", str(out), "--packages", str(emoji_packages)]) == 0
    train, test = rows(out, "train"), rows(out, "test")
    assert train.column_names == list(emoji.FEATURES)
    found = [(row["artist"], row["hexcode"]) for row in train]
    assert found == [
        ("noto", "2764"),
        ("noto", "1F9D1-200D-1F680"),
        ("twemoji", "2764"),
        ("fluent", "2764"),
        ("fluent", "1F9D1-200D-1F680"),
    ]
    assert [row["caption"] for row in test] == ["red heart", "person’s Rocket!", "new face"]
    assert [row["tags"] for row in test] == [[], ["adult", "somebody"], ["adult", "somebody"]]
    assert {row["image"].size for row in [*train, *test]} == {(64, 64)}
    assert [row["image"].getpixel((9, 9)) for row in train][1:4] == [(255, 0, 0), (127, 127, 255), (0, 255, 0)]


def test_emoji_readme_names_every_licence_and_count(emoji_packages, tmp_path):
    emoji.main(["--output_dir", str(tmp_path / "emoji"), "--packages", str(emoji_packages)])
    readme = (tmp_path / "emoji/README.md").read_text()
    for row in ("| noto | 2 |", "| twemoji | 1 |", "| fluent | 2 |", "| openmoji | 3 |"):
        assert row in readme
    for licence in ("Apache-2.0", "CC BY 4.0", "MIT", "CC BY-SA 4.0", "Unicode licence"):
        assert licence in readme and licence in " ".join(emoji.__doc__.split())
    for package in emoji.PACKAGES.values():
        name, _, version = package.archive.removesuffix(".tgz").rpartition("-")
        assert f"`{name}` {version}" in readme


@pytest.fixture
def clip_art(tmp_path, monkeypatch):
    """Two selected pictures, one twice as wide as high with a transparent edge, and one that is not selected."""
    wide = Image.new("RGBA", (300, 200))
    wide.paste((255, 0, 0, 255), (50, 50, 250, 150))
    file = io.BytesIO()
    wide.save(file, "PNG")
    noise = Image.effect_noise((200, 200), 99).convert("RGBA")
    noisy = io.BytesIO()
    noise.save(noisy, "PNG")
    files = {"signs/wide.png": file.getvalue(), "a/b/noise.png": noisy.getvalue(), "a/other.png": png("blue")}
    content = deb({f"./{openclipart.FOLDER}/{name}": content for name, content in files.items()})
    monkeypatch.setattr(openclipart, "PACKAGE", stored(openclipart.PACKAGE, tmp_path, content))
    selection = tmp_path / "selection.tsv"
    selection.write_text(
        "split\tsource_path\tcaption\tkeywords\n"
        'train\tsigns/wide.png\ta "wide" sign, red\tred, wide sign\n'
        "test\ta/b/noise.png\tnoise\t\n"
    )
    monkeypatch.setattr(openclipart, "SELECTION", selection)
    return tmp_path


def test_openclipart_crops_and_captions_the_selection(clip_art, tmp_path):
    out = tmp_path / "openclipart"
    assert openclipart.main(["--output_dir", str(out), "--packages", str(clip_art)]) == 0
    (wide,), (noise,) = rows(out, "train"), rows(out, "test")
    image = wide.pop("image")
    assert image.size == (128, 128) and image.format == "PNG"
    red = Image.eval(image.getchannel("G"), lambda value: 255 - value).getbbox()
    assert red == (4, 34, 124, 94)  # 200 x 100 visible pixels became 120 x 60, in the middle
    assert wide == {
        "caption": 'a "wide" sign, red',
        "keywords": ["red", "wide sign"],
        "category": "signs",
        "source_path": "signs/wide.png",
    }
    assert noise["image"].format == "JPEG" and noise["keywords"] == [] and noise["category"] == "a/b"
    assert "1 pictures in `train`, 1 in `test`" in (out / "README.md").read_text()


def test_openclipart_names_a_picture_that_the_package_lacks(clip_art):
    with openclipart.SELECTION.open("a") as table:
        table.write("test\ta/missing.png\tmissing\t\n")
    with pytest.raises(ValueError, match=r"lacks 1 of 3 pictures of .*first a/missing\.png"):
        openclipart.main(["--output_dir", str(clip_art / "out"), "--packages", str(clip_art)])


def test_openclipart_selection_is_what_the_card_of_the_checkpoint_counts():
    selection = openclipart.read_selection(openclipart.SELECTION)
    assert {split: len(found) for split, found in selection.items()} == {"train": 4072, "test": 500}
    paths = [row["source_path"] for found in selection.values() for row in found]
    captions = [row["caption"] for found in selection.values() for row in found]
    assert len(set(paths)) == len(set(captions)) == 4572 and all(path.endswith(".png") for path in paths)


@pytest.mark.skipif(not shutil.which("rsvg-convert"), reason="needs librsvg's rsvg-convert")
def test_draw_svg_draws_at_the_size_and_names_what_it_cannot():
    drawn = draw_svg(
        b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 2 2"><rect width="1" height="2" fill="red"/></svg>', 32
    )
    assert drawn.size == (32, 32)
    assert drawn.getpixel((8, 16)) == (255, 0, 0, 255) and drawn.getpixel((24, 16))[3] == 0
    with pytest.raises(RuntimeError, match="can't draw an SVG of 5 bytes"):
        draw_svg(b"other", 32)


def test_draw_svg_without_librsvg_says_where_it_is(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RuntimeError, match="rsvg-convert.*not installed.*librsvg2-bin"):
        draw_svg(b"<svg/>", 32)
