"""The actor: connect, consume, handle, publish, acknowledge. The only room that imports nats."""
