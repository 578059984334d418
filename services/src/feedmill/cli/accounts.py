"""``feedmill accounts``: accounts at exchanges, and their secrets in the credential store."""

from __future__ import annotations

import typer

from feedmill.cli.account_change import disable, enable, remove, rewrap
from feedmill.cli.account_put import add, rotate_key
from feedmill.cli.account_show import list_, show

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Accounts at exchanges, and their secrets in the credential store.

Secrets are kept in PostgreSQL, each sealed with a key of its own, which is wrapped by a key-encryption key (KEK). The
KEK is in a file that you keep and PostgreSQL never sees: without it nobody opens a secret, you neither. Make one:

\b
  (umask 077; echo "2026-11 $(openssl rand -base64 32)" > kek)
  export FEEDMILL_KEK_FILE=$PWD/kek

Each line is an id and a key. The first line wraps, the others only open what they wrapped before. To change the KEK put
a new line first, run rewrap, and then take the old line away; what runs notices by itself.

\b
  feedmill accounts add main --exchange binance --market Spot        asks for the secrets
  feedmill accounts list
  feedmill accounts rotate-key main --secret-file new-secrets        after making a new key at the exchange
  feedmill accounts rewrap                                           after putting a new KEK first

Secrets are never arguments, which every user of the machine can read. Give them at the prompt, or by --secret-file (-
is standard input) as lines NAME=VALUE or as a JSON object, or name a folder with one file a secret:

\b
  apiKey=...                   the key, or Deribit's client id
  apiSecret=...                the secret that belongs to it, or
  privateKey=...               Binance with an Ed25519 key: PEM text, line ends written \\n (simpler: a folder)

Use a key that only reads. Every use and every change of a secret is in the table audit_log: who, where, what, when.
Exit codes: 0 done, 1 failed, 2 an option, a file or a secret is wrong.""",
)

for _name, _command, _summary in (
    ("add", add, "Add an account with its secrets."),
    ("list", list_, "List the accounts."),
    ("show", show, "Show one account and its last log entries, never the secrets."),
    ("rotate-key", rotate_key, "Store new secrets in place of the former ones."),
    ("disable", disable, "Stop an account's connections."),
    ("enable", enable, "Let an account connect again."),
    ("remove", remove, "Destroy an account's secrets; its data stays."),
    ("rewrap", rewrap, "Wrap all secrets by the first key of the KEK file."),
):
    app.command(_name, short_help=_summary, context_settings={"help_option_names": ["-h", "--help"]})(_command)
