"""The frame of the HTML pages: self-contained, without scripts, light and dark."""

from __future__ import annotations

from html import escape

_STYLE = """
:root { color-scheme: light dark; --text: #1c2024; --soft: #5b6570; --line: #d9dee3; --page: #ffffff; --card: #f5f7f9;
  --right: #10733f; --wrong: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --text: #e7eaed; --soft: #a2abb4; --line: #353c43; --page: #14171a;
  --card: #1d2226; --right: #6bd39a; --wrong: #ff8d85; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1200px; padding: 24px 16px 64px; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 24px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 32px 0 8px; }
p { margin: 4px 0; } .soft { color: var(--soft); }
.sample { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 12px; margin: 12px 0; }
.sample h3 { font-size: 15px; margin: 0 0 4px; overflow-wrap: anywhere; }
.text { white-space: pre-wrap; overflow-wrap: anywhere; }
.frames { display: grid; grid-template-columns: repeat(auto-fill, minmax(180px, 1fr)); gap: 8px; margin-top: 8px; }
figure { margin: 0; } figure img { width: 100%; display: block; border-radius: 4px; }
figcaption { font-size: 12px; color: var(--soft); overflow-wrap: anywhere; }
.right { color: var(--right); } .wrong { color: var(--wrong); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 6px 10px; border-bottom: 1px solid var(--line); vertical-align: top; }
td.number, th.number { text-align: right; white-space: nowrap; }
"""


def html_page(title: str, body: str) -> str:
    """Return a page; `title` is escaped here, `body` is HTML."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">\n"
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )
