"""``python -m feedmill_operator``."""

from feedmill_operator.main import main

if __name__ == "__main__":
    main()
