"""Which of the media types that can be given an Accept header asks for."""

import pytest

from ml_service.domain.media_types import choose_media_type

OFFERS = ["image/png", "image/jpeg", "image/webp"]


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", "image/png"),
        ("*/*", "image/png"),
        ("image/*", "image/png"),
        ("image/webp", "image/webp"),
        ("IMAGE/WebP", "image/webp"),
        ("image/webp, image/jpeg;q=0.9", "image/webp"),
        ("image/webp;q=0.5, image/jpeg;q=0.9", "image/jpeg"),
        ("image/avif,image/webp,*/*;q=0.8", "image/webp"),
        ("text/html, */*;q=0.1", "image/png"),
        ("*/*, image/png;q=0", "image/jpeg"),
        ("image/jpeg;level=1;q=0.3, image/*;q=0.2", "image/jpeg"),
        ("text/html", None),
        ("video/*", None),
        ("image/png;q=0", None),
        ("image/png;q=high", None),
        (";;,=", None),
    ],
)
def test_the_most_wanted_offer_is_chosen(accept: str, chosen: str | None):
    assert choose_media_type(accept, OFFERS) == chosen
