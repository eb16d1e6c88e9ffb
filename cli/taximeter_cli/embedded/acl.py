"""The users of an embedded Valkey with less than all rights; the same as in `deploy/valkey/users.in.acl`."""

from __future__ import annotations

from typing import Final

DEFAULT: Final = "default"
"""The server's own user, with all rights. Named in addresses: some clients take an empty name for a user without one."""
TOOL: Final = "tool"
WORKER: Final = "worker"
GATEWAY: Final = "gateway"
DASHBOARD: Final = "dashboard"
_TOOL: Final = (
    "resetchannels -@all +hget +hgetall +get +time +info|server +exists +multi +exec +ping +select +client|tracking +client|setname "
    "+client|id +subscribe +unsubscribe &__redis__:invalidate "
    "%R~taximeter:flag:* %R~taximeter:flags:ready %R~taximeter:prices:* (+lpush "
    "%W~taximeter.usage %W~taximeter.usage.[0-9] %W~taximeter.usage.[0-9][0-9] "
    "%W~taximeter.usage.[0-9][0-9][0-9]{more}) "
    "(+hmget %R~taximeter:balance:*) (+evalsha +hget +hmget +hset +hdel +zadd +zrem +zscore +zcard +zrangebyscore "
    "+pexpire +del ~taximeter:holds:*)"
)
USERS: Final = {
    TOOL: _TOOL.format(more=""),
    GATEWAY: _TOOL.format(more=" %W~taximeter.payment"),
    DASHBOARD: (
        "resetchannels -@all +get +time +info|server +ping +select %R~taximeter:flags:ready "
        "(+hmget %R~taximeter:balance:*) "
        "(+evalsha +hget +hmget +hset +hdel +zrem +zcard +zrangebyscore +del ~taximeter:holds:*)"
    ),
    WORKER: (
        "resetchannels -@all +@read +@write +@connection +@transaction +@scripting +@blocking -@dangerous "
        "+info +time +cluster|slots +cluster|shards +publish &/*.celeryev/* ~taximeter:* ~taximeter.* "
        "~_kombu.binding* ~unacked*"
    ),
}
