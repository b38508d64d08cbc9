"""Settings and the definitions that they lead to: `[tool.slo]` in `pyproject.toml`.

::

    [tool.slo]
    definitions = ["slo.definitions", "promises/shop"]   # packages, or folders of Python files
    output = "generated"

    [tool.slo.links]
    grafana = "https://grafana.example.com"
    runbooks = "https://runbooks.example.com/runbooks"
    alertmanager = "https://alertmanager.example.com"
    traces = "https://console.aws.amazon.com/cloudwatch/home"
    logs = "https://console.aws.amazon.com/cloudwatch/home"
    region = "eu-central-1"            # with a region, traces and logs are X-Ray and Logs Insights
    log_groups = ["/slo/redemption"]
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar
from urllib.parse import urlsplit

from slo import cloudwatch
from slo.causes import Cause, Source, Uncovered
from slo.cloudwatch import CloudWatchSettings
from slo.errors import SloError, raise_if_any
from slo.matrix import Definitions
from slo.model import Slo

Kind = TypeVar("Kind")

_OUTPUT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """Where links lead: the base URL of each place, without a slash at the end.

    Attributes:
        grafana: Boards.
        runbooks: The folder `runbooks/` of what is generated.
        traces: A Jaeger; with a region, CloudWatch's console, whose X-Ray it is then.
        logs: A page that takes `?route=...&outcome=...`; with a region, CloudWatch's console and its Logs Insights.
        alertmanager: Where alerts are silenced; without it no link does.
        region: The region of X-Ray and Logs Insights; empty where there are none.
        log_groups: What Logs Insights searches.
        alarms: Alert -> the page of its twin in CloudWatch. Not in the file: `alerts.alarms.linked` finds them.
    """

    grafana: str
    runbooks: str
    traces: str
    logs: str
    alertmanager: str = ""
    region: str = ""
    log_groups: tuple[str, ...] = ()
    alarms: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        for base in (*_BASES, *_MORE_BASES):
            object.__setattr__(self, base, getattr(self, base).rstrip("/"))
        object.__setattr__(self, "log_groups", tuple(self.log_groups))


_BASES = ("grafana", "runbooks", "traces", "logs")
_MORE_BASES = ("alertmanager",)
_LINKS = (*_BASES, *_MORE_BASES, "region", "log_groups")
# https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_CreateLogGroup.html
_LOG_GROUP = re.compile(r"[A-Za-z0-9_/.#-]{1,512}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """`[tool.slo]`.

    Attributes:
        root: The folder of the settings file; relative paths start here.
        definitions: Packages (`slo.definitions`) or folders (`promises/shop`) of definitions.
        output: The folder that `slo generate` owns.
        links: Base URLs.
        cloudwatch: Where the alarms in CloudWatch find what they watch; None when there are none.
    """

    root: Path
    definitions: tuple[str, ...]
    output: Path
    links: Links
    cloudwatch: CloudWatchSettings | None = None


def find(start: Path) -> Path:
    """The nearest `pyproject.toml` with a `[tool.slo]` table, in `start` or above it.

    Raises:
        SloError: There is none.
    """
    for folder in (start, *start.resolve().parents):
        file = folder / "pyproject.toml"
        if file.is_file() and _table(file) is not None:
            return file
    raise SloError(
        "settings",
        [f"no pyproject.toml with a [tool.slo] table in {start} or above it"],
    )


def load(file: Path) -> Settings:
    """Read and check a settings file.

    Raises:
        SloError: A key is unknown, missing or has a wrong value; all of them are named.
    """
    table = _table(file)
    subject = f"settings {file}"
    if table is None:
        raise SloError(subject, ["there is no [tool.slo] table"])
    raise_if_any(subject, _problems(table))
    root = file.resolve().parent
    return Settings(
        root=root,
        definitions=tuple(table["definitions"]),
        output=root / table.get("output", "generated"),
        links=Links(**table["links"]),
        cloudwatch=cloudwatch.parsed(table.get("cloudwatch")),
    )


def _table(file: Path) -> dict[str, Any] | None:
    """`[tool.slo]`, if the file has it."""
    try:
        tool = tomllib.loads(file.read_text()).get("tool")
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SloError(f"settings {file}", [str(error)]) from error
    table = tool.get("slo") if isinstance(tool, dict) else None
    return table if isinstance(table, dict) else None


def _problems(table: Mapping[str, Any]) -> Iterator[str]:
    known = {"definitions", "output", "links", "cloudwatch"}
    for key in sorted(set(table) - known):
        yield f"unknown key {key!r} in [tool.slo]; known are {', '.join(sorted(known))}"
    definitions = table.get("definitions")
    if not isinstance(definitions, list) or not definitions or not all(isinstance(d, str) for d in definitions):
        yield "definitions must be a list of packages or folders, ['slo.definitions'] say"
    output = table.get("output", "generated")
    # `slo generate` removes what it did not write, so the folder must hold nothing else.
    if not isinstance(output, str) or not _OUTPUT.fullmatch(output) or ".." in output.split("/"):
        yield f"output must be a folder of its own below the settings file, 'generated' say, not {output!r}"
    if "cloudwatch" in table:
        yield from cloudwatch.problems(table["cloudwatch"])
    links = table.get("links")
    if not isinstance(links, dict):
        yield "there is no [tool.slo.links] table; alerts without links help nobody"
        return
    for key in sorted(set(links) - set(_LINKS)):
        yield f"unknown key {key!r} in {_WHERE}; known are {', '.join(_LINKS)}"
    for base in (*_BASES, *(base for base in _MORE_BASES if base in links)):
        url = links.get(base)
        if not isinstance(url, str) or not _is_url(url):
            yield f"{_WHERE} {base} must be an http, https or file URL, not {url!r}"
    yield from _problems_of_console(links.get("region"), links.get("log_groups"))


_WHERE = "[tool.slo.links]"


def _problems_of_console(region: object, groups: object) -> Iterator[str]:
    if region is None:
        if groups is not None:
            yield f"{_WHERE} log_groups are of Logs Insights, which needs a region as well, 'eu-central-1' say"
        return
    if not isinstance(region, str) or not cloudwatch.is_region(region):
        yield f"{_WHERE} region must be the code of a region, 'eu-central-1' say, not {region!r}"
    names = groups if isinstance(groups, list) else []
    if not names or not all(isinstance(name, str) and _LOG_GROUP.fullmatch(name) for name in names):
        yield f"{_WHERE} log_groups must be a list of one or more log groups, ['/slo/redemption'] say, not {groups!r}"


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme == "file" or (parts.scheme in ("http", "https") and bool(parts.hostname))


def definitions(settings: Settings) -> tuple[Slo, ...]:
    """Every SLO of every module that the settings name, sorted by id.

    Raises:
        SloError: Definitions are wrong, missing or cannot be imported; the faults of all modules are told at once.
    """
    return everything(settings).slos


def everything(settings: Settings) -> Definitions:
    """Every SLO, cause and source of every module that the settings name, and what is uncovered on purpose.

    Raises:
        SloError: Definitions are wrong, missing or cannot be imported; the faults of all modules are told at once.
    """
    found: dict[int, object] = {}
    problems: list[str] = []
    for source in dict.fromkeys(settings.definitions):
        faults_before = len(problems)
        try:
            modules = list(_modules(source, settings.root, problems))
        except SloError as error:
            problems.append(str(error))
            continue
        values = {id(value): value for module in modules for value in _values(module)}
        if not _of_kind(values, Slo, Cause) and len(problems) == faults_before:
            # A folder that was misspelled or emptied must not read as no promises: every alert would be removed.
            problems.append(f"{source!r}: defines no SLO")
        found |= values
    raise_if_any("definitions", problems)
    return Definitions(
        slos=tuple(sorted(_of_kind(found, Slo), key=lambda slo: slo.id)),
        causes=tuple(sorted(_of_kind(found, Cause), key=lambda cause: cause.id)),
        uncovered=tuple(sorted(_of_kind(found, Uncovered), key=lambda one: (one.component, one.signal))),
        sources=tuple(_of_kind(found, Source)),
    )


def _of_kind(found: Mapping[int, object], *kinds: type[Kind]) -> list[Kind]:
    return [value for value in found.values() if isinstance(value, kinds)]


def _values(module: ModuleType) -> Iterable[object]:
    """Whatever a module names, alone or in a collection."""
    for value in vars(module).values():
        if isinstance(value, tuple | list | dict):
            yield from value.values() if isinstance(value, dict) else value
        else:
            yield value


def _modules(source: str, root: Path, problems: list[str]) -> Iterator[ModuleType]:
    folder = root / source
    if folder.is_dir():
        for file in sorted(folder.glob("*.py")):
            yield from _attempt(partial(_import_file, file), str(file), problems)
        return
    if not source.replace(".", "").isidentifier():
        raise SloError(
            f"{source!r}",
            [f"is neither a folder below {root} nor the name of a package"],
        )
    packages = list(_attempt(partial(importlib.import_module, source), source, problems))
    for package in packages:
        yield package
        for info in pkgutil.iter_modules(getattr(package, "__path__", ())):
            name = f"{source}.{info.name}"
            yield from _attempt(partial(importlib.import_module, name), name, problems)


def _attempt(importing: Callable[[], ModuleType], what: str, problems: list[str]) -> Iterator[ModuleType]:
    """Import one module; a fault is noted, so that the other modules' faults are found in the same run."""
    try:
        yield importing()
    except SloError as error:
        problems.append(f"{what}: {error}")
    except Exception as error:  # noqa: BLE001 - whatever a definition module raises is the author's to read
        problems.append(f"{what}: cannot be imported: {type(error).__name__}: {error}")


def _import_file(file: Path) -> ModuleType:
    name = f"_slo_definitions_{abs(hash(file.resolve())):x}_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise SloError(str(file), ["is no Python file"])
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
