"""HTTP for tools without AMQP or Redis: a thin layer over the SDK's spool and publisher. docs/gateway.md describes it."""
