"""Dead letters: looking at them, driving them again after a fix, dropping them."""
