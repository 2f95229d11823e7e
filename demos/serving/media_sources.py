"""The media of a request: data URLs, files of allowed folders, addresses of allowed hosts; copied within limits."""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx

from unipixel.demos.limits import MEGABYTE, Limits
from unipixel.demos.security.network_sources import Resolver, SourceRules, resolve
from unipixel.demos.security.uploads import copy_upload
from unipixel.demos.serving.api_errors import ApiError

_FETCH_SECONDS = 60.0
_PARAMETER = "messages"


class MediaSources:
    """Decides which media the server reads, and copies them to a folder of the request."""

    def __init__(
        self, *, folders: Sequence[Path], hosts: Sequence[str], limits: Limits, resolver: Resolver = resolve
    ) -> None:
        """Check the allow lists.

        Args:
            folders: Folders whose files may be named as `file:` addresses.
            hosts: Hosts such as `media.example` or `media.example:8443`, or addresses such as
                `https://media.example/clips`.
            limits: Limits of the media.
            resolver: Returns the IP addresses of a host and port.

        Raises:
            ValueError: A folder does not exist, or a host is invalid.
        """
        for folder in folders:
            if not folder.is_dir():
                raise ValueError(f"--files {folder} is not a folder")
        self._folders = [folder.resolve() for folder in folders]
        entries = [
            entry for host in hosts for entry in ([host] if "://" in host else [f"https://{host}/", f"http://{host}/"])
        ]
        self._rules = SourceRules(entries, resolver=resolver)
        self._limits, self._max_bytes = limits, int(limits.max_upload_megabytes * MEGABYTE)

    def copy(self, url: str, folder: Path) -> Path:
        """Copy the media of an address to a file in a folder, and return its path.

        Raises:
            ApiError: The address is not allowed, or its content is too large or cannot be read.
            UploadError: The file is missing, empty, too large or not a regular file.
            SourceError: The host is not allowed, or is in a private network.
        """
        scheme = url[:20].partition(":")[0].lower()
        if scheme == "file":
            return copy_upload(self._find_file(url), folder, limits=self._limits)
        target = folder / "media"
        if scheme == "data":
            target.write_bytes(self._decode(url))
        elif scheme in ("http", "https"):
            self._fetch(url, target)
        else:
            raise ApiError(f"the address must begin with data:, file:, http: or https:, got {url!r:.60}")
        return target

    def _find_file(self, url: str) -> Path:
        parts = urlsplit(url)
        path = Path(unquote(parts.path))
        if not self._folders or parts.netloc not in ("", "localhost") or not path.is_absolute() or "\0" in str(path):
            raise ApiError(f"the file {url!r:.200} is not in an allowed folder of the server", parameter=_PARAMETER)
        # Links are followed before the comparison. The message is the same for absent files.
        found = path.resolve()
        if not any(found.is_relative_to(folder) for folder in self._folders) or not found.is_file():
            raise ApiError(f"the file {url!r:.200} is not in an allowed folder of the server", parameter=_PARAMETER)
        return found

    def _decode(self, url: str) -> bytes:
        header, comma, content = url.partition(",")
        if not comma or not header.lower().endswith(";base64"):
            raise ApiError(f"a data URL must have the form data:TYPE;base64,CONTENT, got {url!r:.60}")
        if len(content) * 3 // 4 > self._max_bytes + 2:
            raise ApiError(self._too_large(), status=413, parameter=_PARAMETER)
        try:
            return base64.b64decode(content, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ApiError(f"the data URL {url!r:.40} is not base64: {error}", parameter=_PARAMETER) from error

    def _fetch(self, url: str, target: Path) -> None:
        # The connection is to the checked IP address; the certificate is verified for the name.
        address = self._rules.check(url, is_pinned=True)
        parts = urlsplit(url)
        headers = {"Host": parts.netloc.rpartition("@")[2], "Accept-Encoding": "identity"}
        deadline, size = time.monotonic() + _FETCH_SECONDS, 0
        try:
            with (
                httpx.Client(trust_env=False, follow_redirects=False, timeout=10) as client,
                client.stream(
                    "GET", address, headers=headers, extensions={"sni_hostname": parts.hostname or ""}
                ) as answer,
                target.open("xb") as file,
            ):
                if answer.status_code != 200:
                    raise ApiError(f"{parts.hostname} answered with status {answer.status_code}, expected 200")
                for block in answer.iter_raw():
                    size += file.write(block)
                    if size > self._max_bytes:
                        raise ApiError(self._too_large(), status=413, parameter=_PARAMETER)
                    if time.monotonic() > deadline:
                        raise ApiError(f"{parts.hostname} took longer than {_FETCH_SECONDS:g} seconds")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ApiError(f"{parts.hostname} cannot be read: {type(error).__name__}", parameter=_PARAMETER) from error

    def _too_large(self) -> str:
        return f"the media exceed the maximum of {self._limits.max_upload_megabytes:g} MB"
