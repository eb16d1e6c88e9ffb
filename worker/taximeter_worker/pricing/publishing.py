"""Publishing the price book for tools, which price with it as the booking does."""

from __future__ import annotations

from taximeter import names
from taximeter.pricing.published import PublishedBook
from taximeter_worker.flags.connecting import Client


def publish_book(client: Client, published: PublishedBook) -> bool:
    """Write the book unless Redis has this very one; says whether it was written.

    Every worker does so after each look at the database, so the newest book stands there again half a second after Redis
    lost it, or after a slower worker wrote an older one.

    Raises:
        redis.RedisError, OSError: Redis did not take it.
    """
    if client.hget(names.PRICES, "tag") == published.tag:
        return False
    fields = {"revision": published.revision, "tag": published.tag, "book": published.book}
    client.hset(names.PRICES, mapping=fields)
    return True
