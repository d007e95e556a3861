"""An existing empty folder is a free one."""

from transformers_cbvila.output_folders import is_free


def test_is_free_of_missing_and_empty_folders(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / ".hidden").write_text("")
    free = {name: is_free(tmp_path / name) for name in ("none", "none/below", "empty", "file", "full")}
    assert free == {"none": True, "none/below": True, "empty": True, "file": False, "full": False}
