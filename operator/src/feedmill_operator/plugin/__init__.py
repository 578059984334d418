"""``kubectl feedmill``: a look at feeds and pipelines in a cluster, and the few things done to them by hand."""
