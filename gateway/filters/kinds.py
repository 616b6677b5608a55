"""The names of what filters can find, what takes their place, and which name wins where two overlap.

Knows nothing of how anything is found.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from gateway.filters.formats import FORMATS


class _Kind(NamedTuple):
    description: str
    placeholder: str
    rank: int  # the higher one keeps its span where two findings overlap


_SPECIFIC, _GENERIC = 90, 70
"""A documented token format against a generic form such as `password=`. Both stand above personal data: part of a
secret often looks like something else, never the other way round."""

_PERSONAL: dict[str, _Kind] = {
    # Checksums first, then fixed shapes, then loose ones: a card number also reads as a phone number.
    "pii.iban": _Kind("bank account number (IBAN) with a valid checksum", "<IBAN>", 66),
    "pii.card": _Kind("payment card number with a valid checksum", "<CARD>", 64),
    "pii.crypto": _Kind("Bitcoin address with a valid checksum, or Ethereum address", "<CRYPTO>", 62),
    "pii.email": _Kind("e-mail address under a registered top-level domain", "<EMAIL>", 60),
    "pii.us_ssn": _Kind("US social security number, grouped 3-2-4", "<SSN>", 50),
    "pii.ip": _Kind("IPv4 or IPv6 address, loopback and netmasks excepted", "<IP>", 40),
    "pii.phone": _Kind("telephone number that the numbering plan of its country knows", "<PHONE>", 30),
}

_SECRETS: dict[str, _Kind] = {
    f"secret.{form.name}": _Kind(form.description, "<SECRET>", _GENERIC if form.generic else _SPECIFIC)
    for form in FORMATS
}

_ALL: Mapping[str, _Kind] = MappingProxyType(_SECRETS | _PERSONAL)

KINDS: Mapping[str, str] = MappingProxyType({name: kind.description for name, kind in sorted(_ALL.items())})
"""Every kind that the built-in filters can report, with a one-line description. Rules select on these names."""


def placeholder(kind: str) -> str:
    """What stands in the place of a finding: `<EMAIL>`, `<SECRET>`..."""
    known = _ALL.get(kind)
    return known.placeholder if known else "<MASKED>"


def rank(kind: str) -> int:
    """Which of two overlapping findings stays."""
    return _ALL[kind].rank
