"""Redis and PostgreSQL as the main process of a container: what `managed` servers of a FeedPipeline run.

``python -m feedmill.local.managed redis|postgres --data DIR --port N --password-file FILE``.
"""
