"""Presidio's recognizers without what it imports beside them. The one module that knows Presidio.

`import presidio_analyzer` loads spaCy: 1.0 to 3.7 s and 96 MB for classes that are plain patterns and checksums
(docs/adr/0003-filters.md). `_load` imports the very modules of the installed package, but with bare package objects in
place of the `__init__` files that pull in NLP engines; afterwards `sys.modules` is as before, so that a full import
elsewhere gets the real thing. If the package is laid out otherwise, the full import is used.

Recognizers only ever see one candidate of bounded length. Their regular expressions backtrack, their timeout skips the
pattern in silence, and their logger quotes what it could not validate: none of that can matter for a few dozen
characters, and a timeout is turned into an error all the same.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from gateway.core.errors import FilterError

_PACKAGE = "presidio_analyzer"
_RECOGNIZERS = f"{_PACKAGE}.predefined_recognizers"
_BARE: tuple[str, ...] = (_PACKAGE, _RECOGNIZERS, f"{_RECOGNIZERS}.generic", f"{_RECOGNIZERS}.country_specific")
_BARE += (f"{_RECOGNIZERS}.country_specific.us",)
_CORE = {  # in this order: each module takes the names of those before from the package
    "analysis_explanation": "AnalysisExplanation",
    "recognizer_result": "RecognizerResult",
    "entity_recognizer": "EntityRecognizer",
    "local_recognizer": "LocalRecognizer",
    "pattern": "Pattern",
    "pattern_recognizer": "PatternRecognizer",
}
_WANTED = {
    "CreditCardRecognizer": f"{_RECOGNIZERS}.generic.credit_card_recognizer",
    "IbanRecognizer": f"{_RECOGNIZERS}.generic.iban_recognizer",
    "EmailRecognizer": f"{_RECOGNIZERS}.generic.email_recognizer",
    "IpRecognizer": f"{_RECOGNIZERS}.generic.ip_recognizer",
    "CryptoRecognizer": f"{_RECOGNIZERS}.generic.crypto_recognizer",
    "UsSsnRecognizer": f"{_RECOGNIZERS}.country_specific.us.us_ssn_recognizer",
}
_REGEX_TIMEOUT_S = 1  # Presidio's default of 60 s, per pattern, is longer than any request lives

Judge = Callable[[str], float]
"""The score that a recognizer gives a whole candidate, 0.0 for "it is none"."""


class _Strict(logging.Filter):
    """Keeps candidates out of the log, and makes a pattern that was skipped for time an error."""

    def filter(self, record: logging.LogRecord) -> bool:
        if "timed out" in record.msg:
            raise FilterError("filter_timeout", "a recognizer ran out of time; the text was not inspected")
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Recognizers:
    """The recognizers in use, ready: `load()` builds one in 0.2 s and 28 MB."""

    card: Judge
    iban: Judge
    email: Judge
    ipv4: Judge
    ipv6: Judge
    crypto: Judge
    us_ssn: Judge
    top_level_domains: frozenset[str]


def load() -> Recognizers:
    """Import and build. Touches no network: the list of top-level domains is the one in the wheel."""
    wanted = _load()
    import tldextract

    # The default extractor downloads the public suffix list when it sees its first address.
    extract = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)

    email = wanted["EmailRecognizer"]()
    email.validate_result = lambda address: bool(extract(address).fqdn)
    ip_type = wanted["IpRecognizer"]  # five patterns, of which a candidate can only match one or four
    card_type, pattern = wanted["CreditCardRecognizer"], wanted["Pattern"]
    # Presidio's own pattern ends at 16 digits and lacks Mastercard's 2-series.
    longer = pattern("card of any length", r"\b[2-6]\d{3}(?:[- ]?\d){9,15}\b", 0.3)
    return Recognizers(
        card=_whole(card_type(patterns=[*card_type.PATTERNS, longer])),
        iban=_whole(wanted["IbanRecognizer"]()),
        email=_whole(email),
        ipv4=_whole(ip_type(patterns=[one for one in ip_type.PATTERNS if one.name == "IPv4"])),
        ipv6=_whole(ip_type(patterns=[one for one in ip_type.PATTERNS if one.name != "IPv4"])),
        crypto=_whole(wanted["CryptoRecognizer"]()),
        us_ssn=_whole(wanted["UsSsnRecognizer"]()),
        top_level_domains=frozenset(suffix.rpartition(".")[2] for suffix in extract.tlds),
    )


def _whole(recognizer: Any) -> Judge:
    entities: list[str] = recognizer.supported_entities

    def judge(candidate: str) -> float:
        best = 0.0
        for result in recognizer.analyze(candidate, entities, None):
            if result.start == 0 and result.end == len(candidate) and result.score > best:
                best = float(result.score)
        return best

    return judge


def _load() -> dict[str, Any]:
    before = {name: module for name, module in sys.modules.items() if name.split(".")[0] == _PACKAGE}
    if before:  # somebody has the whole of it already
        wanted = _import_all()
    else:
        try:
            wanted = _import_light()
        except (ImportError, AttributeError):
            _forget()
            wanted = _import_all()
        else:
            _forget()
    for kind in wanted.values():
        space = getattr(getattr(kind, "analyze", None), "__globals__", {})
        if "REGEX_TIMEOUT_SECONDS" in space:
            space["REGEX_TIMEOUT_SECONDS"] = _REGEX_TIMEOUT_S
    logger = logging.getLogger("presidio-analyzer")
    if not any(isinstance(one, _Strict) for one in logger.filters):
        logger.addFilter(_Strict())
    return wanted


def _import_light() -> dict[str, Any]:
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(_PACKAGE)
    root = spec.submodule_search_locations[0]
    for name in _BARE:
        bare = ModuleType(name)
        bare.__path__ = [root + name.removeprefix(_PACKAGE).replace(".", "/")]
        sys.modules[name] = bare
    engine = ModuleType(f"{_PACKAGE}.nlp_engine")  # the one import of it that is left is for an annotation
    engine.NlpArtifacts = object  # type: ignore[attr-defined]
    sys.modules[engine.__name__] = engine
    package = sys.modules[_PACKAGE]
    for module, name in _CORE.items():
        setattr(package, name, getattr(importlib.import_module(f"{_PACKAGE}.{module}"), name))
    wanted = {name: getattr(importlib.import_module(module), name) for name, module in _WANTED.items()}
    return wanted | {"Pattern": package.Pattern}


def _import_all() -> dict[str, Any]:
    recognizers = importlib.import_module(_RECOGNIZERS)
    package = importlib.import_module(_PACKAGE)
    return {name: getattr(recognizers, name) for name in _WANTED} | {"Pattern": package.Pattern}


def _forget() -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == _PACKAGE]:
        del sys.modules[name]
