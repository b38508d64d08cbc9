"""What people look at: one board of all SLOs and one of a single SLO, as Grafana dashboards.

`panels` is the house look and knows no SLO, `queries` says what each figure is, `overview` and `slo_detail` put the
two together, and `modern` turns grafanalib's output into the dashboard schema that Grafana reads today. `render` is
the way in.
"""
