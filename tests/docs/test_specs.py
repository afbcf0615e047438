"""docs/specs.md is what the models of the specs say."""

import pytest

from docs.specs import PAGE, meaning, page, sections
from rayramid.platform.spec import KINDS


def test_the_page_is_what_the_models_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "python -m docs.specs writes it anew"


@pytest.mark.parametrize("kind", KINDS)
def test_every_key_has_a_meaning(kind: str) -> None:
    keys = [(part, name) for part in sections(kind) for name in part.model.model_fields]
    assert len(keys) > 10
    assert [f"{part.title} {name}" for part, name in keys if not meaning(part, name)] == []
