"""`python -m serve --reload`: have a running server serve the newest versions of its models."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serve.errors import RepositoryError, ServerError
from serve.models import load, loaded_versions
from serve.question import NoRightAnswer, Overloaded, Unreachable, ask
from serve.repository import SERVED, select_models
from serve.versions import link_models
from serve.workplace import leave_note, running


@dataclass(frozen=True)
class Reloaded:
    """versions: what each model now is. refused: version folders that did not verify, and models that are served and
    have none left that does, with the reason."""

    versions: dict[str, str]
    refused: dict[str, str]


def reload(grpc_port: int) -> Reloaded:
    """Verify what the repository of the server on this port holds, show it to the server and have it loaded.

    The former versions answer until the new ones do. What is refused is left for the server's log too. Raises
    ServerError, and RepositoryError for a repository in which nothing is left to serve; the server then goes on with
    what it has.
    """
    folder, facts = _find(grpc_port)
    try:
        reloaded = _load_newest(folder, facts)
    except (ServerError, RepositoryError) as error:
        leave_note(folder, f"not reloaded: {error}")
        raise
    for reason in reloaded.refused.values():
        leave_note(folder, f"not served: {reason}")
    return reloaded


def _load_newest(folder: Path, facts: dict[str, Any]) -> Reloaded:
    headers = {"admin": str(facts["admin_key"])}
    repository = Path(facts["repository"])
    selection = select_models(repository)
    refused = link_models(repository, selection.load, folder / "models")
    shown = {model.name for model in (folder / "models").iterdir()}
    refused |= {name: reason for name, reason in selection.skipped.items() if name in shown}
    try:
        # `gin` first: its parts are then loaded with it and replaced together.
        for name in sorted(selection.load, key=lambda name: name != SERVED):
            load(facts["url"], name, headers)
        with contextlib.suppress(Overloaded):  # by others, whom it answers
            ask(facts["url"], 60)
        return Reloaded(loaded_versions(facts["url"], headers), refused)
    except Unreachable as error:
        raise ServerError(f"the server ended while it loaded the newest versions: {error}") from None
    except NoRightAnswer as error:
        reason = str(error).replace(str(folder / "models"), str(repository))
        raise ServerError(f"the server could not load the newest versions: {reason}") from None


def _find(grpc_port: int) -> tuple[Path, dict[str, Any]]:
    for folder, facts in running():
        if facts.get("grpc_port") == grpc_port and "url" in facts:
            return folder, facts
    raise ServerError(f"no server of this user was started here with the gRPC port {grpc_port}")
