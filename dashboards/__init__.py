"""What people look at: one board of all SLOs, one of a single SLO, one of each component, as Grafana dashboards.

`panels` and `board` are the house look and know no SLO. `queries` says what each figure of an SLO is; `charts` makes a
panel of a metric, with the limits that `limits` reads from causes and promises. `overview`, `slo_detail`, `components`,
`flash_sale` and `platform` say what is on each board, `provisioning` and `compose` how Grafana finds them. `modern`
turns grafanalib's output into the dashboard schema that Grafana reads today. `render` is the way in.
"""
