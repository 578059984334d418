"""The custom resources: pydantic models, their rules and the loader of local mode.

The models are the single source of the CRDs, of ``docs/reference/resources.md`` and of what ``feedmill`` reads
from files.
"""
