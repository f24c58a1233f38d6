"""Pictures of nine pages of the documentation, wide and narrow, by a headless Chromium: to look at them.

    make docs && python scripts/look.py        PNGs in docs/_build/looks

Formulas want a font with a table of mathematics (Debian: fonts-lmodern; Windows and macOS have one).
Uses `chromium`, `chromium-browser`, `google-chrome` or `chromium-headless-shell` from the path, or the one that CHROME names; nothing is
fetched.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HTML, LOOKS = ROOT / "docs" / "_build" / "html", ROOT / "docs" / "_build" / "looks"
PAGES = (
    "index",
    "how-to-choose",
    "write-your-own",
    "gotchas",
    "gallery",
    "methods/rate",
    "api/index",
    "api/optimizers-adam",
    "api/controllers-roulette",
)
SIZES = {"wide": (1280, 1600), "narrow": (500, 1400)}  # pixels; Chromium has no narrower window


def browser() -> str:
    """The Chromium that is there."""
    names = [os.environ.get("CHROME", ""), "chromium", "chromium-browser", "google-chrome", "chromium-headless-shell"]
    found = next((path for name in names if name and (path := shutil.which(name))), None)
    if found is None:
        raise SystemExit("look.py: no Chromium on the path; install one (Debian: apt-get install chromium), or name it by CHROME=/path")
    return found


def main() -> int:
    missing = [page for page in PAGES if not (HTML / f"{page}.html").is_file()]
    if missing:
        raise SystemExit(f"look.py: {', '.join(missing)} of docs/_build/html must be there; run make docs first")
    chromium = browser()
    LOOKS.mkdir(parents=True, exist_ok=True)
    for page in PAGES:
        for name, (width, height) in SIZES.items():
            picture = LOOKS / f"{page.replace('/', '-')}-{name}.png"
            options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--window-size={width},{height}"]
            line = [chromium, *options, f"--screenshot={picture}", (HTML / f"{page}.html").as_uri()]
            subprocess.run(line, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=120)
            print(picture.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
