"""Where a text may be cut so that nothing that is searched for is torn apart.

Every detector's match stays inside one word, or spans words that `joins` ties together: groups of digits, a name and
the value given to it, `Bearer` and its token. Everywhere else between two words is a *break*. Inspecting a text is
inspecting its pieces between breaks, in any grouping; that makes the verdict on a stream the verdict on the whole, and
lets a long text be inspected piece by piece with the event loop breathing in between.

What each kind of finding can span, and so what a stream may hold back for it (`tests/property/test_filters_stream.py`
holds this table):

| finding | extent | held back until |
| --- | --- | --- |
| e-mail, IP, crypto, tokens, JWT, URL password | one word | the word ends |
| card, IBAN, phone, SSN | words that end and begin with digits or IBAN groups | a word that does not go on |
| `name = value`, `name: value`, `Bearer x`, `--password x` | name, sign and value | the value ends |
| private key | from `-----BEGIN` to its END | END, or what cannot be a key, or `ARMOUR_MAX` |
| a word or chain longer than `WINDOW` | inspected in overlapping windows of `WINDOW` | `WINDOW` |

Between two such words are at most 16 separators and no line break.
"""

from __future__ import annotations

from typing import NamedTuple

import re2

PIECE = 1024
"""Characters. Even a piece that is all findings takes less than 6 ms, and then the event loop may breathe."""
WINDOW = 2048
"""Characters inspected at once where no break is found: longer than nearly all tokens."""
STRIDE = WINDOW // 2
"""Within a chain longer than a window, the next window begins here: what begins before belongs to the former one, and
up to this length nothing is lost at a border."""
LOOKAHEAD = 16
"""Characters needed beyond a window to know how it ends: `-----BEGIN`, or the first characters of a word."""
ARMOUR_MAX = 16_384
"""A private key of RSA-16384 in PEM has 12,700 characters. What lies beyond is inspected as ordinary text."""

GAP_MAX = 16
SEPARATORS = frozenset(map(chr, range(0x21))) | frozenset('\x7f"<>`')
_NAMES = (
    *("password", "passwd", "passphrase", "pwd", "pass", "secret", "token", "credential", "credentials", "key"),
    *("authorization", "auth", "phone", "mobile", "tel", "cell", "fax", "number", "no"),
)  # fmt: skip
_BEFORE_KEY = ("api", "access", "account", "secret", "private", "auth", "signing", "encryption")
_SCHEMES = ("bearer", "basic")
_TAIL_MAX = 64  # of the word to the left; no name is longer

_BEGIN = "-----BEGIN"
_HEAD = r"-----BEGIN (?:[A-Z0-9]{1,20} ){0,4}PRIVATE KEY(?: BLOCK)?-----"
_GAP = r"(?:[\t-\r ,\"'+]|\\[nrt])"
_FIELD = r"[A-Z][A-Za-z0-9-]{1,30}: [ -\[\]-~]{0,200}"
_ARMOUR = re2.compile(
    rf"{_HEAD}(?:{_GAP}+{_FIELD})*(?:{_GAP}+[A-Za-z0-9+/=]{{16,}})+(?:{_GAP}+[A-Za-z0-9+/=]{{1,63}})?"
    rf"(?:{_GAP}*-----END [A-Z0-9 ]{{0,60}}-----)?"
)
_END_BEGUN = r"(?:-{1,5}|-----EN?|-----END(?: [A-Z0-9 ]{0,60})?-{0,5})"
_ARMOUR_OPEN = re2.compile(
    r"-----BEGIN(?: [A-Z0-9 ]{0,100})?-{0,5}|"
    rf"{_HEAD}(?:{_GAP}+{_FIELD})*(?:{_GAP}+[A-Za-z0-9+/=]{{16,}})*(?:{_GAP}+[A-Za-z0-9+/=]+)?"
    rf"(?:{_GAP}+[A-Z][A-Za-z0-9-]{{0,30}}:?)?{_GAP}*(?:{_END_BEGUN}|\\)?"
)
"""Everything that may still become a key: every beginning of what `_ARMOUR` matches, and a little more."""


class Piece(NamedTuple):
    """The next stretch to inspect: `text[start:end]`. What begins at or after `owned` is left to the next piece, which
    starts there or where the last finding ended. `armour`: the stretch is a private key as it stands."""

    start: int
    end: int
    owned: int
    armour: bool = False


def _leans(word: str) -> str:
    """What may continue a word (its last 64 characters): "" nothing, "1" digits, "A" IBAN groups, "=" a sign, "k" the
    word key, "*" anything."""
    last = word[-1]
    if "0" <= last <= "9":
        return "1A" if _is_group(word) else "1"
    if "a" <= last <= "z":  # nearly every word of prose
        return _leans_by_name(word, word.lower())
    core = word.rstrip("'\\")
    if core[-1:] in (":", "="):
        stem = core.rstrip(":=").rstrip("'])\\").lower()
        return "*" if not stem or stem.endswith(_NAMES) else ""
    bare = core.rstrip("])")
    if last in "(+-./)":
        digits = word.rstrip("(+-./)")
        if not digits or "0" <= digits[-1] <= "9":
            return "1=" if not bare else "1"
    if not bare:
        return "="  # closes a name, as in `["password"] = `
    if "A" <= last <= "Z" and _is_group(word):
        return "A" + _leans_by_name(word, word.lower())
    return _leans_by_name(word, bare.lower())


