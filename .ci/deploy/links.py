#!/usr/bin/env python3
"""Every relative link of the pages under deploy/ leads to a file, and to a heading where it names one."""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def anchors(page):
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


failed = 0
pages = list((ROOT / "deploy").rglob("*.md"))
for page in pages:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or anchor and anchor not in anchors(target):
            failed += 1
            print(f"FAILED: {page.relative_to(ROOT)}: {link}")
print(f"{'FAILED' if failed else 'ok'}: {len(pages)} pages")
sys.exit(failed != 0)
