"""Where messages come from: RabbitMQ, and Redis or Valkey, behind one small interface."""
