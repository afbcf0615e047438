"""What is wrong with a written caption, and what is cut off before it is used. Pure functions of text."""

import re
from collections import Counter
from dataclasses import dataclass

# What models say before they say what is to be seen; training would learn it as content.
_OPENING = re.compile(
    r"^(?:(?:sure|certainly|of course|okay)[,!.]\s*)?"
    r"(?:here(?:'s| is) (?:a|the) (?:\w+ )?(?:caption|description)[^:]*:\s*)?"
    r"(?:in this (?:video|clip|image|scene)(?: clip)?,\s*(?:we (?:can )?see\s+)?"
    r"|(?:the|this) (?:short |video )?(?:video|clip|footage|image|scene|animation)(?: clip| footage)? "
    r"(?:depicts|shows|showcases|captures|features|presents|portrays|displays|begins with|opens with)\s+)?",
    re.IGNORECASE,
)
_REFUSAL = re.compile(
    r"\b(?:i(?:'m| am) (?:sorry|unable|not able)|i (?:can(?:no|')t|won't)|as an ai\b|i apologi[sz]e"
    r"|no (?:video|image|frames?) (?:was|were|is|are) (?:provided|attached|visible))",
    re.IGNORECASE,
)
_SENTENCE_END = (".", "!", "?", '."', ".'", ".)", "。")
# Words that English text of some length can't do without.
_ENGLISH = frozenset(["the", "a", "an", "of", "in", "on", "and", "is", "are", "with", "to", "at", "by", "as", "its"])
_LANGUAGE_WORDS = 8
_REPEATED_WORDS = 4
_REPEATS = 3


@dataclass(frozen=True)
class Checked:
    """A caption without its opening, and what is wrong with it: some of CHECKS, none if all is well."""

    text: str
    wrong: tuple[str, ...]


# A caption that is wrong in one of these ways is not used.
FATAL = ("empty", "refusal", "repetition")
CHECKS = (*FATAL, "truncated", "language")


def checked(written: str) -> Checked:
    """A model's words as a caption: white space and boiler-plate openings gone, the rest looked at."""
    text = " ".join(written.split()).strip(' "')
    text = _OPENING.sub("", text, count=1)
    text = text[:1].upper() + text[1:]
    if not text:
        return Checked("", ("empty",))
    found = {
        "refusal": _REFUSAL.search(text) is not None,
        "repetition": repeats(text),
        "truncated": not text.endswith(_SENTENCE_END),
        "language": not english(text),
    }
    return Checked(text, tuple(name for name, wrong in found.items() if wrong))


def repeats(text: str) -> bool:
    """Whether the same few words stand there again and again, as models do that are stuck."""
    words = re.findall(r"\w+", text.lower())
    runs = Counter(tuple(words[n : n + _REPEATED_WORDS]) for n in range(len(words) - _REPEATED_WORDS + 1))
    return bool(runs) and max(runs.values()) >= _REPEATS


def english(text: str) -> bool:
    """Whether a text is in English, as far as its letters and commonest words tell; short ones by letters alone."""
    letters = [letter for letter in text if letter.isalpha()]
    if not letters or sum(letter.isascii() for letter in letters) < 0.9 * len(letters):
        return False
    words = re.findall(r"[a-z]+", text.lower())
    return len(words) < _LANGUAGE_WORDS or sum(word in _ENGLISH for word in words) >= 0.12 * len(words)
