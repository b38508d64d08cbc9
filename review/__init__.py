"""The error-budget review: what is left of every budget, what spent it, and whether a change may go out.

::

    with Prometheus(Connection.from_environment(url)) as prometheus:
        made = review(compiled, Reader(prometheus), at)
    print(html.page(made))

Inside out: `model` is what a review says; `budget`, `incidents` and `adjustments` count, and touch nothing outside;
`connection`, `sigv4` and `prometheus` ask; `reading` knows what to ask; `review` puts it together; `gate` answers a
pipeline. `words` and `sentences` say it, `report`, `facts` and `html` with `charts` show it.
"""
