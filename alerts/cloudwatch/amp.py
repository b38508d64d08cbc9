"""Our Prometheus rules for Amazon Managed Service for Prometheus, as CloudFormation.

Quotas: https://docs.aws.amazon.com/prometheus/latest/userguide/AMP_quotas.html (a definition of at most 1 MB, 2,000
rules a workspace, no evaluation more often than every 30 s). The workspace's own alert manager sends them on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from alerts import prometheus, yaml
from alerts.cloudwatch.burn import MANAGED_BY
from alerts.cloudwatch.cloudformation import FOLDER, template
from slo.artefacts import Artefact
from slo.causes import Cause
from slo.compile import CompiledSlo
from slo.settings import Links

# A template has at most 1 MB as well, where every line of the definition has four spaces more before it.
DEFINITION_BYTES_MAX = 700_000

_PARAMETERS = {"WorkspaceArn": {"Type": "String", "Description": "The workspace's ARN.", "AllowedPattern": "arn:.+"}}
_GROUPS = "groups:\n"


def render(compiled: Sequence[CompiledSlo], causes: Sequence[Cause], links: Links) -> list[Artefact]:
    """One template, or several where the rules are too many for one; each holds one namespace of rule groups."""
    parts = list(_parts(_rule_files(compiled, causes, links)))
    names = [f"rules-{number}" if len(parts) > 1 else "rules" for number in range(1, len(parts) + 1)]
    return [
        Artefact(FOLDER / f"managed-prometheus-{name}.template.yaml", _template(f"slo-{name}", data))
        for name, data in zip(names, parts, strict=True)
    ]


def _rule_files(compiled: Sequence[CompiledSlo], causes: Sequence[Cause], links: Links) -> Iterator[str]:
    for one in compiled:
        yield yaml.dump({"groups": prometheus.rule_groups(one, links)})
    for file in (*prometheus.render_causes(causes, links), *prometheus.render_platform(links)):
        if file.path.parent.name == "rules":
            yield file.text


def _parts(files: Iterable[str]) -> Iterator[str]:
    """The groups of all files, in as few definitions as may be."""
    part = _GROUPS
    for file in files:
        _, _, groups = file.partition(_GROUPS)
        if part != _GROUPS and len((part + groups).encode()) > DEFINITION_BYTES_MAX:
            yield part
            part = _GROUPS
        part += groups
    yield part


def _template(name: str, data: str) -> str:
    rules = {
        "Type": "AWS::APS::RuleGroupsNamespace",
        "Properties": {
            "Name": name,
            "Workspace": {"Ref": "WorkspaceArn"},
            "Data": data,
            "Tags": [{"Key": key, "Value": value} for key, value in MANAGED_BY.items()],
        },
    }
    description = "Rules of all service level objectives, for Amazon Managed Service for Prometheus."
    return template({"Rules": rules}, description, Parameters=_PARAMETERS)
