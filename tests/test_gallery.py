"""The gallery shows what its script draws, and the pages of the reference that its pictures name are there."""

import pytest

from scripts import gallery, pages


def test_the_page_and_its_files_are_those_of_the_script():
    assert gallery.PAGE.read_text(encoding="utf-8") == gallery.page(), "python scripts/gallery.py writes it"
    assert {path.name for path in gallery.FOLDER.iterdir()} == {f"{name}.png" for name in gallery.PICTURES}


def test_a_picture_stands_on_the_pages_that_it_names():
    by_slug = {page.slug: page for page in pages.pages()}
    for name, picture in gallery.PICTURES.items():
        assert all(f"../gallery/{name}.png" in pages.render(by_slug[slug]) for slug in picture.pages)


def test_a_picture_that_is_not_there_is_refused():
    with pytest.raises(SystemExit, match="there is no picture valleys; there are valley, "):
        gallery.main(["valleys"])


@pytest.mark.parametrize("name", ["schedules", "generations"])
def test_a_picture_is_drawn(name):
    assert any(axes.lines for axes in gallery.PICTURES[name].draw().axes)
