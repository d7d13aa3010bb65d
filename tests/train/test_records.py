"""What a run says of itself."""

from train.records import rate


def test_rates() -> None:
    """Small ones keep a decimal, which is most of what they say."""
    assert [rate(value) for value in (0.54, 9.5, 36.4)] == ["0.5 images/s", "9.5 images/s", "36 images/s"]
