"""Personal data: RE2 finds candidates in linear time, Presidio's recognizers or a numbering plan decide on each.

A candidate is found by its shape alone, bounded in length, and judged by itself. So the cost of a text without
candidates is one pass of the shared RE2 set, and no input makes a backtracking pattern look at more than a few dozen
characters. No pattern matches across a line break, and a space only where `cutting.joins` knows of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

import phonenumbers

from gateway.filters.formats import NAMED
from gateway.filters.presidio import Recognizers

Span = tuple[int, int, float]
"""Start, end (bytes) and score of a finding."""


class Personal(NamedTuple):
    """One kind of personal data: its candidates' shape, and what makes of a candidate a finding.

    `narrow` gets the text and the span of a candidate (of group 1 where the pattern has one) and returns the finding,
    or None, and where to look on: a candidate that was rejected may hide another one that begins inside of it.
    """

    kind: str
    pattern: bytes
    narrow: Callable[[Recognizers, bytes, int, int], tuple[Span | None, int]]


_EMAIL_LOCAL = rb"[A-Za-z0-9_\x80-\xff][A-Za-z0-9.!#$%&'*+^_~\x80-\xff-]*"
_EMAIL_DOMAIN = rb"(?:[A-Za-z0-9\x80-\xff][A-Za-z0-9_\x80-\xff-]*\.)+[A-Za-z\x80-\xff][A-Za-z0-9\x80-\xff-]+"
_EMAIL_BYTES_MAX = 320  # RFC 3696: 64 for the local part, 255 for the domain


def _email(use: Recognizers, data: bytes, start: int, end: int) -> tuple[Span | None, int]:
    whole = end
    address = data[start:end].rstrip(b"-").decode(errors="surrogatepass")
    # Without a space after the full stop the next word looks like a top-level domain: `a@b.com.Then`.
    while address.rpartition(".")[2].lower() not in use.top_level_domains:
        address = address.rpartition(".")[0].rstrip("-")
        if "." not in address.replace("%40", "@").rpartition("@")[2]:
            return None, whole
    end = start + len(address.encode(errors="surrogatepass"))
    address = address.replace("%40", "@")
    if end - start > _EMAIL_BYTES_MAX:
        local, _, domain = address.rpartition("@")
        address = f"{local[-64:].lstrip('.')}@{domain}"
    score = use.email(address)
    return ((start, end, score) if score else None), end


_CARD_LENGTHS = {b"4": (19, 16, 13), b"5": (16,), b"2": (16,), b"3": (16, 15, 14), b"6": (19, 18, 17, 16)}
_DOUBLED = bytes.maketrans(b"0123456789", b"0246813579")
"""Luhn: every second digit doubled, and the digits of the result added."""


def _card(use: Recognizers, data: bytes, start: int, end: int) -> tuple[Span | None, int]:
    digits = data[start:end].translate(None, b" -")
    if start and data[start - 1] in b"._":
        return None, end  # decimals
    for length in _CARD_LENGTHS[digits[:1]]:
        # Nine in ten candidates end at this sum; the recognizer then does it again.
        if length > len(digits) or _luhn(digits[:length]) % 10:
            continue
        stop = _nth_digit(data, start, length)
        if stop == end or not data[stop : stop + 1].isdigit():
            score = use.card(data[start:stop].decode())
            if score:
                return (start, stop, score), stop
    return None, start + 4  # another one may begin with the next group


def _luhn(digits: bytes) -> int:
    return sum(digits[-1::-2]) + sum(digits[-2::-2].translate(_DOUBLED)) - 48 * len(digits)


def _nth_digit(data: bytes, at: int, count: int) -> int:
    while count:
        count -= data[at : at + 1].isdigit()
        at += 1
    return at


_IBAN_LENGTHS = {
    code: int(length)
    for code, length in re.findall(
        rb"([A-Z]{2})(\d\d)",
        # SWIFT IBAN registry
        b"AD24AE23AL28AT20AZ28BA20BE16BG22BH22BI27BR29BY28CH21CR22CY28CZ24DE22DJ27DK18DO28EE20EG29ES24FI18FK18FO18FR27"
        b"GB22GE22GI23GL18GR27GT28HN28HR21HU28IE22IL23IQ23IS26IT27JO30KW30KZ20LB28LC32LI21LT20LU20LV21LY25MC27MD24ME22"
        b"MK19MN20MR27MT31MU30NI28NL18NO15OM23PK24PL28PS29PT25QA29RO24RS22RU33SA24SC31SD18SE24SI19SK24SM27SO23ST25SV28"
        b"TL23TN24TR26UA29VA22VG24XK20YE30",
    )
}


_IBAN_SPAN = 48  # 34 characters and what stands between groups


def _iban(use: Recognizers, data: bytes, start: int, end: int) -> tuple[Span | None, int]:
    wanted = _IBAN_LENGTHS.get(data[start : start + 2], 0)
    compact = data[start : start + _IBAN_SPAN].translate(None, b" -")[:wanted]
    if len(compact) != wanted or not compact.isalnum() or not compact.isupper() or not _mod_97(compact):
        return None, start + 4
    at = start
    for seen in range(wanted):
        if data[at] in b" -":
            if seen % 4:
                return None, start + 4  # groups have four
            at += 1
        if not (48 <= data[at] <= 57 or 65 <= data[at] <= 90):
            return None, start + 4
        at += 1
    if data[at : at + 1].isalnum():
        return None, start + 4
    score = use.iban(data[start:at].decode())
    return ((start, at, score), at) if score else (None, start + 4)


def _mod_97(compact: bytes) -> bool:
    """ISO 13616. Cheap, before the recognizer does it again."""
    return int((compact[4:] + compact[:4]).decode().translate(_LETTER_VALUES)) % 97 == 1


_LETTER_VALUES = {ord("A") + place: str(10 + place) for place in range(26)}


_NOBODYS = ("127.", "0.0.0.", "255.")
"""Loopback, unspecified, netmasks: they say nothing about anybody, and every development log is full of them."""


_ADDRESS_V6 = re.compile(r"(?=.*\d)(?:[0-9A-Fa-f]{4}:|(?:[0-9A-Fa-f]+:+){2,}[0-9A-Fa-f]|::(?:[0-9A-Fa-f]+:){2})")
"""`::2` is a slice of a list and `a::b` a name far more often than an address."""


def _ip(use: Recognizers, data: bytes, start: int, end: int) -> tuple[Span | None, int]:
    text = data[start:end].decode()
    before, after = data[start - 1 : start] if start else b"", data[end : end + 1]
    is_v6 = ":" in text
    if before in (b".", b"_") or after == b"_" or (after == b"." and data[end + 1 : end + 2].isdigit()):
        return None, end  # a longer dotted number, such as a section or an object identifier
    if is_v6 and (before == b":" or before.isalnum() or after == b":" or after.isalnum()):
        return None, end  # a name such as `std::deque`
    if text.startswith(_NOBODYS) or (is_v6 and not _ADDRESS_V6.match(text)):
        return None, end
    score = use.ipv6(text) if is_v6 else use.ipv4(text)
    return ((start, end, score) if score else None), end


def _us_ssn(use: Recognizers, data: bytes, start: int, end: int) -> tuple[Span | None, int]:
    if start and data[start - 1] in b"-.":
        return None, end
    score = use.us_ssn(data[start:end].decode())
    # Presidio gives bare digits 0.05; only the grouped form reaches this.
    return ((start, end, score) if score >= 0.5 else None), end


def _bitcoin(use: Recognizers, data: bytes, start: int, end: int) -> tuple[Span | None, int]:
    score = use.crypto(data[start:end].decode())
    return ((start, end, score) if score else None), end


def _ethereum(use: Recognizers, data: bytes, start: int, end: int) -> tuple[Span | None, int]:
    return (start, end, 0.6), end  # its checksum is optional and needs Keccak, which Python lacks


_DATE = re.compile(rb"(?:^|\D)(?:\d{1,2}[./-]\d{1,2}[./-](?:19|20)\d\d|(?:19|20)\d\d[./-]\d{1,2}[./-]\d{1,2})(?:\D|$)")
_REGIONS = ("GB", "DE", "FR", "IT", "NL", "BE", "AT", "CH", "AU", "IN", "JP", "BR", "ZA")
"""Where a number with a leading zero is tried; one with `+` is judged by its own country."""


def _phone(regions: tuple[str | None, ...], score: float) -> Callable[..., tuple[Span | None, int]]:
    is_international = regions == (None,)
    is_row = regions is _REGIONS  # loosely grouped: must not be the end of a longer row of numbers

    def narrow(use: Recognizers, data: bytes, start: int, end: int) -> tuple[Span | None, int]:
        before = data[start - 1 : start] if start else b""
        if before.isalnum() or (before and before in (b"+" if is_international else b".-/_+")):
            return None, end
        found = data[start:end]
        if not is_international and (
            (is_row and before in (b" ", b":") and data[start - 2 : start - 1].isdigit()) or _DATE.search(found)
        ):
            return None, end
        for _ in range(3):  # a number may be followed by another: `+44 20 7946 0958 10 pieces`
            digits = sum(48 <= byte <= 57 for byte in found)
            for region in regions if is_international or 8 <= digits <= 12 else ():
                if _valid_phone(found.decode(), region):
                    return (start, start + len(found), score), start + len(found)
            cut = re.search(rb"[ .()/-]+[0-9]+$", found)
            if cut is None:
                break
            found = found[: cut.start()]
        return None, end

    return narrow


def _valid_phone(text: str, region: str | None) -> bool:
    try:
        number = phonenumbers.parse("+" + text[2:] if region is None and text.startswith("00") else text, region)
    except phonenumbers.NumberParseException:
        return False
    return bool(phonenumbers.is_valid_number(number))


_HEX = rb"[0-9A-Fa-f]{1,4}"

PERSONAL: tuple[Personal, ...] = (
    Personal("pii.email", b"(" + _EMAIL_LOCAL + rb"(?:@|%40)" + _EMAIL_DOMAIN + b")", _email),
    Personal(
        "pii.card",
        rb"\b((?:4[0-9]{3}|5[1-5][0-9]{2}|2[2-7][0-9]{2}|3[0-9]{3}|6[0-9]{3})"
        rb"(?:[ -]?[0-9]{4}[ -]?[0-9]{4}[ -]?[0-9]{1,4}(?:[ -]?[0-9]{3})?|[ -]?[0-9]{6}[ -]?[0-9]{4,5}))\b",
        _card,
    ),
    Personal("pii.iban", rb"\b([A-Z]{2}[0-9]{2}[ -]?[A-Z0-9]{4}[ -]?[A-Z0-9]{4})", _iban),
    Personal("pii.us_ssn", rb"\b([0-9]{3}(?:-[0-9]{2}-| [0-9]{2} |\.[0-9]{2}\.)[0-9]{4})\b", _us_ssn),
    Personal("pii.ip", rb"\b((?:[0-9]{1,3}\.){3}[0-9]{1,3})\b", _ip),
    Personal(
        "pii.ip",
        rb"(\b" + _HEX + rb"(?::" + _HEX + rb"){7}\b|\b" + _HEX + rb"(?::" + _HEX + rb"){0,6}::(?:" + _HEX + rb"(?::"
        + _HEX + rb"){0,6})?|::" + _HEX + rb"(?::" + _HEX + rb"){0,6})",
        _ip,
    ),
    Personal("pii.crypto", rb"\b(bc1[a-z0-9]{25,59}|[13][a-km-zA-HJ-NP-Z1-9]{25,34})\b", _bitcoin),
    Personal("pii.crypto", rb"\b(0x[0-9a-fA-F]{40})\b", _ethereum),
    Personal("pii.phone", rb"((?:\+|\b00)[1-9](?:[ .()/-]{0,3}[0-9]){6,14})\b", _phone((None,), 0.8)),
    Personal(
        "pii.phone",
        rb"((?:\b1[ .-])?(?:\([2-9][0-9]{2}\) ?|\b[2-9][0-9]{2}[ .-])[2-9][0-9]{2}[ .-]?[0-9]{4})\b",
        _phone(("US",), 0.6),
    ),
    Personal("pii.phone", rb"\b(0[1-9][0-9]{0,4}[ ./()-]{1,3}[0-9](?:[ ./-]{0,2}[0-9]){5,9})\b", _phone(_REGIONS, 0.6)),
    Personal(
        "pii.phone",
        rb"(?i:phone|mobile|tel|cell|fax|phone[_-]?(?:number|no))" + NAMED.encode() + rb"([0-9]{8,15})\b",
        _phone(("US", *_REGIONS), 0.6),
    ),
)  # fmt: skip
