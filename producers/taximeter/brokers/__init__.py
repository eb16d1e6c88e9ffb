"""Publishing to RabbitMQ, and to Redis or Valkey, behind one small interface."""
