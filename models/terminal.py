"""What files, models and callers say, on a terminal: shown, never obeyed."""


def printable(text: str) -> str:
    """Escape what is not printed: control characters, line ends, marks that turn text around."""
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in text
    )
