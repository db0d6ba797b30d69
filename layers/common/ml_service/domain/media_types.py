"""Which media type an Accept header asks for, of those that can be given (RFC 9110, 12.5.1)."""

from collections.abc import Sequence


def choose_media_type(accept: str, offers: Sequence[str]) -> str | None:
    """The offer that is wanted most, the earliest of equals; None if none of them is accepted.

    An empty header accepts everything.
    """
    ranges = [_read_range(part) for part in accept.split(",") if part.strip()] or [("*/*", 1.0)]
    weights = [_weigh(offer, ranges) for offer in offers]
    best = max(weights, default=0.0)
    return offers[weights.index(best)] if best > 0 else None


def _read_range(part: str) -> tuple[str, float]:
    media_range, *parameters = (piece.strip().lower() for piece in part.split(";"))
    weight = next((p[2:] for p in parameters if p.startswith("q=")), "1")
    try:
        return media_range, float(weight)
    except ValueError:
        return media_range, 0.0  # what cannot be read is not wanted


def _weigh(offer: str, ranges: Sequence[tuple[str, float]]) -> float:
    """The weight of the most specific range that the offer fits."""
    wanted = dict(ranges)
    for media_range in (offer, f"{offer.partition('/')[0]}/*", "*/*"):
        if media_range in wanted:
            return wanted[media_range]
    return 0.0
