"""The web ACLs of WAF that protect a region's load balancers; those of CloudFront are not read."""

from __future__ import annotations

from exporters.sources.resources import Found, Kind, Place
from slo.metrics.edge import WAF_REQUESTS

_ALL_RULES = "ALL"
_PAGE = 100


class Waf(Kind):
    """Web ACLs."""

    metrics = (WAF_REQUESTS,)

    def find(self, place: Place) -> Found:
        """Every web ACL by the name that its metrics have, which may be another than its own."""
        tagged = place.tagged("wafv2")
        resources = []
        for one in place.all("wafv2:ListWebACLs", Scope="REGIONAL", Limit=_PAGE):
            if one["ARN"] in tagged:
                told = place.ask("wafv2:GetWebACL", Name=one["Name"], Id=one["Id"], Scope="REGIONAL")
                name = told["WebACL"]["VisibilityConfig"]["MetricName"]
                resources.append(place.labels | {"web_acl": name, "rule": _ALL_RULES})
        return Found(resources)
