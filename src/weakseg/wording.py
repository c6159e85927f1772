"""Words for people."""


def counted(number: int, noun: str) -> str:
    """A number and its noun, "1 image" or "2,000 images"; the plural ends in s."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
