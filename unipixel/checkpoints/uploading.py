"""Uploading of a checkpoint to the hub."""

from __future__ import annotations

import tempfile
from collections.abc import Callable


def upload(
    save: Callable[[str], None],
    repo_id: str,
    *,
    commit_message: str = "Upload a UniPixel checkpoint",
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
) -> str:
    """Write a checkpoint into a temporary folder and upload it, in one commit.

    Args:
        save: Writes the files into a folder.
        repo_id: `owner/name`, created if necessary.
        commit_message: Message of the commit.
        private: Whether a new repository is private.
        token: See `huggingface_hub`.
        revision: Branch; None is the main branch.
        create_pr: Whether a pull request is opened.

    Returns:
        The address of the commit.

    Raises:
        OSError: The hub cannot be reached, or refuses the upload.
        ValueError: The name is malformed.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    repository = api.create_repo(repo_id, private=private, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        save(folder)
        commit = api.upload_folder(
            repo_id=repository.repo_id,
            folder_path=folder,
            commit_message=commit_message,
            revision=revision,
            create_pr=create_pr,
        )
    return str(commit.commit_url)