def _leans_by_name(word: str, lower: str) -> str:
    if lower.endswith(_SCHEMES):
        return "*"
    if lower.endswith(_NAMES):
        return "*" if word.startswith("-") else "k=" if lower.endswith(_BEFORE_KEY) else "="
    return "k" if lower.endswith(_BEFORE_KEY) else ""


def _is_group(word: str) -> bool:
    group = word[-4:]
    return len(group) == 4 and group.isalnum() and group.isascii() and group == group.upper()


def joins(left: str, gap: str, right: str) -> bool:
    """Whether something searched for may span from one word to the next. `left` is the last 64 characters of a word,
    `right` the first ones of the next, as many as are known: with none, whether there is a word that it may join.

    More of `right` turns a yes into a no, never a no into a yes.
    """
    if len(gap) > GAP_MAX or "\n" in gap or "\r" in gap:
        return False
    leans = _leans(left)
    if not leans or not right or "*" in leans:
        return bool(leans)
    first = right[0]
    return (
        ("1" in leans and first in "0123456789(+-./)")
        or ("=" in leans and first in ":=])")
        or ("A" in leans and ("A" <= first <= "Z" or "0" <= first <= "9") and not "a" <= right[1:2] <= "z")
        or ("k" in leans and right[:3].lower() in "key")
    )


class Chain:
    """Where the last chain of joined words begins in a text that grows at its end.

    Remembers the last word that it saw, so that the work of a call is that of what is new.
    """

    __slots__ = ("_begin", "_upto", "_word")

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """The text was cut at its beginning: offsets have moved."""
        self._begin = self._word = self._upto = -1

    def begin(self, text: str, at: int, upto: int) -> int:
        """Start of the last chain in `text[at:upto]`, `upto` if there is none. The last word may still grow; what
        precedes the chain is final."""
        word = self._word_start(text, at, upto)
        if word < upto:
            return self._chain_of(text, at, word, upto)
        gap = _gap_start(text, at, upto)
        if gap == at or upto - gap > GAP_MAX:
            return upto
        if not joins(_tail(text, at, gap), text[gap:upto], ""):
            return upto
        return self._chain_of(text, at, self._word_start(text, at, gap), gap)

    def _chain_of(self, text: str, at: int, word: int, upto: int) -> int:
        start = word
        while start > at:
            gap = _gap_start(text, at, start)
            if gap == at or start - gap > GAP_MAX:
                break
            left = self._word_start(text, at, gap)
            if not joins(_tail(text, left, gap), text[gap:start], text[start : min(start + 4, upto)]):
                break
            if start == self._word:
                start = self._begin
                break
            start = left
        self._begin, self._word, self._upto = start, word, upto
        return start

    def _word_start(self, text: str, at: int, upto: int) -> int:
        word = upto
        while word > at and text[word - 1] not in SEPARATORS:
            if word == self._upto and self._word < word:
                return self._word  # it only grew
            word -= 1
            if word == self._word:
                break
            if upto - word == _TAIL_MAX:  # no word of prose: search as the machine does
                floor = self._word if at <= self._word < word else at
                return max(floor, *(text.rfind(separator, floor, word) + 1 for separator in SEPARATORS))
        return word


def _tail(text: str, at: int, upto: int) -> str:
    """The last 64 characters of the word that ends at `upto`."""
    floor = max(at, upto - _TAIL_MAX)
    word = upto
    while word > floor and text[word - 1] not in SEPARATORS:
        word -= 1
    return text[word:upto]


def _gap_start(text: str, at: int, upto: int) -> int:
    """Where the separators before `upto` begin; looks at one more than a gap may have."""
    floor = max(at, upto - GAP_MAX - 1)
    while upto > floor and text[upto - 1] in SEPARATORS:
        upto -= 1
    return upto


def next_piece(text: str, at: int, final: bool, chain: Chain) -> Piece | None:
    """The next piece of `text` from `at` on, or None where more text is needed to say.

    `at` is a break, or where the piece before ended. Pieces do not depend on how the text arrived, except for where
    between breaks they are cut.
    """
    size = len(text)
    if at >= size:
        return None
    limit = text.find(_BEGIN, at, at + WINDOW + LOOKAHEAD)
    if limit == at:
        open_ = not final and size - at < ARMOUR_MAX and _ARMOUR_OPEN.fullmatch(text[at:]) is not None
        if open_:
            return None
        key = _ARMOUR.match(text[at : at + ARMOUR_MAX])
        if key is not None:
            end = at + key.end()
            return Piece(at, end, end, armour=True)
        limit = text.find(_BEGIN, at + 1, at + WINDOW + LOOKAHEAD)
    if at < limit <= at + WINDOW:
        return Piece(at, limit, limit)
    if size - at > (PIECE if final else WINDOW) + LOOKAHEAD:
        end = Chain().begin(text, at, at + PIECE)
        if end > at:
            return Piece(at, end, end)
    if size - at <= WINDOW + (0 if final else LOOKAHEAD):
        end = size if final else chain.begin(text, at, size)
        if end - at <= WINDOW:
            return Piece(at, end, end) if end > at else None
    end = Chain().begin(text, at, at + WINDOW)
    if end > at:
        return Piece(at, end, end)
    return Piece(at, at + WINDOW, at + STRIDE)
