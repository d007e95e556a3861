"""The output folder of conversions; an existing empty folder is allowed."""

import pytest
from output_folder import refuse_existing, written_folder


@pytest.mark.parametrize("overwrite", [False, True])
def test_written_folder_accepts_an_empty_folder(overwrite, tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    refuse_existing(target, overwrite)
    with written_folder(target, overwrite) as folder:
        (folder / "config.json").write_text("{}")
    assert [path.name for path in target.iterdir()] == ["config.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    with pytest.raises(ValueError, match="is there already"):
        refuse_existing(target, overwrite=False)
