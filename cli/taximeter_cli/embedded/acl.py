"""The users of an embedded Valkey with less than all rights; the same as in `deploy/valkey/users.in.acl`."""

from __future__ import annotations

from typing import Final

DEFAULT: Final = "default"
"""The server's own user, with all rights. Named in addresses: some clients take an empty name for a user without one."""
TOOL: Final = "tool"
WORKER: Final = "worker"
USERS: Final = {
    TOOL: (
        "resetchannels -@all +hget +hgetall +exists +multi +exec +ping +select +client|tracking "
        "+client|setinfo +client|setname %R~taximeter:flag:* %R~taximeter:flags:ready (+lpush "
        "%W~taximeter.usage %W~taximeter.usage.[0-9] %W~taximeter.usage.[0-9][0-9] "
        "%W~taximeter.usage.[0-9][0-9][0-9])"
    ),
    WORKER: (
        "resetchannels -@all +@read +@write +@connection +@transaction +@scripting +@blocking -@dangerous "
        "+info +cluster|slots +cluster|shards +publish &/*.celeryev/* ~taximeter:* ~taximeter.* "
        "~_kombu.binding* ~unacked*"
    ),
}
