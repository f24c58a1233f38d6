"""The gallery shows what its script draws, and the pages of the reference that its pictures name are there."""

import pytest

from scripts import gallery, look, pages


def test_the_page_and_its_files_are_those_of_the_script():
    assert gallery.PAGE.read_text(encoding="utf-8") == gallery.page(), "python scripts/gallery.py writes it"
    assert {path.name for path in gallery.FOLDER.iterdir()} == {f"{name}.png" for name in gallery.PICTURES}


def test_a_picture_stands_on_the_pages_of_the_names_that_it_gives():
    page_of = {public.name: page for page in pages.pages() for public in page.names}
    for name, picture in gallery.PICTURES.items():
        assert all(f"../gallery/{name}.png" in pages.pictures(page_of[public]) for public in picture.names)


def test_pages_to_look_at_are_there():
    made = {f"api/{page.slug}" for page in pages.pages()} | {"api/index"}
    docs = gallery.ROOT / "docs"
    assert not [page for page in look.PAGES if page not in made and not (docs / f"{page}.md").is_file()]


def test_a_picture_that_is_not_there_is_refused():
    with pytest.raises(SystemExit, match="there is no picture valleys; there are valley, "):
        gallery.main(["valleys"])


@pytest.mark.parametrize("name", ["schedules", "restarts"])
def test_a_picture_is_drawn(name):
    assert any(axes.lines for axes in gallery.PICTURES[name].draw().axes)
