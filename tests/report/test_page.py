"""The page escapes everything."""

from pathlib import Path

from PIL import Image

from undiffuse.report import page


def test_names_of_files_and_classes_cannot_become_markup() -> None:
    hostile = "<script>alert(1)</script>"
    section = page.Section(hostile, hostile, [page.from_image(Image.new("L", (2, 2)), hostile)], [hostile], [[hostile]])
    page.write_page(Path("page.html"), hostile, hostile, [(hostile, hostile)], [section])
    written = Path("page.html").read_text()
    assert "<script>" not in written
    assert written.count("&lt;script&gt;") >= 8
