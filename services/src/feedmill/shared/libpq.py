"""A database URL as the variables of libpq, for PostgreSQL's own programs.

On a command line every user of the machine could read its password.
"""

from __future__ import annotations

from urllib.parse import parse_qsl, unquote, urlsplit

_OF_QUERY = {
    "host": "PGHOST",
    "port": "PGPORT",
    "user": "PGUSER",
    "password": "PGPASSWORD",
    "dbname": "PGDATABASE",
    "database": "PGDATABASE",
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
    "passfile": "PGPASSFILE",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
}


def libpq(url: str) -> dict[str, str]:
    """The variables; one of them is a secret. ``url`` must have passed ``config.check_database_url``."""
    parts = urlsplit(url)
    userinfo, _, hosts = parts.netloc.rpartition("@")
    user, _, password = userinfo.partition(":")
    names, ports = _hosts(hosts)
    found = {
        "PGHOST": names,
        "PGPORT": ports,
        "PGUSER": unquote(user),
        "PGPASSWORD": unquote(password),
        "PGDATABASE": unquote(parts.path.lstrip("/")),
    }
    query = dict(parse_qsl(parts.query))
    for option, variable in _OF_QUERY.items():
        if value := query.get(option, ""):
            found[variable] = value
    return {name: value for name, value in found.items() if value}


def _hosts(text: str) -> tuple[str, str]:
    """Several hosts are several in libpq too: ``a:1,b`` -> ``a,b`` and ``1,5432``."""
    names: list[str] = []
    ports: list[str] = []
    for each in text.split(",") if text else []:
        bracket, _, port = each.rpartition("]")
        name, port = (bracket.removeprefix("["), port.lstrip(":")) if bracket else _split(each)
        names.append(unquote(name))
        ports.append(port)
    if not any(ports):
        return ",".join(names), ""
    return ",".join(names), ",".join(port or "5432" for port in ports)


def _split(text: str) -> tuple[str, str]:
    name, _, port = text.partition(":")
    return name, port
