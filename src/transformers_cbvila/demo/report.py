"""Writes a demo run's report: one HTML file that needs nothing else, and the same figures as JSON."""

import json
from pathlib import Path

from transformers_cbvila.demo import report_sections as sections
from transformers_cbvila.demo.demo_run import DemoRun
from transformers_cbvila.pages.document import html_page


def write_report(output_dir: Path, run: DemoRun) -> Path:
    """Writes `report.html` (images and style inline, no network) and `report.json` into `output_dir`.

    Args:
        output_dir: an existing or new folder; reports in it are replaced.
        run: all that the report shows.

    Returns:
        The path of `report.html`.

    Raises:
        ImportError: `matplotlib` is not installed.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    page = output_dir / "report.html"
    page.write_text(_page(run), encoding="utf-8")
    figures = json.dumps(run.to_json(), indent=2, ensure_ascii=False)
    (output_dir / "report.json").write_text(figures + "\n", encoding="utf-8")
    return page


def _page(run: DemoRun) -> str:
    parts = (
        sections.tiles_section,
        sections.comparison_section,
        sections.types_section,
        sections.curves_section,
        sections.examples_section,
        sections.environment_section,
    )
    return html_page(run.title, "\n".join(part(run) for part in parts))
