import pytest

from rayramid.serve.errors import ApiError
from rayramid.serve.media import Span, parse_range


@pytest.mark.parametrize(
    ("header", "span"),
    [
        (None, None),
        ("bytes=0-9", Span(0, 10)),
        ("bytes=90-", Span(90, 100)),
        ("bytes=-1", Span(99, 100)),
        ("bytes=-500", Span(0, 100)),
        ("bytes=50-500", Span(50, 100)),
        # Several ranges, other units and nonsense mean the whole file.
        ("bytes=0-1,5-6", None),
        ("items=0-9", None),
        ("bytes=9-5", None),
        ("bytes=-", None),
    ],
)
def test_the_range_that_a_header_means(header, span):
    assert parse_range(header, 100) == span


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=100-200", "bytes=-0"])
def test_a_range_outside_the_file_is_refused_with_its_size(header):
    with pytest.raises(ApiError) as error:
        parse_range(header, 100)
    assert error.value.status == 416
    assert error.value.headers == {"Content-Range": "bytes */100"}
