"""The public name of a source, without credentials, for logs, pages and files."""

from __future__ import annotations

import re

# user=…, password=…, token=… in a path or query, common in addresses of cameras
SECRET = re.compile(
    r"(?P<key>(?:user|login|pass|pwd|token|secret|auth|key|sig|credential)\w*|(?<![a-z0-9])(?:usr|pw|u|p))=[^&;/?#,\s]*",
    re.IGNORECASE,
)
SCHEME = re.compile(r"([a-z][a-z0-9+.-]*://)(.*)", re.IGNORECASE | re.DOTALL)


def public_name(name: str) -> str:
    """The address without user, password, fragment and the values of parameters that may be secret. A path is returned
    unchanged.

    `rtsp://user:p@ss@host/live?token=x` becomes `rtsp://host/live?token=***`. If a password contains an unescaped `/`,
    everything before the last `@` is removed.
    """
    match = SCHEME.fullmatch(name)
    if match is None:
        return name
    scheme, rest = match.groups()
    authority = re.match(r"[^/?#]*", rest)
    end = authority.end() if authority is not None else 0
    if "@" in rest[:end]:
        rest = rest[rest.rindex("@", 0, end) + 1 :]
    elif ":" in rest[:end] and not rest[:end].rpartition(":")[2].rstrip("]").isdecimal() and "@" in rest:
        rest = rest[rest.rindex("@") + 1 :]  # user:pa/ss@host
    return scheme + SECRET.sub(r"\g<key>=***", rest.partition("#")[0])
