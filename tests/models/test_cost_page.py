"""docs/cost.md shows what `rayramid plan` prints."""

import re
from pathlib import Path

from rayramid.models.brief import parse_size
from rayramid.models.cost import plan_cost
from rayramid.models.cost_report import report

PAGE = Path(__file__).parents[2] / "docs/cost.md"
BLOCK = re.compile(
    r"```console\n\$ rayramid plan --preset (?P<preset>\S+) --size (?P<size>\S+) --frames (?P<frames>\d+)\n"
    r"(?P<output>.*?)\n```",
    re.DOTALL,
)


def test_every_block_is_the_commands_output():
    blocks = list(BLOCK.finditer(PAGE.read_text()))
    assert len(blocks) == PAGE.read_text().count("$ rayramid plan")
    assert {(block["preset"], block["size"], int(block["frames"])) for block in blocks} == {
        (preset, size, frames)
        for preset in ("sd3-2b", "miniflux-2b")
        for size in ("640x384", "1280x768")
        for frames in (121, 241)
    }
    for block in blocks:
        plan = plan_cost(block["preset"], *parse_size(block["size"]), int(block["frames"]))
        assert block["output"] == report(plan), f"{block['preset']} {block['size']}: copy the command's output again"


def test_the_papers_numbers_are_pointed_out_and_printed():
    page = PAGE.read_text()
    assert "**119,040**" in page
    assert "**15,360**" in page
    assert page.count("15,360 as a pyramid, 119,040 as full-sequence diffusion") == 2
    assert 3_840 + 3_840 + 960 + 28 * 240 == 15_360
