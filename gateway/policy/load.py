"""A folder of YAML into a PolicySet, or all problems at once. The only module of the room that reads files."""

from __future__ import annotations

import hashlib
import re
import stat
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from gateway.core.canonical import digest
from gateway.core.errors import PolicyLoadError
from gateway.policy.build import build
from gateway.policy.bundle_keys import BUNDLE
from gateway.policy.checks import Parts, check
from gateway.policy.policy_keys import POLICY, TESTS
from gateway.policy.policyset import PolicySet
from gateway.policy.problems import Place, Problems, did_you_mean, quote
from gateway.policy.shape import INVALID, At, Page
from gateway.policy.source import FILE_BYTES_MAX, parse
from gateway.policy.words import NAME

FILES_MAX = 200  # one policy is one file; a house with more needs more bundles
_FOLDERS = {"policies": POLICY, "tests": TESTS}
_LOOKALIKES = (".yml", ".json", ".yaml.txt")


def load_bundle(
    path: Path,
    *,
    known_kinds: Collection[str] | None = None,
    known_obligations: Collection[str] | None = None,
    environment: Mapping[str, str],
    lenient: bool = False,
) -> PolicySet:
    """Read, check and compile a bundle. Raises PolicyLoadError with every problem as `file:line:column: ...`.

    `known_kinds` are the kinds that filters can find, `known_obligations` those that the pipeline can meet; None leaves
    them unchecked. `lenient` accepts environment
    variables that are not set, for checks and tests on machines that hold no secrets; never serve from such a set.
    About 1 ms per ten lines of YAML that were not seen before (ruamel.yaml), so a start reads a usual bundle in 50 ms.
    """
    problems = Problems()
    contents = _contents(path, problems)
    policies: dict[str, At] = {}
    tests: list[At] = []
    bundle: At | None = None
    for name, data in contents.items():
        record = _FOLDERS.get(name.split("/")[0], BUNDLE)
        source = parse(str(path / name), data)
        problems.extend(source.problems)
        if source.root is None:
            continue
        at = record.read(source.root, Page(source.lines, problems, environment, lenient))
        if at.value is INVALID:
            continue
        if record is POLICY:
            policies[Path(name).stem] = at
        elif record is TESTS:
            tests.append(at)
        else:
            bundle = at
    if bundle is not None:  # without it, every name that a policy mentions would be unknown
        check(
            Parts(
                bundle=bundle,
                policies=policies,
                tests=tuple(tests),
                environment=environment,
                known_kinds=known_kinds,
                known_obligations=known_obligations,
                lenient=lenient,
                problems=problems,
            )
        )
    if problems or bundle is None:
        raise PolicyLoadError(problems.lines())
    return PolicySet(build(bundle, policies, tuple(tests), environment), _release(contents))


def bundle_files(path: Path) -> Iterator[tuple[str, Path]]:
    """The files that make up a bundle, as (name inside the bundle, path), sorted by folder and name.

    Files whose names begin with `.` or `#` or end in `~` belong to editors and are left out.
    """
    yield "bundle.yaml", path / "bundle.yaml"
    for folder in _FOLDERS:
        if (path / folder).is_dir():
            for file in sorted((path / folder).iterdir()):
                if not file.name.startswith((".", "#")) and not file.name.endswith("~"):
                    yield f"{folder}/{file.name}", file


def _contents(path: Path, problems: Problems) -> dict[str, bytes]:
    """The bytes of every file, within bounds; problems for what is not a file of a bundle."""
    contents: dict[str, bytes] = {}
    for number, (name, file) in enumerate(bundle_files(path)):
        place = Place(str(path / name))
        if number >= FILES_MAX:
            problems.add(place, f"more than {FILES_MAX} files", "fewer: one policy is one file")
            break
        if not name.endswith(".yaml"):
            if name.lower().endswith((*_LOOKALIKES, ".yaml")) or file.is_dir():
                problems.add(place, "a file that would not be read", "a name that ends in `.yaml`, in no folder below")
            continue
        stem = Path(name).stem
        if not re.fullmatch(NAME.pattern, stem):
            problems.add(place, f"the file name {quote(stem)}", f"{NAME.words} before `.yaml`")
        try:
            data = _bounded(file)
        except OSError as error:
            other = (entry.name for entry in path.iterdir()) if path.is_dir() else ()
            problems.add(
                place, f"no readable file ({error.strerror})", "a bundle with `bundle.yaml`", did_you_mean(name, other)
            )
            continue
        if data is None:
            problems.add(
                place, "a file that is too large or not a plain file", f"at most {FILE_BYTES_MAX // 1024} KB of text"
            )
            continue
        contents[name] = data
    return contents


def _bounded(file: Path) -> bytes | None:
    """The content, or None for what is too large or may block for ever, such as a pipe."""
    if not stat.S_ISREG(file.stat().st_mode):
        return None
    with file.open("rb") as stream:
        data = stream.read(FILE_BYTES_MAX + 1)
    return data if len(data) <= FILE_BYTES_MAX else None


def _release(contents: Mapping[str, bytes]) -> str:
    """SHA-256 over names and content digests of all files; 64 hex digits."""
    return digest({"v": 1, "files": {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}})
