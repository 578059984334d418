"""What goes wrong, told so that the reader knows what to do."""

from __future__ import annotations

from feedmill_operator.kube.api import ApiError

FAILED, WRONG = 1, 2
"""Exit codes: it could not be done (or not all is well); what was asked for is wrong."""
RIGHTS = "docs/kubectl-plugin.md lists the rights each command needs"


class PluginError(Exception):
    """Ends the command with a message that names the cause and the remedy."""

    def __init__(self, message: str, code: int = FAILED) -> None:
        super().__init__(message)
        self.code = code


def explain(error: ApiError, server: str) -> PluginError:
    """The API server's refusal as the user's next step."""
    said = error.message.rstrip(". ")
    if error.status == 0:
        return PluginError(
            f"the API server {server} does not answer ({said}): is the cluster up and this the right context? "
            "kubectl config get-contexts lists them, --context chooses one"
        )
    if error.status == 401:
        return PluginError(
            f"the API server {server} does not accept your credentials ({said}): log in again, or choose another "
            "--context"
        )
    if error.status == 403:
        return PluginError(f"{said}: ask the cluster's administrator for that right; {RIGHTS}")
    if error.status == 404 and error.reason in ("", "NotFound") and "could not find the requested resource" in said:
        return PluginError(
            f"the cluster at {server} does not know feedmill.dev/v1alpha1: install Feedmill there first "
            "(docs/install.md), or choose another --context"
        )
    if error.status in (429, 503, 504):
        return PluginError(f"the API server {server} is too busy or cannot reach the pod ({said}): try again")
    return PluginError(f"the API server {server} refused: {error.status} {said}")
