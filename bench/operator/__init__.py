"""How quickly, how leanly and how quietly the operator keeps many feeds: ``make bench-operator``."""
