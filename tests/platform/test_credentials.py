import pytest

from rayramid.platform.credentials import is_secret


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WANDB_API_KEY", ""),
        ("AWS_SECRET_ACCESS_KEY", ""),
        ("hf_token", ""),
        ("PASSWORD", ""),
        ("DATABASE", "postgres://me:word@host/db"),
    ],
)
def test_a_secret_is_known_by_its_name_or_by_a_password_in_its_url(name: str, value: str) -> None:
    assert is_secret(name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("KEYBOARD", ""), ("TOKENS_PER_BIN", "8"), ("AWS_ENDPOINT_URL", "http://host:9000/a@b"), ("ROOT", "s3://b/k:v@x")],
)
def test_what_only_looks_like_one_is_none(name: str, value: str) -> None:
    assert not is_secret(name, value)
