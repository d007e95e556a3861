"""Fixtures of more than one folder."""

import json
import logging
from contextlib import contextmanager

import browser
import pytest
from PIL import Image


@pytest.fixture(scope="module")
def chromium():
    """A headless Chromium, closed after each file: while one runs, Playwright starts no other in the same process."""
    with browser.chromium() as running:
        yield running


@pytest.fixture
def picture_folder(tmp_path):
    """An image folder as people have it: pictures and a metadata.jsonl with a column of captions."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    colours = ["red", "green", "blue", "black", "white", "yellow", "gray", "brown"]
    lines = []
    for colour in colours:
        Image.new("RGB", (20, 20), colour).save(folder / f"{colour}.png")
        lines.append(json.dumps({"file_name": f"{colour}.png", "text": f"a {colour} square"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return str(folder)


class LoggedMessages(logging.Handler):
    """The messages of all loggers, those of transformers included, which do not reach the root logger."""

    LOGGERS = (logging.getLogger(), logging.getLogger("transformers"))

    def __init__(self):
        super().__init__()
        self.records = []

    def emit(self, record):
        if not any(record is other for other in self.records):
            self.records.append(record)

    def __call__(self, module=""):
        """Returns the messages of the loggers whose names end in `module`; of all loggers without one."""
        known = any(name.endswith(module) for name in logging.root.manager.loggerDict)
        assert known, f"no logger is called {module}"
        return [record.getMessage() for record in self.records if record.name.endswith(module)]

    @property
    def text(self):
        return "\n".join(self())

    def clear(self):
        self.records.clear()

    @contextmanager
    def at_level(self, level):
        """Lets this package's loggers say what is of `level` or above; it is WARNING otherwise."""
        logger = logging.getLogger("transformers_cbvila")
        before = logger.level
        logger.setLevel(level)
        try:
            yield
        finally:
            logger.setLevel(before)


@pytest.fixture
def logged():
    """What loggers say during the test: `logged()` is a list of messages, `logged.text` all of them."""
    messages, transformers = LoggedMessages(), logging.getLogger("transformers")
    before = transformers.level
    transformers.setLevel(logging.WARNING)  # whatever verbosity a test before has left
    for logger in LoggedMessages.LOGGERS:
        logger.addHandler(messages)
    yield messages
    for logger in LoggedMessages.LOGGERS:
        logger.removeHandler(messages)
    transformers.setLevel(before)
