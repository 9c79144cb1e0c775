"""The event store in PostgreSQL: appends, reads, notifications, histories, snapshots."""
