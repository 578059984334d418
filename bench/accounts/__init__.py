"""A thousand accounts on one pool of two members, one of which is killed: ``make bench-accounts``."""
