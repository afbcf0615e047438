"""The figures of the docs are what their code draws."""

import pytest

from docs.figures.__main__ import FIGURES, PICTURES


@pytest.mark.parametrize("name", FIGURES)
def test_a_committed_figure_is_what_its_code_draws(name: str) -> None:
    assert (PICTURES / name).read_text(encoding="utf-8") == FIGURES[name](), "python -m docs.figures draws it anew"
