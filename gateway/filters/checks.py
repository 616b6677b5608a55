"""Arithmetic and plausibility of a candidate: what a pattern cannot say. Each check returns a score, 0.0 for "no".

Pure functions over the candidate's bytes; none of them looks at anything around it.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
import zlib
from collections import Counter

_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

SURE, LIKELY, POSSIBLE, NO = 1.0, 0.8, 0.6, 0.0


def entropy_bits(value: bytes) -> float:
    """Shannon entropy per character. Random base64 of 20 characters has about 4, English words about 3."""
    size = len(value)
    return -sum(count / size * math.log2(count / size) for count in Counter(value).values()) if size else 0.0


def crc32_base62(token: bytes) -> float:
    """GitHub's and npm's scheme: the last six characters are the CRC-32 of those before, after the prefix, in base 62
    (https://github.blog/engineering/behind-githubs-new-authentication-token-formats/).

    A wrong checksum lowers the score only: a mistyped or mock token is still shaped like nothing else.
    """
    body = token[token.rfind(b"_") + 1 :]
    number = zlib.crc32(body[:-6])
    digits = ""
    while number:
        number, digit = divmod(number, 62)
        digits = _BASE62[digit] + digits
    return SURE if digits.rjust(6, "0").encode() == body[-6:] else LIKELY


def random_looking(token: bytes) -> float:
    """For formats whose prefix alone is no proof: enough different characters, letters and digits both."""
    varied = entropy_bits(token) >= 3.0 and _has_digit(token) and not token.isdigit()
    return LIKELY if varied else NO


def jwt(token: bytes) -> float:
    """RFC 7519: the first part is a JSON object that names an algorithm."""
    head = token.split(b".", 1)[0]
    try:
        header = json.loads(base64.urlsafe_b64decode(head + b"=" * (-len(head) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        return NO
    return SURE if isinstance(header, dict) and ("alg" in header or "enc" in header) else NO


def basic_credentials(value: bytes) -> float:
    """RFC 7617: base64 of `user:password`, all printable. Tells credentials from the prose `Basic authentication`."""
    try:
        pair = base64.b64decode(value + b"=" * (-len(value) % 4), validate=True).decode()
    except (ValueError, binascii.Error):
        return NO
    return SURE if ":" in pair.strip(":") and pair.isprintable() else NO


def bearer(value: bytes) -> float:
    """A token after `Bearer `: long, varied, not a word of prose or a placeholder."""
    if len(value) < 16 or _is_reference(value):
        return NO
    return LIKELY if _has_digit(value) and entropy_bits(value) >= 3.0 else NO


def url_password(value: bytes) -> float:
    """The password in `scheme://user:password@host`, unless it is a variable or a word of documentation."""
    return NO if _is_reference(value) or value.lower() in _DOCUMENTATION_WORDS else LIKELY


def password(value: bytes) -> float:
    """What follows `password=`: people choose short ones, so a digit or sign beside letters is enough."""
    if len(value) < 6 or _is_reference(value) or value.lower() in _DOCUMENTATION_WORDS:
        return NO
    letters = _LETTER.search(value) is not None
    others = _has_digit(value) or _SIGN.search(value) is not None
    return POSSIBLE if letters and others and len(set(value)) >= 4 else NO


def keyed_token(value: bytes) -> float:
    """What follows `api_key:`, `token=`, `secret=`: long and random-looking, not code that fetches it."""
    if len(value) < 12 or _is_reference(value) or value.lower() in _DOCUMENTATION_WORDS:
        return NO
    return POSSIBLE if _has_digit(value) and not value.isdigit() and entropy_bits(value) >= 3.0 else NO


_DOCUMENTATION_WORDS = frozenset(
    b"password passwd pass secret changeme change_me example test your_password yourpassword user_password xxx xxxxxx "
    b"xxxxxxxx none null true false undefined string required optional hidden redacted masked pw pwd token".split()
)

_REFERENCE_STARTS: tuple[bytes, ...] = (
    b"${",
    b"$(",
    b"{{",
    b"%(",
    b"%{",
    b"<",
    b"{",
    b"[",
    b"process.env",
    b"os.environ",
    b"os.getenv",
)
_REFERENCE_STARTS += (b"env.", b"ENV[", b"config.", b"settings.", b"self.", b"this.", b"secrets.", b"args.", b"http")
_REFERENCE_PARTS = (b"****", b"...", b"xxxx", b"XXXX", b"your_", b"your-", b"YOUR_", b"YOUR-", b"example", b"EXAMPLE")


_EXPRESSION = re.compile(rb"[A-Za-z_][A-Za-z_.]*(?:\[[^\]]*\]?|\?)|[A-Za-z_]+(?:\.[A-Za-z_]+)+")
"""A name, or an element of one, as in `password=auth[1]` and `"password": "string?"`."""


def _is_reference(value: bytes) -> bool:
    """Names where the secret comes from, or stands in for it, instead of being it."""
    if value.startswith(_REFERENCE_STARTS) or (value[:1] == b"$" and value[1:].replace(b"_", b"").isalnum()):
        return True
    return any(part in value for part in _REFERENCE_PARTS) or _EXPRESSION.fullmatch(value) is not None


def _has_digit(value: bytes) -> bool:
    return _DIGIT.search(value) is not None


_DIGIT = re.compile(rb"[0-9]")
_LETTER = re.compile(rb"[A-Za-z]")
_SIGN = re.compile(rb"[!@#%^&*+?~|$]")
