"""The control plane: reconciles the custom resources into receivers, distributors, processors and what they need.

kopf watches; everything else is ours: a level-triggered queue, pure builders, server-side apply, conditions.
"""
