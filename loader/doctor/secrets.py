"""Where a config has a server's password from, to ask first whether it is the right one."""

import os
from collections.abc import Sequence
from pathlib import Path

from loader.config.files import read_document
from loader.config.servers import ServerConfig
from loader.records import dataclass


@dataclass(frozen=True, slots=True)
class Secret:
    """The password of a server, which the files of a config describe under these keys."""

    files: Sequence[Path]
    keys: tuple[str, ...]
    server: ServerConfig

    def doubt(self) -> str:
        """The question that comes before any change of the account, if the server refuses the password."""
        keys = (*self.keys, "url" if self.server.url.password else "password")
        if not self.server.secret:
            return f"no password is given (see {'.'.join(keys)});"
        if self.server.secret_path:
            return f"is the password in {self.server.secret_path} right?"
        variable = read_document(self.files, os.environ).variables.get(keys)
        return f"is ${variable} right?" if variable else f"is {'.'.join(keys)} right?"
