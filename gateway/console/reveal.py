"""Untrusted text made honest: what could mislead a reader's eye becomes a labelled box.

An approver stakes their name on what the page shows. So invisible, direction-changing, control and look-alike
characters must show up as what they are, and nothing in the text may become markup. Knows nothing of pages.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from markupsafe import Markup, escape

_NAMES = {
    0x00AD: "SOFT HYPHEN", 0x034F: "JOINER", 0x061C: "ALM", 0x115F: "FILLER", 0x1160: "FILLER", 0x17B4: "INVISIBLE",
    0x17B5: "INVISIBLE", 0x180E: "MVS", 0x200B: "ZWSP", 0x200C: "ZWNJ", 0x200D: "ZWJ", 0x200E: "LRM", 0x200F: "RLM",
    0x202A: "LRE", 0x202B: "RLE", 0x202C: "PDF", 0x202D: "LRO", 0x202E: "RLO", 0x2028: "LINE SEP", 0x2029: "PARA SEP",
    0x2060: "WORD JOINER", 0x2061: "INVISIBLE", 0x2062: "INVISIBLE", 0x2063: "INVISIBLE", 0x2064: "INVISIBLE",
    0x2066: "LRI", 0x2067: "RLI", 0x2068: "FSI", 0x2069: "PDI", 0x2800: "BLANK", 0x3164: "FILLER", 0xFEFF: "BOM",
    0xFFA0: "FILLER", 0xFFFC: "OBJECT", 0xFFFD: "UNDECODABLE", 0x00A0: "NBSP",
}  # fmt: skip
_CONTROLS = (  # noqa: SIM905 - a table of words
    "NUL SOH STX ETX EOT ENQ ACK BEL BS TAB LF VT FF CR SO SI DLE DC1 DC2 DC3 DC4 NAK SYN ETB CAN EM SUB ESC "
    "FS GS RS US"
).split()
_BIDI = frozenset([0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)])

# Letters of other alphabets that a reader takes for Latin ones: those that whole words can be made of.
_LOOKS_LIKE = {
    "a": "0430 03B1", "b": "044C", "c": "0441 03F2", "d": "0501", "e": "0435", "g": "050D 0581", "h": "04BB 0570",
    "i": "0456 03B9", "j": "0458", "k": "043A 03BA", "l": "04CF", "n": "0578 03B7", "o": "043E 03BF 0585",
    "p": "0440 03C1", "q": "051B 0563", "s": "0455", "t": "0442 03C4", "u": "057D 03C5", "v": "03BD", "w": "051D",
    "x": "0445 03C7", "y": "0443 03B3", "A": "0410 0391", "B": "0412 0392", "C": "0421 03F9", "E": "0415 0395",
    "G": "050C", "H": "041D 0397", "I": "0406 0399 04C0", "J": "0408", "K": "041A 039A", "M": "041C 039C",
    "N": "039D", "O": "041E 039F 0555", "P": "0420 03A1", "Q": "051A", "S": "0405 054F", "T": "0422 03A4",
    "U": "054D", "W": "051C", "X": "0425 03A7", "Y": "0423 03A5", "Z": "0396",
    "/": "2044 2215 29F8", ":": "A789 2236", ".": "2024 066B", "-": "2010 2011 2212", "!": "01C3",
}  # fmt: skip
_CONFUSABLE = {chr(int(code, 16)): latin for latin, codes in _LOOKS_LIKE.items() for code in codes.split()}
_LATIN_LOOK_ALIKE = {"\u0251": "a", "\u0261": "g"}  # in the Latin script, and in no word of a language
_TRANSPARENT = frozenset(("Cf", "Mn", "Me", "Mc"))  # does not end a word

# Scripts that are written together in honest text; any other mixture inside one word is marked.
_TOGETHER = (
    frozenset({"LATIN", "CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "IDEOGRAPHIC"}),
    frozenset({"LATIN", "CJK", "HANGUL"}),
    frozenset({"LATIN", "CJK", "BOPOMOFO"}),
)

_SPECIAL = re.compile(
    "(?P<tags>[\U000e0000-\U000e007f]+)"
    "|(?P<newlines>\n{4,})|(?P<newline>\n)"
    "|(?P<spaces> {24,}|^ +| +$)"  # long runs push what follows out of sight
    "|(?P<control>[\x00-\x1f\x7f])"
    "|(?P<run>[0-9A-Za-z_\x80-\U000dffff\U000e0080-\U0010ffff]+)"
)
_COMBINING_MAX = 3  # more marks on one letter than any orthography uses: a tower that covers the lines around it


@dataclass(frozen=True, slots=True)
class Suspicion:
    """What was made visible in a text, as a short phrase for a warning, and how often."""

    phrase: str
    count: int


def reveal(text: str) -> Markup:
    """The text as HTML in which every misleading character is a labelled box. Never live markup, never a link."""
    if text.isascii() and text.isprintable() and " " * 24 not in text and text.strip(" ") == text:
        return escape(text)
    whole_script = _whole_script_confusable(text)
    pieces: list[str] = []
    at = 0
    for match in _SPECIAL.finditer(text):
        html = _piece(match, whole_script)
        if html is None:
            continue
        pieces.append(escape(text[at : match.start()]))
        pieces.append(html)
        at = match.end()
    pieces.append(escape(text[at:]))
    return Markup("").join(Markup(piece) for piece in pieces)  # noqa: S704 - every piece is escaped above or a box


def suspicions(text: str) -> tuple[Suspicion, ...]:
    """What a reader should be warned about, most dangerous first. Empty for ordinary text of any language."""
    if text.isascii() and text.isprintable():
        return ()
    found = []
    rtl = sum(unicodedata.bidirectional(char) in ("R", "AL") for char in text if not char.isascii())
    if rtl and any(char.isascii() and char.isalnum() for char in text):
        # The Unicode algorithm reorders such a line without any control character.
        found.append(Suspicion("right-to-left letters beside digits or Latin letters: the order may differ", rtl))
    html = reveal(text)
    for kind, phrase in _PHRASES.items():
        count = html.count(f'class="mark mark-{kind}"')
        if count:
            found.append(Suspicion(phrase, count))
    return tuple(found)


_PHRASES = {
    "bidi": "characters that reverse reading order",
    "hidden": "invisible characters",
    "look": "look-alike letters",
    "control": "control characters",
    "broken": "characters that cannot be decoded or drawn",
}


def decode(data: bytes) -> str:
    """Bytes as text for `reveal`: what is not UTF-8 becomes U+FFFD, which is drawn as a box."""
    return data.decode("utf-8", errors="replace")


def _piece(match: re.Match[str], whole_script: bool) -> str | None:
    kind, found = match.lastgroup, match.group()
    if kind == "tags":
        hidden = "".join(chr(ord(c) - 0xE0000) for c in found if 0xE0020 <= ord(c) < 0xE007F)
        return _box("hidden", f"HIDDEN TEXT: {hidden}" if hidden else "TAG", f"{len(found)} invisible tag characters")
    if kind == "newlines":
        return _box("space", f"↵ by {len(found)}", f"{len(found)} line breaks") + "\n"
    if kind == "newline":
        return '<span class="eol" aria-hidden="true">↵</span>\n'
    if kind == "spaces":
        return _box(
            "space", f"␣ by {len(found)}" if len(found) > 1 else "␣", f"{len(found)} spaces at once or at the edge"
        )
    if kind == "control":
        return _character(found)
    return None if found.isascii() else "".join(_word(word, whole_script) for word in _words(found))


def _words(run: str) -> Iterator[str]:
    """Cut a run where a letter or digit meets something that is neither; invisible characters do not cut."""
    start, kind_before = 0, None
    for at, char in enumerate(run):
        category = unicodedata.category(char)
        kind = kind_before if category in _TRANSPARENT else category[0] in "LN" or char == "_"
        if at and kind != kind_before:
            yield run[start:at]
            start = at
        kind_before = kind
    yield run[start:]


def _word(word: str, whole_script: bool) -> str:
    """One word as HTML with what is foreign or invisible in it boxed; an honest word of any language is unchanged."""
    if word.isascii():
        return escape(word)
    scripts = {script for script in map(_script, word) if script}
    mixed = len(scripts) > 1 and not any(scripts <= together for together in _TOGETHER)
    main = _main_script(word) if mixed else ""
    pieces: list[str] = []
    marks = 0
    for at, char in enumerate(word):
        category = unicodedata.category(char)
        marks = marks + 1 if category in ("Mn", "Me") else 0
        if marks and (marks > _COMBINING_MAX or at < marks) and char not in _VARIATION:
            box: str | None = _box("broken", f"U+{ord(char):04X}", "a mark with no letter to stand on, or one too many")
        elif char == "\u200d" and 0 < at < len(word) - 1 and _pictures(word[at - 1], word[at + 1]):
            box = None  # joins two pictures to one
        elif category[0] == "L" and ord(char) not in _NAMES:
            box = _letter(char, foreign=mixed and _script(char) not in ("", main), whole_script=whole_script)
        else:
            box = _character(char)
        pieces.append(escape(char) if box is None else box)
    return "".join(pieces)


def _pictures(before: str, after: str) -> bool:
    return before in _VARIATION or all(unicodedata.category(c) in ("So", "Sk") for c in (before, after))


_VARIATION = frozenset("\ufe0f")  # asks for the coloured form of the picture before it


def _character(char: str) -> str | None:
    """The box for one character that is no letter, or None where it is harmless."""
    code = ord(char)
    category = unicodedata.category(char)
    if code == 0x09:
        return _box("space", "TAB", "a tab") + "\t"
    if code in _BIDI:
        return _box("bidi", _NAMES[code], _title(char) + ": changes the reading order")
    if category == "Cc":
        return _box("control", _CONTROLS[code] if code < 0x20 else f"U+{code:04X}", "a control character")
    if code in (0xFFFD, 0xFFFC) or category in ("Cn", "Co", "Cs"):
        return _box("broken", _NAMES.get(code, f"U+{code:04X}"), "cannot be decoded or drawn")
    if char in _VARIATION:
        return None
    if category == "Cf" or code in _NAMES or 0xFE00 <= code < 0xFE0F or 0xE0100 <= code < 0xE01F0:
        return _box("space" if code == 0xA0 else "hidden", _NAMES.get(code, f"U+{code:04X}"), _title(char))
    if category == "Zs":
        return _box("space", f"U+{code:04X}", _title(char))
    return _look_alike(char, _CONFUSABLE.get(char) or _ascii_form(char))


def _letter(char: str, *, foreign: bool, whole_script: bool) -> str | None:
    like = _CONFUSABLE.get(char)
    if foreign or (whole_script and like):
        return _look_alike(char, like or "") or _box("look", char, f"{_title(char)}, of another script than its word")
    return _look_alike(char, _LATIN_LOOK_ALIKE.get(char) or _ascii_form(char))


def _look_alike(char: str, like: str) -> str | None:
    return _box("look", char, f"{_title(char)}, looks like {like}") if like else None


def _ascii_form(char: str) -> str:
    """What a full-width, circled or mathematical character reads as; empty for all others."""
    if char.isascii() or char in "\u00aa\u00ba\u00b2\u00b3\u00b9\u00bc\u00bd\u00be\u2122\u2026":
        return ""
    folded = unicodedata.normalize("NFKC", char)
    return folded if folded != char and folded.isascii() and folded.isprintable() and folded != " " else ""


def _main_script(word: str) -> str:
    """Latin where the word has any: it is what an approver reads the word as."""
    scripts = [script for script in map(_script, word) if script]
    return "LATIN" if "LATIN" in scripts else max(set(scripts), key=scripts.count)


@lru_cache(maxsize=4096)
def _script(char: str) -> str:
    """The script of a letter, from its Unicode name; empty for digits, marks and what has no script."""
    if char.isascii():
        return "LATIN" if char.isalpha() else ""
    if unicodedata.category(char)[0] != "L":
        return ""
    first = unicodedata.name(char, "").split(" ", 1)[0]
    return "" if first in _NO_SCRIPT else {"FULLWIDTH": "LATIN"}.get(first, first)


_NO_SCRIPT = frozenset(("MODIFIER", "MASCULINE", "FEMININE", "MICRO", "OHM", "ANGSTROM"))


def _whole_script_confusable(text: str) -> bool:
    """Whether the foreign letters of the text are all look-alikes: real Cyrillic or Greek text has others too."""
    foreign = [c for c in text if not c.isascii() and c.isalpha() and _script(c) in ("CYRILLIC", "GREEK", "ARMENIAN")]
    return bool(foreign) and all(c in _CONFUSABLE for c in foreign)


def _title(char: str) -> str:
    return f"U+{ord(char):04X} {unicodedata.name(char, 'without a name').lower()}"


def _box(kind: str, label: str, title: str) -> str:
    return f'<span class="mark mark-{kind}" title="{escape(title)}">{escape(label)}</span>'
