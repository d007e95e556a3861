"""Takes this folder along in a wheel, as transformers_cbvila/hub/hub_cards. Only setup.cfg names it."""

from pathlib import Path

from setuptools.command.build_py import build_py

CARDS = Path("hub_cards")


class BuildWithCards(build_py):
    """setuptools' own step, and a copy of the cards where no source folder of the package has them."""

    def run(self) -> None:
        """Builds, and copies the cards."""
        super().run()
        if not self.editable_mode:
            for source, target in self._cards().items():
                self.mkpath(str(Path(target).parent))
                self.copy_file(source, target)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """Returns the built files, cards included."""
        return [*super().get_outputs(include_bytecode), *self._cards().values()]

    def get_source_files(self) -> list[str]:
        """Returns the files of a source distribution, which has to be able to build the wheel."""
        return [*super().get_source_files(), *self._cards(), str(CARDS / "build.py")]

    def _cards(self) -> dict[str, str]:
        folder = Path(self.build_lib) / "transformers_cbvila" / "hub" / CARDS.name
        return {str(path): str(folder / path.name) for path in sorted(CARDS.iterdir()) if path.suffix == ".md"}
