# ruff: noqa: INP001 -- a script of its own, no part of a package
"""Make the secrets of compose.yaml: `.env`, and the users of RabbitMQ and Valkey with their passwords hashed.

    python3 make_secrets.py          # in the folder of this file; makes what is missing, keeps passwords that exist

Writes `.env`, `rabbitmq/definitions.json` and `valkey/users.acl` with mode 0600 or, for what a container's own user must
read, 0644: those two hold only hashes of long random words. Standard library only.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import secrets
from pathlib import Path

HERE = Path(__file__).parent


def passwords(example: str, present: str) -> dict[str, str]:
    """Name and value of each secret: those of ``present`` stay, the others are made."""
    known = dict(re.findall(r"^(\w+)=(.+)$", present, re.MULTILINE))
    return {
        name: known.get(name) or secrets.token_urlsafe(24) for name in re.findall(r"^(\w+)=$", example, re.MULTILINE)
    }


def environment(example: str, known: dict[str, str]) -> str:
    """The text of `.env`."""
    return re.sub(r"^(\w+)=$", lambda line: f"{line[1]}={known[line[1]]}", example, flags=re.MULTILINE)


def rabbitmq_hash(password: str, salt: bytes | None = None) -> str:
    """A password as RabbitMQ keeps it: salted SHA-256."""
    salt = secrets.token_bytes(4) if salt is None else salt
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def definitions(template: str, known: dict[str, str]) -> str:
    """RabbitMQ's definitions with its users' passwords."""
    document = json.loads(template)
    for user in document["users"]:
        # The same salt each time, so that an unchanged password gives an unchanged file.
        password = known[user.pop("password_from")]
        salt = hashlib.sha256(f"{user['name']} {password}".encode()).digest()[:4]
        user |= {"password_hash": rabbitmq_hash(password, salt), "hashing_algorithm": "rabbit_password_hashing_sha256"}
    return json.dumps(document, indent=2) + "\n"


def access_list(template: str, known: dict[str, str]) -> str:
    """Valkey's users; its file takes no comments."""
    lines = [line for line in template.splitlines() if line and not line.startswith("#")]
    text = re.sub(r"\{(\w+)\}", lambda name: hashlib.sha256(known[name[1]].encode()).hexdigest(), "\n".join(lines))
    return text + "\n"


def main() -> None:
    """Write the three files."""
    example = (HERE / ".env.example").read_text(encoding="utf-8")
    present = HERE / ".env"
    known = passwords(example, present.read_text(encoding="utf-8") if present.exists() else "")
    _write(present, environment(example, known), 0o600)
    template = (HERE / "rabbitmq" / "definitions.in.json").read_text(encoding="utf-8")
    _write(HERE / "rabbitmq" / "definitions.json", definitions(template, known), 0o644)
    template = (HERE / "valkey" / "users.in.acl").read_text(encoding="utf-8")
    _write(HERE / "valkey" / "users.acl", access_list(template, known), 0o644)


def _write(path: Path, text: str, mode: int) -> None:
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as stream:
        stream.write(text)
    draft.chmod(mode)
    draft.replace(path)


if __name__ == "__main__":
    main()
