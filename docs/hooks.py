"""What the site needs beyond MkDocs: formulas as MathML, and the files that pages link to outside docs/.

The pages are also read on GitHub, which draws formulas itself and where links such as `../infra/specs/x.yaml` work.
"""

import re
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
OUTSIDE = re.compile(r"\]\(\.\./([^)#\s]+)\)")
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Every file outside docs/ that a page links to becomes one of the site's."""
    pages = [path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")]
    for path in sorted({path for page in pages for path in OUTSIDE.findall(page)}):
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links to these files lead to their places in the site."""
    return OUTSIDE.sub(r"](\1)", markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Formulas become MathML, which browsers draw without a script."""
    return FORMULA.sub(_mathml, html)


def _mathml(found: re.Match[str]) -> str:
    latex = found[2].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    return convert(latex, display="block" if found[1] == "div" else "inline")
