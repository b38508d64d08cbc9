"""A small local web page of all SLOs as they are now, for people without Grafana.

`live` asks Prometheus and Alertmanager, `kept` bounds how often, `charts` and `pages` draw, `site` knows the addresses,
and `server` is the only part that speaks HTTP with a browser.
"""
