"""Moving in: data that other programs kept in sqlite and pickle files."""


class ImportRefused(ValueError):
    """A file is not imported, nothing of it is stored; the message names place, value and remedy, never a secret."""
