#!/usr/bin/env bash
# Make the README's pictures from the demo's run: a part of its report, and the explanation of its phantom.
# Usage: bash launch/demo.sh && bash launch/pictures.sh        Needs Chromium, and the packages of launch/test.sh.
set -euo pipefail
# shellcheck source=launch/setup.sh
source "$(dirname "$0")/setup.sh"

install cpu tests
run=runs/demo python=.venv/bin/python
"$python" -m covidscan.predict --workdir="$run" --explain --output_dir="$run/explained" "$run/phantom.nii.gz"
cp "$run"/explained/*[!l].png launch/explanation.png # not its thumbnail
"$python" - "$run"/evaluations/*-test-best/report.html launch/report.png <<'PYTHON'
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

report, picture = map(Path, sys.argv[1:])
# The headline and the curves: what fits on a first screen.
STYLE = """
nav, .controls, section > p, section > .scroll, section > details { display: none; }
section:not(:has(> #metrics, > #threshold)) { display: none; }
h2 { margin-top: 1.2rem; } body { padding-bottom: 1rem; } footer { display: none; }
"""
with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
    page = browser.new_page(viewport={"width": 1280, "height": 400}, color_scheme="light")
    page.goto(report.resolve().as_uri())
    page.wait_for_selector("html[data-drawn=yes]")
    page.add_style_tag(content=STYLE)
    page.wait_for_timeout(500)  # the curves take their new size
    page.screenshot(path=picture, full_page=True)
    browser.close()
Image.open(picture).convert("P", palette=Image.Palette.ADAPTIVE, colors=128).save(picture, optimize=True)
PYTHON
