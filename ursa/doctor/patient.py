"""The profile under examination: what the verbs work with, but every role apart, and nothing made by looking."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ursa.access import Access
from ursa.catalog.home import CatalogHome
from ursa.catalog.retention import refused_since
from ursa.config import BucketRef, Config, Role
from ursa.credentials import Credentials, CredentialsProvider, provider_for
from ursa.store import Store
from ursa.store.retry import RetryingStore, RetryPolicy

if TYPE_CHECKING:
    from ursa.doctor.s3_probe import Answer, ProbeStore
    from ursa.store.conduct import Conduct
    from ursa.store.s3.proxies import Proxy

_SESSIONS = ("OP_SESSION", "OP_SERVICE_ACCOUNT_TOKEN")
_SHORTEST_MASKED = 6  # characters; what is shorter is no key, and would mask half a message
_ASKED = 3  # the first one connects; of the others the median is the slower one


class Patient(Access):
    """An ``Access`` whose stores are asked for by role. Retries are few: a doctor tells, and does not wait.

    Probes run side by side, so that what they share is made under a lock.
    """

    def __init__(self, profile: str, config_path: Path | str | None, *, config: Config | None = None) -> None:
        super().__init__(profile, config_path, config=config)
        self._held: set[str] = set()
        self._making = threading.Lock()
        self._by_role: dict[Role, ProbeStore] = {}

    def bucket(self, role: Role) -> BucketRef:
        """The bucket and prefix that a role is for."""
        return self.profile.raw if role.startswith("raw") else self.profile.assets

    def store(self, role: Role) -> Store:
        """The role's bucket. R2 takes one write a second to a key and answers 429 to more: hence the retries."""
        inner = self._store(self.bucket(role).bucket, role) if self.is_local else self.s3(role)
        return RetryingStore(inner, _patience())

    def s3(self, role: Role) -> ProbeStore:
        """The role's bucket on a server, with the questions that only a doctor asks."""
        from ursa.doctor.s3_probe import ProbeStore

        with self._making:
            if role not in self._by_role:
                self._by_role[role] = ProbeStore(*self._s3_parts(self.bucket(role).bucket, role))
            return self._by_role[role]

    def conduct(self, role: Role) -> Conduct | None:
        """How the server of a writing role's bucket treats conditions and checksums: asked now, whatever is noted.

        Raises:
            StorageError: it ignores conditions, or could not be asked.
        """
        store = self.s3(role)
        found = _patience().call(lambda: store.conduct(fresh=True))
        store.admit()
        return found

    @property
    def is_local(self) -> bool:
        """A directory instead of a server."""
        return self.profile.kind == "local"

    @property
    def home(self) -> CatalogHome:
        """The catalog's home, where looking makes nothing."""
        with self._making:
            return replace(self._home, create=False)

    @property
    def clean_up_refused(self) -> tuple[datetime, str] | None:
        """Since when this machine has not deleted what is past the catalog's retention, and why."""
        return refused_since(self._files, self._place(self.profile.assets.bucket))

    @property
    def credentials(self) -> CredentialsProvider:
        """Where the roles' secrets come from."""
        with self._making:
            return self._credentials

    @cached_property
    def answers(self) -> list[Answer]:
        """What the server answered to a few small unsigned requests. Raises ``StorageError``."""
        return self.s3("raw_ro").ask(_ASKED)

    @property
    def proxy(self) -> Proxy | None:
        """The proxy on the way to the server. Raises ``ConfigError``."""
        return self._connections.route.proxy

    def hide(self, text: str) -> str:
        """The text without any secret that this process holds: a server may quote what it was sent."""
        held = {value for name, value in os.environ.items() if name.startswith(_SESSIONS)} | self._held
        for secret in sorted(held, key=len, reverse=True):
            if len(secret) >= _SHORTEST_MASKED:
                text = text.replace(secret, "***")
        return text

    @cached_property
    def _credentials(self) -> CredentialsProvider:
        return _Remembering(provider_for(self.profile), self._held)


def _patience() -> RetryPolicy:
    return RetryPolicy(attempts=6, max_delay_s=3, request_deadline_s=25)


class _Remembering:
    """A provider that keeps what it gave, so that no line may hold it."""

    def __init__(self, inner: CredentialsProvider, held: set[str]) -> None:
        self._inner = inner
        self._held = held

    def get(self, role: Role) -> Credentials:
        return self._kept(self._inner.get(role))

    def refresh(self, role: Role) -> Credentials:
        return self._kept(self._inner.refresh(role))

    def describe(self, role: Role) -> str:
        return self._inner.describe(role)

    def _kept(self, secret: Credentials) -> Credentials:
        self._held |= {secret.access_key_id, secret.secret_access_key, secret.session_token or ""}
        return secret
